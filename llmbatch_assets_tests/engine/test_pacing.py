"""The gate: nobody through while it is shut, all through in the end, and no server asked faster than it takes."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Protocol

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbatch_assets.engine.pacing import CATCH_UP_SEC, Allowance, CallLimits, Pacer
from llmbatch_assets.engine.retry import FIRST_WAIT_SEC, MAX_RETRY_AFTER_SEC
from llmbatch_assets.errors import FailureCause, RunPermanentError, StopCause, TransientError
from llmbatch_assets_tests.domain.strategies import quick
from llmbatch_assets_tests.engine.fakes import run


def now() -> float:
    return asyncio.get_running_loop().time()


def too_many(retry_after: float | None = None) -> TransientError:
    return TransientError(FailureCause.RATE_LIMITED, "too many requests", retry_after)


@dataclass
class Gate:
    """A pacer with calls behind it; ``begun`` is when they were let through, since the gate was made."""

    limits: CallLimits
    begun: list[float] = field(default_factory=list)
    most_at_once: int = 0
    in_flight: int = 0

    def __post_init__(self) -> None:
        self.stopped = asyncio.Event()
        self.pacer = Pacer(self.limits, self.stopped)
        self.made = now()

    async def call(
        self, seconds: float = 1.0, fault: Exception | None = None, tokens: float = 1, took: float | None = None
    ) -> None:
        async with self.pacer.permit(tokens) as permit:
            self.begun.append(round(now() - self.made, 3))
            self.in_flight += 1
            self.most_at_once = max(self.most_at_once, self.in_flight)
            try:
                await asyncio.sleep(seconds)
            finally:
                self.in_flight -= 1
            permit.tokens = tokens if took is None else took
            if fault is not None:
                raise fault

    async def calls(self, *calls: Mapping[str, object]) -> list[BaseException | None]:
        """What became of calls that all come at once."""
        return await asyncio.gather(*(self.call(**one) for one in calls), return_exceptions=True)  # type: ignore[arg-type]


def test_without_limits_only_the_workers_are_counted() -> None:
    async def work() -> None:
        gate = Gate(CallLimits(3))
        await gate.calls(*[{}] * 7)
        assert gate.begun == [0, 0, 0, 1, 1, 1, 2]
        assert gate.pacer.stats.calls == 7
        assert gate.pacer.stats.lowest_concurrency == 3

    run(work)


def test_requests_a_minute_are_spread_evenly() -> None:
    async def work() -> None:
        gate = Gate(CallLimits(8, requests_per_minute=120))
        await gate.calls(*[{}] * 5)
        assert gate.begun == pytest.approx([0, 0.5, 1, 1.5, 2], abs=0.002)
        assert gate.pacer.stats.seconds_waited == pytest.approx(5, abs=0.01)

    run(work)


def test_tokens_are_counted_as_guessed_and_put_right_after() -> None:
    async def work() -> None:
        gate = Gate(CallLimits(8, tokens_per_minute=600))
        # Ten tokens a second: the second waits for the guess of 30, until at 1 s the first turns out to be 15.
        await gate.calls({"tokens": 30, "took": 15}, {"tokens": 10}, {"tokens": 10})
        assert gate.begun == pytest.approx([0, 1.5, 2.5], abs=0.002)

    run(work)


def test_one_absurd_count_of_tokens_delays_by_a_minute_and_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        gate = Gate(CallLimits(1, tokens_per_minute=60_000))
        await gate.calls({"tokens": 100, "took": 900_000_000}, {"tokens": 100, "took": 900_000_000}, {"tokens": 100})
        assert gate.begun == pytest.approx([0, 60.1, 120.2], abs=0.01)

    run(work)
    (message,) = caplog.messages
    assert message == (
        "The server reported 900,000,000 tokens for one call, more than tokens_per_minute (60,000) allows in a minute. "
        "The run waits one minute and continues. Check the server's token counts and the limit."
    )


def test_calls_are_let_through_in_the_order_in_which_they_came() -> None:
    order: list[int] = []

    async def work() -> None:
        gate = Gate(CallLimits(2, tokens_per_minute=6000))

        async def call(number: int) -> None:
            async with gate.pacer.permit(number % 3 * 100):
                order.append(number)
                await asyncio.sleep(0.1)

        await asyncio.gather(*map(call, range(9)))

    run(work)
    assert order == list(range(9))


# Refusals.


def test_several_refusals_in_a_row_shut_the_gate_for_all_and_no_call_begins_meanwhile() -> None:
    async def work() -> None:
        gate = Gate(CallLimits(4))
        refused = [{"seconds": 0.1, "fault": too_many(20)}, *[{"seconds": 0.2, "fault": too_many(19.9)}] * 3]
        await gate.calls(*refused, *[{}] * 6)
        # Four were in flight, and one began after the first refusal; then none before the 20 s are over.
        assert gate.begun[:5] == [0, 0, 0, 0, 0.1]
        assert min(gate.begun[5:]) >= 20.1
        facts = gate.pacer.stats
        assert (facts.rate_limited, facts.cool_downs, facts.lowest_concurrency) == (4, 1, 1)

    run(work)


@pytest.mark.parametrize("asked", [None, 30.0])
def test_a_single_refusal_concerns_its_call_only(asked: float | None) -> None:
    async def work() -> None:
        gate = Gate(CallLimits(4))
        await gate.calls({"seconds": 0.1, "fault": too_many(asked)}, *[{}] * 11)
        assert gate.begun[-1] == pytest.approx(2.1, abs=0.2)
        assert (gate.pacer.stats.rate_limited, gate.pacer.stats.cool_downs) == (1, 0)

    run(work)


def test_what_was_in_flight_when_the_gate_was_shut_halves_nothing_again_but_may_prolong() -> None:
    async def work() -> None:
        gate = Gate(CallLimits(64))
        answers = [{"seconds": 0.1}] * 24
        refused = [*[{"seconds": 1, "fault": too_many(5)}] * 3, {"seconds": 2, "fault": too_many(10)}]
        await gate.calls(*answers, *refused, {"seconds": 3})
        await gate.call()
        assert gate.begun[-1] == pytest.approx(12, abs=0.01)
        assert gate.pacer.stats.cool_downs == 1
        assert gate.pacer.stats.lowest_concurrency == 32

    run(work)


def test_concurrency_comes_back_by_one_with_each_answer() -> None:
    async def work() -> None:
        gate = Gate(CallLimits(8))
        await gate.calls(*[{"seconds": 0.1}] * 40, *[{"seconds": 0.1, "fault": too_many(0.1)}] * 8)
        gate.most_at_once = 0
        gate.begun.clear()
        await gate.calls(*[{"seconds": 10}] * 4)
        assert gate.most_at_once == 4
        await gate.calls(*[{"seconds": 10}] * 20)
        assert gate.most_at_once == 8

    run(work)


def test_after_a_few_calls_that_say_nothing_of_a_rate_one_call_begins_and_each_answer_allows_one_more() -> None:
    # 15 of 16 first calls were refused with Retry-After: 30. A rate of one call in 30 s took 1,081 s for 100 rows.
    async def work() -> None:
        gate = Gate(CallLimits(16))
        await gate.calls({}, *[{"seconds": 0.1, "fault": too_many(30)}] * 15)
        await gate.calls(*[{}] * 31)
        assert gate.begun[16:] == pytest.approx([30.1, *[31.1] * 2, *[32.1] * 4, *[33.1] * 8, *[34.1] * 16], abs=0.01)

    run(work)


def test_it_is_never_less_than_one() -> None:
    async def work() -> None:
        gate = Gate(CallLimits(2))
        for _ in range(5):
            await gate.calls({"fault": too_many(1)})
        assert gate.pacer.stats.lowest_concurrency == 1
        await gate.call()

    run(work)


@pytest.mark.parametrize(
    ("asked", "pauses"),
    [
        # As the server says, but not for a day; and longer where that has not helped.
        (7.0, [0, 0, 7, 7, 7]),
        (0.0, [0, 0, 0, 2 * FIRST_WAIT_SEC, 4 * FIRST_WAIT_SEC]),
        (86_400.0, [0, 0, *[MAX_RETRY_AFTER_SEC] * 3]),
        (None, [0, 0, FIRST_WAIT_SEC, 2 * FIRST_WAIT_SEC, 4 * FIRST_WAIT_SEC]),
    ],
)
def test_the_gate_stays_shut_for_as_long_as_the_server_asks(asked: float | None, pauses: list[float]) -> None:
    async def work() -> None:
        gate = Gate(CallLimits(1))
        for _ in range(6):
            await gate.calls({"seconds": 0.0, "fault": too_many(asked)})
        measured = [later - earlier for earlier, later in zip(gate.begun, gate.begun[1:], strict=False)]
        assert measured == pytest.approx(pauses, abs=0.01)

    run(work)


def test_a_server_that_is_overloaded_and_says_for_how_long_shuts_the_gate_as_well() -> None:
    async def work() -> None:
        gate = Gate(CallLimits(4))
        overloaded = TransientError(FailureCause.SERVER_ERROR, "overloaded", 20)
        await gate.calls(*[{"seconds": 0.1, "fault": overloaded}] * 4, {})
        assert gate.begun[-1] == pytest.approx(20.1, abs=0.01)
        assert (gate.pacer.stats.rate_limited, gate.pacer.stats.cool_downs) == (0, 1)

    run(work)


@pytest.mark.parametrize(
    "fault", [TransientError(FailureCause.TIMEOUT, "late"), RunPermanentError(StopCause.NO_KEY, "no")]
)
def test_other_faults_shut_nothing(fault: Exception) -> None:
    async def work() -> None:
        gate = Gate(CallLimits(1))
        assert await gate.calls({"fault": fault}, {}) == [fault, None]
        assert gate.begun == [0, 1]
        assert gate.pacer.stats.cool_downs == 0

    run(work)


# The end of a run.


@pytest.mark.parametrize(
    "limits", [CallLimits(1), CallLimits(9, requests_per_minute=1), CallLimits(9, tokens_per_minute=1)]
)
def test_whoever_waits_is_sent_away_when_the_run_is_stopped(limits: CallLimits) -> None:
    async def work() -> None:
        gate = Gate(limits)
        asyncio.get_running_loop().call_later(5, gate.stopped.set)
        ends = await gate.calls({"seconds": 6}, {}, {})
        assert ends[0] is None
        assert [getattr(end, "cause", None) for end in ends[1:]] == ["stopped", "stopped"]
        assert now() - gate.made == pytest.approx(6, abs=0.01)
        assert gate.begun == [0]

    run(work)


def test_whoever_gives_up_waiting_is_not_in_the_way() -> None:
    async def work() -> None:
        gate = Gate(CallLimits(1))
        first, second, third = (asyncio.ensure_future(gate.call(10)) for _ in range(3))
        await asyncio.sleep(1)
        second.cancel()
        await asyncio.gather(first, third)
        assert gate.begun == [0, 10]

    run(work)


# Servers with a limit, which is told to the gate or not.


class Limiter(Protocol):
    """A server's limit of ten calls a second: seconds until there is room, 0 where the call is taken."""

    def __call__(self, at: float) -> float: ...


