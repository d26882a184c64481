"""Calls that failed in transit: tried again with growing pauses, as often as allowed, and never for nothing."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from llmbatch_assets.domain.outcome import Completion
from llmbatch_assets.domain.prompt import Message
from llmbatch_assets.domain.request import ChatRequest
from llmbatch_assets.engine.retry import FIRST_WAIT_SEC, MAX_RETRY_AFTER_SEC, MAX_WAIT_SEC, RetryingCalls
from llmbatch_assets.errors import (
    FailureCause,
    ItemPermanentError,
    LlmBatchError,
    ProviderError,
    RunPermanentError,
    StopCause,
    TransientError,
)
from llmbatch_assets_tests.engine.fakes import run

DONE = Completion(text="done")
REQUEST = ChatRequest("generate", (Message("user", "Is it?"),), None)


class Call:
    """A call that fails as told, then answers; ``pauses`` are the seconds before each further try."""

    def __init__(self, *faults: Exception) -> None:
        self.faults = list(faults)
        self.tries: list[float] = []

    async def complete(self, request: ChatRequest) -> Completion:
        self.tries.append(asyncio.get_running_loop().time())
        if self.faults:
            raise self.faults.pop(0)
        return DONE

    @property
    def pauses(self) -> list[float]:
        return [later - earlier for earlier, later in pairwise(self.tries)]


def busy(retry_after: float | None = None) -> TransientError:
    """A fault that passes."""
    return TransientError(FailureCause.RATE_LIMITED, "busy", retry_after)


@pytest.mark.parametrize(
    "fault",
    [
        RunPermanentError(StopCause.NO_KEY, "no"),
        ItemPermanentError(FailureCause.REFUSED, "no"),
        ProviderError(FailureCause.BAD_REQUEST, "no"),
        LlmBatchError("no"),
        ValueError("no"),
    ],
    ids=lambda fault: type(fault).__name__,
)
def test_a_fault_that_time_does_not_heal_is_raised_at_once(fault: Exception) -> None:
    call = Call(fault)
    with pytest.raises(type(fault)) as raised:
        run(lambda: RetryingCalls(5, asyncio.Event()).ask(call, REQUEST))
    assert raised.value is fault
    assert len(call.tries) == 1


@pytest.mark.parametrize(("faults", "retries"), [(0, 0), (1, 1), (3, 3), (3, 9)])
def test_a_call_that_recovers_in_time_is_answered(faults: int, retries: int) -> None:
    call = Call(*(busy() for _ in range(faults)))
    assert run(lambda: RetryingCalls(retries, asyncio.Event()).ask(call, REQUEST)) is DONE
    assert len(call.tries) == faults + 1


@pytest.mark.parametrize("retries", [0, 1, 4])
def test_the_last_fault_is_raised_when_the_tries_are_used_up(retries: int) -> None:
    faults = [TransientError(FailureCause.SERVER_ERROR, f"number {number}") for number in range(9)]
    call = Call(*faults)
    with pytest.raises(TransientError) as raised:
        run(lambda: RetryingCalls(retries, asyncio.Event()).ask(call, REQUEST))
    assert raised.value is faults[retries]
    assert len(call.tries) == retries + 1


def test_pauses_grow_to_a_longest_one_and_no_two_callers_keep_step() -> None:
    calls = [Call(*(busy() for _ in range(10))) for _ in range(20)]
    for call in calls:
        run(lambda call=call: RetryingCalls(10, asyncio.Event()).ask(call, REQUEST))  # type: ignore[misc]  # the call is bound as it is
    for number in range(10):
        pauses = [call.pauses[number] for call in calls]
        earliest = min(FIRST_WAIT_SEC * 2**number, MAX_WAIT_SEC)
        assert earliest - 0.001 <= min(pauses)
        assert max(pauses) <= earliest + FIRST_WAIT_SEC + 0.001
        assert earliest == MAX_WAIT_SEC or len(set(pauses)) > 1


@pytest.mark.parametrize(
    ("asked", "waited"),
    [
        # As the server asks, be it less than we would have waited ...
        (0.0, 0.0),
        (0.1, 0.1),
        (45.0, 45.0),
        # ... but not for a day.
        (86_400.0, MAX_RETRY_AFTER_SEC),
    ],
)
def test_a_server_that_names_a_time_is_obeyed_up_to_a_limit(asked: float, waited: float) -> None:
    call = Call(busy(asked), busy(asked))
    run(lambda: RetryingCalls(2, asyncio.Event()).ask(call, REQUEST))
    assert call.pauses == pytest.approx([waited, waited], abs=0.01)


def test_a_wait_can_be_interrupted() -> None:
    call = Call(busy(60))

    async def interrupted() -> None:
        waiting = asyncio.ensure_future(RetryingCalls(1, asyncio.Event()).ask(call, REQUEST))
        await asyncio.sleep(1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    run(interrupted)
    assert len(call.tries) == 1


def test_a_pause_ends_when_the_run_is_stopped() -> None:
    # A server that asks for minutes must not hold up a run that another call has stopped.
    call = Call(busy(), busy())

    async def stop_soon() -> float:
        stopped, started = asyncio.Event(), asyncio.get_running_loop().time()
        asyncio.get_running_loop().call_later(0.01, stopped.set)
        with pytest.raises(RunPermanentError, match="the run was stopped"):
            await RetryingCalls(1, stopped).ask(call, REQUEST)
        return asyncio.get_running_loop().time() - started

    assert run(stop_soon) < FIRST_WAIT_SEC
