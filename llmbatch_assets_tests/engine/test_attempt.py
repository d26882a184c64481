"""One item: told what was wrong and asked again, until it is accepted or given up; and every attempt is kept."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbatch_assets.domain.answer import MAX_ANSWER_CHARS
from llmbatch_assets.domain.outcome import AcceptedOutput, Completion, FailedAttempt, ItemResult
from llmbatch_assets.domain.usage import TokenUsage
from llmbatch_assets.engine.attempt import ItemProcessor, ItemTask, failure_class
from llmbatch_assets.errors import (
    AnswerError,
    FailureCause,
    ItemPermanentError,
    ProviderError,
    RunPermanentError,
    StopCause,
    TransientError,
)
from llmbatch_assets_tests.domain.strategies import quick
from llmbatch_assets_tests.engine.fakes import (
    APPROVAL,
    COST,
    GOOD,
    NOW,
    REJECTION,
    MemoryStore,
    ScriptedClient,
    answer,
    bench,
    job,
    run,
)

BUSY = TransientError(FailureCause.SERVER_ERROR, "busy", retry_after=0)


def worked(workbench: ItemProcessor, on: ItemTask | None = None) -> ItemResult:
    """What becomes of an item, which is the only one."""
    result = run(lambda: workbench.process(on or job()))
    if not result.is_deferred:
        return result
    return run(lambda: workbench.process(replace(on or job(), deferred=result)))


def kept(result: ItemResult) -> AcceptedOutput:
    """The accepted output, of which there must be one."""
    assert result.failed is None
    assert result.accepted is not None
    return result.accepted


def lost(result: ItemResult) -> FailedAttempt:
    """The last failed attempt, of which there must be one."""
    assert result.accepted is None
    assert result.failed is not None
    return result.failed


def causes(store: MemoryStore) -> list[str]:
    """Why each attempt failed."""
    return [failure.cause for failure in store.failures]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I would rather not.",
        '{"answer": "yes"',
        '{"answer": {"answer": "yes"}',
        '{"answer": "\\ud800"}',
        '{"answer": ' * 20_000,
        '{"LLMOutput": {"answer": "yes"}}',
        '{"answer": ' + "9" * 5000 + "}",
        '{"answer": 1e999}',
    ],
    ids=lambda text: f"{text[:24]}...{len(text)}",
)
def test_no_answer_ends_more_than_its_own_attempt(text: str) -> None:
    store = MemoryStore()
    result = worked(bench(ScriptedClient(text, GOOD), store=store))
    assert kept(result).parsed == {"answer": "yes"}
    assert result.attempts == 2
    assert [failure.failure_class for failure in store.failures] == ["answer"]


@quick
@given(st.text(alphabet='{}[]"answer:0e -<think>/', max_size=30))
def test_any_text_of_a_model_ends_as_an_outcome(text: str) -> None:
    result = worked(bench(ScriptedClient(text), generations=1))
    assert (result.accepted is None) is not (result.failed is None)


def test_a_good_answer_is_kept_at_once() -> None:
    store, client = MemoryStore(), ScriptedClient(GOOD)
    workbench = bench(client, store=store)
    result = worked(workbench)
    output = kept(result)
    assert output == AcceptedOutput(
        meta=workbench.source.meta(job().item, 1, NOW),
        parsed={"answer": "yes"},
        judge=None,
        usage=COST,
        latency_sec=0.5,
    )
    assert store.accepted == {output.meta["cache_id"]: output}
    assert (store.failures, len(client.asked), result.attempts) == ([], 1, 1)


def test_a_bad_answer_is_answered_with_what_was_wrong_after_the_unchanged_messages() -> None:
    store, client = MemoryStore(), ScriptedClient('{"answer": 1}', "no", GOOD)
    result = worked(bench(client, store=store), job(1, "shared", group_context_id="c"))
    opening = client.conversation(0)
    assert [role for role, _ in opening] == ["system", "user"]
    assert "shared" in opening[1][1]
    # Two turns for each failed attempt, all of them, in their order.
    first, second = store.failures
    assert client.conversation(1)[:2] == opening
    assert client.conversation(2)[:4] == client.conversation(1)
    added = client.conversation(2)[2:]
    assert [role for role, _ in added] == ["assistant", "user", "assistant", "user"]
    assert (added[0][1], added[2][1]) == ('{"answer": 1}', "no")
    assert added[1][1].startswith(f"{first.feedback}\n")
    assert "- answer: " in added[1][1]
    assert added[3][1].startswith(f"{second.feedback}\n")
    # What was kept of them.
    assert causes(store) == ["schema_mismatch", "not_json"]
    assert [failure.meta["attempt_outer"] for failure in store.failures] == [1, 2]
    assert first.raw_text == '{"answer": 1}'
    assert first.error == {
        "type": "AnswerError",
        "message": first.feedback,
        # For logs, in Pydantic's terms.
        "detail": "string_type (answer)",
    }
    assert kept(result).meta["attempt_outer"] == 3


def test_a_blank_answer_is_not_shown_to_the_model_since_servers_refuse_an_empty_turn() -> None:
    store, client = MemoryStore(), ScriptedClient("  ", GOOD)
    kept(worked(bench(client, store=store)))
    assert causes(store) == ["empty_answer"]
    assert client.conversation(1) == client.conversation(0)


def test_a_blank_verdict_is_asked_for_again_in_the_same_words() -> None:
    judge = ScriptedClient(" ", APPROVAL)
    kept(worked(bench(ScriptedClient(GOOD), judge=judge)))
    assert judge.conversation(1) == judge.conversation(0)


def paid(message: str = "not a chat completion") -> TransientError:
    """A call that was billed and gave no answer."""
    broken = TransientError(FailureCause.BROKEN_BODY, message)
    broken.usage = COST
    return broken


def test_an_answer_of_no_use_that_was_paid_is_an_attempt_and_never_a_retry() -> None:
    store, client = MemoryStore(), ScriptedClient(paid())
    result = worked(bench(client, store=store, generations=2, transport_retries=4))
    assert (len(client.asked), causes(store)) == (2, ["broken_body", "broken_body"])
    assert result.usage == COST + COST
    assert lost(result).failure_class == "transient"


def test_a_verdict_of_no_use_that_was_paid_is_one_of_the_judges_tries() -> None:
    store, judge = MemoryStore(), ScriptedClient(paid(), APPROVAL)
    result = worked(bench(ScriptedClient(GOOD), judge=judge, store=store, transport_retries=4))
    kept(result)
    assert (len(judge.asked), result.usage) == (2, COST + COST + COST)

    store, judge = MemoryStore(), ScriptedClient(paid())
    result = worked(bench(ScriptedClient(GOOD), judge=judge, store=store, judge_tries=2, transport_retries=4))
    # Not saved: no call of the judge has been answered, so every item may get such a verdict.
    assert (len(judge.asked), lost(result).cause, causes(store)) == (2, "judge_unreadable", [])
    assert result.suspected_outage is not None
    # The answer is kept for the next run.
    assert len(store.waiting) == 1


def test_what_is_odd_about_an_answer_is_in_the_message_about_it() -> None:
    store = MemoryStore()
    odd = Completion(text="no", finish_reason="tired", usage=COST)
    kept(worked(bench(ScriptedClient(odd, GOOD), store=store)))
    [failure] = store.failures
    assert failure.error["message"].endswith("(finish_reason: tired)")


def test_a_failure_names_the_providers_last_call() -> None:
    store = MemoryStore()
    refused = ItemPermanentError(FailureCause.REFUSED, "no")
    refused.request_id = "req-2"
    worked(bench(ScriptedClient(Completion(text="no", request_id="req-1"), refused), store=store))
    assert [failure.request_id for failure in store.failures] == ["req-1", "req-2"]


@pytest.mark.parametrize("generations", [1, 2, 5])
def test_an_item_is_given_up_when_its_generations_are_used_up(generations: int) -> None:
    store, client = MemoryStore(), ScriptedClient("no")
    result = worked(bench(client, store=store, generations=generations))
    assert lost(result) == store.failures[-1]
    assert len(client.asked) == len(store.failures) == result.attempts == generations
    assert result.usage == TokenUsage(requests=generations, input_tokens=7 * generations, output_tokens=2 * generations)


def test_numbers_of_attempts_go_on_in_the_next_run() -> None:
    store = MemoryStore()
    worked(bench(ScriptedClient("no"), store=store, generations=2))
    worked(bench(ScriptedClient("no"), store=store, generations=2), job(2))
    worked(bench(ScriptedClient("no", GOOD), store=store))
    assert [failure.meta["attempt_outer"] for failure in store.failures] == [1, 2, 1, 2, 3]
    assert [output.meta["attempt_outer"] for output in store.accepted.values()] == [4]


def test_an_answer_that_was_cut_off_is_not_used_however_whole_it_looks() -> None:
    store = MemoryStore()
    cut = Completion(text=GOOD, finish_reason="length")
    assert kept(worked(bench(ScriptedClient(cut, answer("short")), store=store))).parsed == {"answer": "short"}
    assert causes(store) == ["cut_off"]
    assert store.failures[0].raw_text == GOOD


def test_a_rejection_is_told_to_the_model_with_the_reasons_of_the_judge() -> None:
    store, client, judge = MemoryStore(), ScriptedClient(GOOD, answer("better")), ScriptedClient(REJECTION, APPROVAL)
    output = kept(worked(bench(client, judge, store)))
    assert output.parsed == {"answer": "better"}
    assert output.judge == {"reasons": ["fine"], "score": 90, "verdict": "PASS"}
    assert causes(store) == ["judge_rejected"]
    rejected = store.failures[0]
    assert rejected.judge == {"reasons": ["too short", "wrong"], "score": 20, "verdict": "FAIL"}
    assert (rejected.failure_class, rejected.raw_text) == ("answer", GOOD)
    told = client.conversation(1)[-1][1]
    assert "- too short\n- wrong\n" in told
    # Each judgement is a conversation of its own.
    assert [len(request.messages) for request in judge.asked] == [1, 1]
    assert "better" in judge.conversation(1)[0][1]
    assert [request.purpose for request in (*client.asked, *judge.asked)] == ["generate"] * 2 + ["judge"] * 2
    # The cost of an attempt is that of all its calls.
    assert output.usage == COST + COST
    assert output.latency_sec == 1.0


def test_only_what_the_judge_lets_pass_is_kept() -> None:
    store = MemoryStore()
    result = worked(bench(ScriptedClient(GOOD), ScriptedClient(REJECTION), store))
    assert lost(result).cause == "judge_rejected"
    assert store.accepted == {}
    assert store.log == ["judge_rejected"] * 3


def test_a_score_below_the_wanted_one_is_a_rejection() -> None:
    store = MemoryStore()
    assert (
        lost(worked(bench(ScriptedClient(GOOD), ScriptedClient(APPROVAL), store, min_score=91))).cause
        == "judge_rejected"
    )
    assert kept(worked(bench(ScriptedClient(GOOD), ScriptedClient(APPROVAL), store, min_score=90)))


def test_a_bad_answer_is_not_worth_a_judge() -> None:
    judge = ScriptedClient(APPROVAL)
    worked(bench(ScriptedClient("no"), judge))
    assert judge.asked == []


def test_a_judge_that_cannot_be_read_is_asked_again() -> None:
    client, judge = ScriptedClient(GOOD), ScriptedClient('{"verdict": "MAYBE"}', APPROVAL)
    output = kept(worked(bench(client, judge)))
    assert len(client.asked) == 1
    first, second = judge.conversation(0), judge.conversation(1)
    assert second[:1] == first
    assert second[1] == ("assistant", '{"verdict": "MAYBE"}')
    assert "verdict" in second[2][1]
    assert output.usage == COST + COST + COST


def test_a_judge_that_declines_is_asked_again_in_the_same_words() -> None:
    declined = ItemPermanentError(FailureCause.REFUSED, "the model refused: I do not judge")
    declined.usage = COST
    client, judge = ScriptedClient(GOOD), ScriptedClient(declined, APPROVAL)
    output = kept(worked(bench(client, judge)))
    assert len(client.asked) == 1
    assert judge.conversation(0) == judge.conversation(1)
    assert output.usage == COST + COST + COST


def test_a_judge_that_always_declines_costs_no_other_answer_and_is_asked_again_by_the_next_run() -> None:
    client, judge, store = (
        ScriptedClient(GOOD),
        ScriptedClient(ItemPermanentError(FailureCause.REFUSED, "never")),
        MemoryStore(),
    )
    failure = lost(worked(bench(client, judge, store)))
    assert (failure.cause, failure.failure_class, failure.error["message"]) == (
        "judge_unreadable",
        "transient",
        "the judge gave no verdict: never",
    )
    assert len(client.asked) == 1


def test_what_a_filter_keeps_from_the_judge_is_asked_once() -> None:
    judge = ScriptedClient(ItemPermanentError(FailureCause.CONTENT_FILTER, "no"))
    assert lost(worked(bench(ScriptedClient(GOOD), judge))).failure_class == "item_permanent"
    assert len(judge.asked) == 1


@pytest.mark.parametrize("tries", [1, 3])
def test_a_judge_that_stays_unreadable_does_not_cost_another_answer(tries: int) -> None:
    store, client, judge = MemoryStore(), ScriptedClient(GOOD), ScriptedClient("hm")
    failure = lost(worked(bench(client, judge, store, judge_tries=tries)))
    assert (failure.cause, failure.failure_class) == ("judge_unreadable", "transient")
    assert (len(client.asked), len(judge.asked)) == (1, tries)
    assert failure.raw_text == GOOD
    assert failure.feedback is None


def test_a_call_that_failed_in_transit_is_made_again_within_the_attempt() -> None:
    store, client = MemoryStore(), ScriptedClient(BUSY, GOOD)
    result = worked(bench(client, store=store))
    assert kept(result).meta["attempt_outer"] == 1
    assert (store.failures, len(client.asked)) == ([], 2)


def test_an_item_whose_calls_died_in_transit_is_not_asked_about_in_another_attempt() -> None:
    # Three generations with two calls each: a dead server would get six calls for each item.
    store, client = MemoryStore(), ScriptedClient(BUSY, BUSY, GOOD)
    result = worked(bench(client, store=store))
    assert len(client.asked) == 2
    # Not saved yet: if nobody gets an answer, it is no failure of the item.
    assert (store.failures, result.suspected_outage is not None) == ([], True)
    failure = result.failed
    assert failure is not None
    assert (failure.cause, failure.failure_class, failure.raw_text) == ("server_error", "transient", None)


def test_an_item_that_will_never_be_answered_is_asked_once() -> None:
    store, client = MemoryStore(), ScriptedClient(ItemPermanentError(FailureCause.REFUSED, "the model refuses"))
    failure = lost(worked(bench(client, store=store)))
    assert len(client.asked) == 1
    assert failure.item_permanent
    assert failure.error == {"type": "ItemPermanentError", "message": "the model refuses"}


def test_a_fault_of_the_whole_run_is_raised_and_no_item_is_blamed() -> None:
    store, client = MemoryStore(), ScriptedClient(RunPermanentError(StopCause.NO_KEY, "no key"))
    with pytest.raises(RunPermanentError, match="no key"):
        worked(bench(client, store=store))
    assert (len(client.asked), store.log) == (1, [])


def test_a_fault_of_the_whole_run_at_the_judge_blames_no_item_either() -> None:
    store, judge = MemoryStore(), ScriptedClient(RunPermanentError(StopCause.NO_KEY, "no key"))
    with pytest.raises(RunPermanentError, match="no key"):
        worked(bench(ScriptedClient(GOOD), judge, store))
    assert store.log == []


def test_no_call_begins_once_the_run_is_stopped_and_the_item_is_not_blamed() -> None:
    store, client, stopped = MemoryStore(), ScriptedClient(GOOD), asyncio.Event()
    stopped.set()
    with pytest.raises(RunPermanentError) as raised:
        worked(bench(client, store=store, stopped=stopped))
    assert raised.value.cause == "stopped"
    assert (client.asked, store.log) == ([], [])


def test_an_item_in_flight_goes_no_further_than_the_call_that_it_is_in() -> None:
    stopped, judge, store = asyncio.Event(), ScriptedClient(APPROVAL), MemoryStore()

    class Stopping(ScriptedClient):
        async def complete(self, request: Any) -> Completion:
            stopped.set()
            return await super().complete(request)

    client = Stopping(GOOD)
    with pytest.raises(RunPermanentError):
        worked(bench(client, judge, store, stopped))
    assert (len(client.asked), judge.asked, store.log) == (1, [], [])


def test_a_failure_is_on_disk_before_the_next_call_is_paid_for() -> None:
    store = MemoryStore()

    class Watching(ScriptedClient):
        async def complete(self, request: Any) -> Completion:
            assert len(store.failures) == len(self.asked)
            return await super().complete(request)

    worked(bench(Watching("no"), store=store))
    assert len(store.failures) == 3


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (AnswerError(FailureCause.NOT_JSON, "x"), "answer"),
        (TransientError(FailureCause.SERVER_ERROR, "x"), "transient"),
        (ItemPermanentError(FailureCause.REFUSED, "x"), "item_permanent"),
    ],
)
def test_every_fault_has_the_class_of_whoever_must_act(fault: AnswerError | ProviderError, kind: str) -> None:
    assert failure_class(fault) == kind


async def longest_wait(while_running: asyncio.Task[Any]) -> float:
    """The longest time for which another task had to wait."""
    longest, last = 0.0, time.perf_counter()
    while not while_running.done():
        await asyncio.sleep(0.001)
        longest, last = max(longest, time.perf_counter() - last), time.perf_counter()
    return longest


def test_reading_a_long_answer_keeps_no_other_call_waiting() -> None:
    # Prose with brackets takes most time.
    workbench = bench(ScriptedClient("{a}\n" * 450_000 + GOOD))

    async def process() -> tuple[float, float]:
        begun = time.perf_counter()
        task = asyncio.create_task(workbench.process(job()))
        longest = await longest_wait(task)
        assert kept(task.result()).parsed == {"answer": "yes"}
        return longest, time.perf_counter() - begun

    longest, took = asyncio.run(process())
    assert longest < max(took / 3, 0.2)


def test_an_answer_that_no_model_writes_is_asked_for_again_without_being_sent_back() -> None:
    store, client = MemoryStore(), ScriptedClient("x" * (MAX_ANSWER_CHARS + 1), GOOD)
    result = worked(bench(client, store=store))
    assert kept(result).parsed == {"answer": "yes"}
    assert causes(store) == [FailureCause.TOO_LARGE]
    assert client.conversation(1) == client.conversation(0)