def sliding_window(calls: int, seconds: float) -> Limiter:
    taken: deque[float] = deque()

    def wait(at: float) -> float:
        while taken and taken[0] <= at - seconds:
            taken.popleft()
        if len(taken) < calls:
            taken.append(at)
            return 0.0
        return taken[0] + seconds - at

    return wait


def fixed_window(calls: int, seconds: float) -> Limiter:
    taken: dict[int, int] = {}

    def wait(at: float) -> float:
        window = int(at // seconds)
        taken[window] = taken.get(window, 0) + 1
        return 0.0 if taken[window] <= calls else (window + 1) * seconds - at

    return wait


def bucket(capacity: int, calls: int, seconds: float) -> Limiter:
    state = {"level": float(capacity), "at": -math.inf}

    def wait(at: float) -> float:
        state["level"] = min(capacity, state["level"] + max(at - state["at"], 0) * calls / seconds)
        state["at"] = at
        if state["level"] < 1 - 1e-9:
            return (1 - state["level"]) * seconds / calls
        state["level"] -= 1
        return 0.0

    return wait


LIMITERS: dict[str, Callable[[], Limiter]] = {
    "sliding minute": lambda: sliding_window(600, 60),
    "sliding six seconds": lambda: sliding_window(60, 6),
    "fixed minute": lambda: fixed_window(600, 60),
    "bucket of a minute": lambda: bucket(600, 600, 60),
    "bucket of a second": lambda: bucket(10, 600, 60),
    "bucket of one": lambda: bucket(1, 600, 60),
}


class Crowd:
    """Workers on so many items, and how often each item was tried until it was answered."""

    def __init__(self, items: int) -> None:
        self.todo = iter(range(items))
        self.tries: list[int] = []

    async def worker(self, answer: Callable[[], Awaitable[None]]) -> None:
        for _ in self.todo:
            self.tries.append(await self._answered(answer))

    async def _answered(self, answer: Callable[[], Awaitable[None]]) -> int:
        for number in count(1):
            try:
                await answer()
            except TransientError as fault:
                await asyncio.sleep(fault.retry_after or 0)
            else:
                return number
        raise AssertionError


CASES = [(kind, told, whole) for kind in LIMITERS for told in (600, 0) for whole in (False, True)]
# A server that takes one call and then asks for a whole second tells ten times too little.
CASES.remove(("bucket of one", 0, True))


@pytest.mark.parametrize(("kind", "told", "whole_seconds"), CASES)
def test_a_limited_server_is_used_well_and_rarely_annoyed(kind: str, told: int, *, whole_seconds: bool) -> None:
    limiter, crowd = LIMITERS[kind](), Crowd(3000)

    async def work() -> float:
        gate, begun = Gate(CallLimits(16, told)), now()

        async def answer() -> None:
            async with gate.pacer.permit(1):
                if wait := limiter(now() - begun):
                    raise too_many(math.ceil(wait) if whole_seconds else wait)
                await asyncio.sleep(0.3)

        await asyncio.gather(*(crowd.worker(answer) for _ in range(16)))
        return now() - begun

    seconds = run(work)
    assert max(crowd.tries) <= 6
    assert len(crowd.tries) / seconds / 10 >= 0.85
    assert 1 - len(crowd.tries) / sum(crowd.tries) < 0.05


def starts(allowance: Allowance, amounts: list[float], late: float = 0.0) -> list[float]:
    """When calls begin that are all there from the start, each woken up a little late."""
    now, begun = 0.0, []
    for amount in amounts:
        if delay := allowance.delay(now):
            now += delay + late
        allowance.take(amount, now)
        begun.append(now)
    return begun


def test_calls_are_spread_evenly_from_the_first_one_on() -> None:
    assert starts(Allowance(600), [1] * 5) == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


def test_without_a_limit_nobody_waits() -> None:
    assert starts(Allowance(0), [1, 10_000, 1]) == [0, 0, 0]


def test_waking_up_late_costs_nothing() -> None:
    begun = starts(Allowance(600), [1] * 101, late=CATCH_UP_SEC / 2)
    assert begun[-1] == pytest.approx(10, abs=0.1)


def test_a_pause_is_not_made_up_for() -> None:
    allowance = Allowance(600)
    allowance.take(1, 0)
    allowance.take(1, 60)
    assert allowance.delay(60) == pytest.approx(0.1)


def test_what_is_larger_than_the_limit_goes_alone_and_is_paid_for_after() -> None:
    assert starts(Allowance(60), [300, 1, 1]) == pytest.approx([0, 300, 301])


@pytest.mark.parametrize(("more", "delay"), [(-60, 40), (0, 100), (60, 160)])
def test_what_was_thought_wrong_is_put_right(more: float, delay: float) -> None:
    allowance = Allowance(60)
    allowance.take(100, 0)
    allowance.correct(more)
    assert allowance.delay(0) == pytest.approx(delay)


@quick
@given(st.integers(1, 200), st.floats(1, 60), st.integers(2, 80))
def test_no_minute_has_more_than_is_allowed(per_minute: int, window: float, calls: int) -> None:
    begun = starts(Allowance(per_minute), [1] * calls)
    for first in begun:
        assert len([one for one in begun if first <= one < first + window - 0.01]) <= per_minute * window / 60 + 1
