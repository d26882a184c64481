"""Failed attempts as lines of a log."""

from __future__ import annotations

from typing import Any

import pytest

from llmbatch_assets.domain.items.work import WorkItem
from llmbatch_assets.domain.outcome import FailedAttempt, FailedTry
from llmbatch_assets.domain.run.attempt_lines import MESSAGE_CHARS, FirstOfEachKind, attempt_line
from llmbatch_assets.domain.usage import TokenUsage

ITEM = WorkItem(
    work_id="0" * 40, partition_key="q1-00", group_key=None, row_index=0, group_context_id=None, context="", meta={}
)


def failed(cause: str, message: str, kind: str = "answer", **changes: Any) -> FailedAttempt:
    values: dict[str, Any] = {
        "meta": {},
        "error": {"type": "AnswerError", "message": message},
        "class": kind,
        "cause": cause,
        "raw_text": None,
        "feedback": None,
        "judge": None,
        "usage": TokenUsage(),
        "latency_sec": 0.0,
    }
    return FailedAttempt.model_validate(values | changes)


DETAILED = {
    "type": "AnswerError",
    "message": "The answer does not match:\n- a: Field required",
    "detail": "missing (a)",
}


@pytest.mark.parametrize(
    ("failure", "line"),
    [
        (failed("schema_mismatch", "", error=DETAILED), "LLM output invalid (attempt 2/3): missing (a)"),
        (failed("not_json", "no\nJSON"), "LLM output invalid (attempt 2/3): not_json: no JSON"),
        (
            failed("judge_rejected", "The judge rejected the answer:\n- too\nlong\n- rude", judge={"score": 0}),
            "LLM output rejected by the judge (attempt 2/3, score 0): too long; rude",
        ),
        # A judge's schema may have no score.
        (
            failed("judge_rejected", "The judge rejected the answer:\n- rude", judge={"verdict": "FAIL"}),
            "LLM output rejected by the judge (attempt 2/3): rude",
        ),
        (failed("timeout", "no answer in 60 s", "transient"), "no answer (attempt 2/3): timeout: no answer in 60 s"),
        (
            failed("judge_unreadable", "the judge gave no verdict: x", "transient"),
            "no verdict (attempt 2/3): judge_unreadable: the judge gave no verdict: x",
        ),
        (failed("refused", "I can't", "item_permanent"), "no answer (attempt 2/3): refused: I can't"),
        (
            failed("not_json", "the key sk-12345678 is \x1b[2J"),
            r"LLM output invalid (attempt 2/3): not_json: the key [key] is \x1b[2J",
        ),
    ],
)
def test_a_line_names_item_attempt_and_problem(failure: FailedAttempt, line: str) -> None:
    keys = {"sk-12345678", "none"}
    retried = attempt_line(FailedTry(ITEM, failure, 2, 3, is_last=False), keys)
    assert retried.text == f"q1-00: {line}"
    last = attempt_line(FailedTry(ITEM, failure, 2, 3, is_last=True), keys)
    assert last.text == f"q1-00 failed: {line}"
    assert (retried.kind, last.kind) == (failure.cause, f"failed: {failure.cause}")


def test_a_long_message_is_cut() -> None:
    line = attempt_line(FailedTry(ITEM, failed("not_json", "x" * 100_000), 1, 1, is_last=True))
    assert len(line.text) < MESSAGE_CHARS + 100


def test_the_first_of_each_kind_are_taken_and_the_others_counted() -> None:
    first = FirstOfEachKind(2)
    assert [first.takes(kind) for kind in "aabaa"] == [True, True, True, False, False]
    assert first.others() == ["... and 2 more attempts: a"]
