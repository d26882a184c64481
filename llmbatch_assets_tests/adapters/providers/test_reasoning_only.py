"""Answers that a server takes for reasoning: used where there is no doubt, and explained elsewhere."""

from __future__ import annotations

from dataclasses import replace

import pytest

from llmbatch_assets.adapters.providers.reasoning_only import LENGTH_ADVICE, PARSER_ADVICE, completed
from llmbatch_assets.adapters.providers.responses.completions import ReadAnswer
from llmbatch_assets.adapters.providers.responses.reported_usage import ReportedUsage
from llmbatch_assets.domain.outcome import Completion
from llmbatch_assets.domain.request import ChatRequest, Subject
from llmbatch_assets.domain.usage import TokenUsage
from llmbatch_assets_tests.adapters.values import chat_request

GOOD = '{"answer": "yes", "certain": true}'
USAGE = TokenUsage(requests=1, input_tokens=7, output_tokens=3)


def request(number: int = 1) -> ChatRequest:
    return replace(chat_request(), subject=Subject(f"{number:040x}", "c" * 40, f"item-{number}", 1))


def answer(reasoning: str, text: str = "", finish_reason: str = "stop") -> ReadAnswer:
    completion = Completion(text=text, finish_reason=finish_reason, usage=USAGE, request_id="req-1")
    return ReadAnswer(completion, ReportedUsage(USAGE), reasoning, "reasoning_content" if reasoning else "")


@pytest.mark.parametrize("reasoning", [GOOD, f"\n {GOOD}\n"])
def test_reasoning_that_is_nothing_but_a_valid_answer_is_the_answer(reasoning: str) -> None:
    assert completed(request(), answer(reasoning)).text == reasoning


@pytest.mark.parametrize(
    "reasoning",
    [
        # A draft.
        f"Perhaps {GOOD}? Let me see.",
        f"{GOOD} No, wait.",
        f"{GOOD}\n{GOOD}",
        # No answer of this kind.
        '{"answer": "yes"}',
        '{"answer": "yes", "certain": true',
        "Hm.",
    ],
)
def test_any_other_reasoning_is_no_answer_and_the_message_says_where_the_text_is(reasoning: str) -> None:
    got = completed(request(), answer(reasoning))
    assert (got.text, got.remark) == ("", "the server returned text in reasoning_content instead")


def test_an_answer_next_to_reasoning_is_the_answer() -> None:
    assert completed(request(), answer(GOOD, text="x")).text == "x"


@pytest.mark.parametrize("finish_reason", ["length", "tool_calls"])
def test_an_answer_that_did_not_end_is_not_looked_for(finish_reason: str) -> None:
    got = completed(request(), answer(GOOD, finish_reason=finish_reason))
    assert got.text == ""


@pytest.mark.parametrize(
    ("reasoning", "finish_reason", "advice"),
    [("Hm.", "stop", PARSER_ADVICE), ("Hm.", "length", LENGTH_ADVICE), ("", "length", LENGTH_ADVICE), ("", "stop", "")],
)
def test_an_answer_without_text_comes_with_advice_for_its_reason(
    reasoning: str, finish_reason: str, advice: str
) -> None:
    assert completed(request(), answer(reasoning, finish_reason=finish_reason)).advice == advice
    assert completed(request(), answer(reasoning, text="x", finish_reason=finish_reason)).advice == ""
