"""Having a schema module written: what is refused is told and asked for again, as often as allowed and no oftener."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from llmbatch_assets.domain.outcome import Completion
from llmbatch_assets.domain.prompt import Message
from llmbatch_assets.engine.retry import RetryingCalls
from llmbatch_assets.errors import (
    FailureCause,
    ItemPermanentError,
    RunPermanentError,
    SchemaError,
    SchemaGenerationError,
    StopCause,
    TransientError,
)
from llmbatch_assets.stages.write_schema import SchemaWriter, WrittenSchema
from llmbatch_assets_tests.engine.fakes import COST, ScriptedClient, run

OPENING = (Message("system", "Write models."), Message("user", "For cards."))
GOOD = "```python\nclass LLMOutput(BaseModel):\n    a: str\n```"
BAD = "```python\nclass LLMOutput(BaseModel):\n    a: bytes\n```"
NO_CODE = "I would rather not."
CUT = Completion(text=GOOD, finish_reason="length", usage=COST)


def vet(source: str) -> str:
    if "bytes" in source:
        raise SchemaError("the module:2: the type bytes is not part of a schema; use str")
    return f"rendering of {source}"


def write(
    client: ScriptedClient,
    generations: int = 3,
    transport_retries: int = 1,
    refused: list[tuple[int, str, str]] | None = None,
    stopped: Callable[[], asyncio.Event] = asyncio.Event,
) -> WrittenSchema:
    told: list[tuple[int, str, str]] = [] if refused is None else refused

    def on_refused(number: int, completion: Completion, problem: str) -> None:
        told.append((number, completion.text, problem))

    async def work() -> WrittenSchema:
        writer = SchemaWriter(client, vet, on_refused, generations, RetryingCalls(transport_retries, stopped()))
        return await writer.write(OPENING)

    return run(work)


def test_a_module_that_passes_is_taken_at_once_and_as_it_was_rendered() -> None:
    client = ScriptedClient(GOOD)
    assert write(client) == WrittenSchema("rendering of class LLMOutput(BaseModel):\n    a: str\n", 1, COST)
    assert [request.messages for request in client.asked] == [OPENING]


def test_a_schema_is_asked_for_as_text_and_not_as_json() -> None:
    client = ScriptedClient(GOOD)
    write(client)
    assert (client.asked[0].purpose, client.asked[0].contract) == ("schema", None)


def test_what_was_wrong_is_told_after_the_unchanged_messages() -> None:
    client, refused = ScriptedClient(BAD, NO_CODE, GOOD), list[tuple[int, str, str]]()

    written = write(client, refused=refused)

    assert written.attempts == 3
    assert written.usage == COST + COST + COST
    for request in client.asked:
        assert request.messages[:2] == OPENING
    first, second = client.conversation(2)[2:4], client.conversation(2)[4:]
    assert first[0] == ("assistant", BAD)
    assert first[1][0] == "user"
    assert first[1][1].startswith("the module:2: the type bytes is not part of a schema; use str\n")
    assert "Python code block" in first[1][1]
    assert second[0] == ("assistant", NO_CODE)
    assert "no Python module" in second[1][1]
    assert [(number, text) for number, text, _ in refused] == [(1, BAD), (2, NO_CODE)]


@pytest.mark.parametrize("generations", [1, 2, 5])
def test_after_the_last_generation_it_is_given_up(generations: int) -> None:
    client, refused = ScriptedClient(BAD), list[tuple[int, str, str]]()
    with pytest.raises(SchemaGenerationError, match=rf"none of {generations} answers .*the type bytes"):
        write(client, generations, refused=refused)
    assert len(client.asked) == len(refused) == generations


def test_an_answer_that_was_cut_off_is_refused_although_what_came_would_pass() -> None:
    # Half of a module can be a whole one with fewer fields.
    client, refused = ScriptedClient(CUT, GOOD), list[tuple[int, str, str]]()
    assert write(client, refused=refused).attempts == 2
    assert "cut off" in refused[0][2]
    assert "shorter" in client.conversation(1)[3][1]


def test_a_fault_in_transit_is_no_attempt() -> None:
    client = ScriptedClient(TransientError(FailureCause.SERVER_ERROR, "HTTP 503"), GOOD)
    assert write(client, generations=1).attempts == 1
    assert len(client.asked) == 2


def test_an_answer_of_no_use_that_was_paid_is_an_attempt_and_counted() -> None:
    broken = TransientError(FailureCause.SERVER_ERROR, "the server did not finish the answer")
    broken.usage = COST
    client, refused = ScriptedClient(broken, GOOD), list[tuple[int, str, str]]()
    written = write(client, refused=refused)
    assert (written.attempts, written.usage, len(client.asked)) == (2, COST + COST, 2)
    assert refused == [(1, "", "the server did not finish the answer")]
    # There is nothing to show the model.
    assert client.conversation(1) == client.conversation(0)


def test_a_server_that_stays_away_ends_it_after_its_retries() -> None:
    client = ScriptedClient(TransientError(FailureCause.SERVER_ERROR, "HTTP 503"))
    with pytest.raises(TransientError, match="503"):
        write(client, transport_retries=2)
    assert len(client.asked) == 3


@pytest.mark.parametrize(
    "fault",
    [
        RunPermanentError(StopCause.KEY_REFUSED, "HTTP 401"),
        ItemPermanentError(FailureCause.REFUSED, "the model refused"),
    ],
    ids=lambda fault: fault.cause,
)
def test_what_trying_again_cannot_help_ends_it_at_once(fault: Exception) -> None:
    client = ScriptedClient(fault)
    with pytest.raises(type(fault)):
        write(client)
    assert len(client.asked) == 1


def test_after_a_stop_nothing_more_is_asked() -> None:
    client = ScriptedClient(BAD, GOOD)

    def stopped() -> asyncio.Event:
        event = asyncio.Event()
        event.set()
        return event

    with pytest.raises(RunPermanentError, match="stopped"):
        write(client, stopped=stopped)
    assert client.asked == []


def test_a_fault_of_ours_is_not_fed_to_the_model() -> None:
    def broken(_: str) -> str:
        raise ZeroDivisionError

    async def work() -> WrittenSchema:
        writer = SchemaWriter(client, broken, lambda *_: None, 3, RetryingCalls(0, asyncio.Event()))
        return await writer.write(OPENING)

    client = ScriptedClient(GOOD)
    with pytest.raises(ZeroDivisionError):
        run(work)
    assert len(client.asked) == 1
