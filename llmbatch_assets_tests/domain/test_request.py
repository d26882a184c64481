"""Requests to a model: the shared part first, the item's own last, and nothing rendered twice."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from pydantic import BaseModel

from llmbatch_assets.domain.prompt import Message, PromptTemplate
from llmbatch_assets.domain.request import OWN_ROW_HEADING, ChatRequest, Conversations, completed_judge_prompt
from llmbatch_assets.domain.schema.contract import Contract
from llmbatch_assets.errors import PromptError
from llmbatch_assets_tests.domain.strategies import make_item


class LLMOutput(BaseModel):
    answer: str


class JudgeResult(BaseModel):
    reasons: list[str]
    score: int
    verdict: Literal["PASS", "FAIL"]


OUTPUT, VERDICT = Contract.of(LLMOutput), Contract.of(JudgeResult)


def prompt(**texts: Any) -> PromptTemplate:
    """A prompt file."""
    return PromptTemplate(path="prompts/p.yaml", **texts)


def conversations(generation: PromptTemplate, judge: PromptTemplate | None = None) -> Conversations:
    """The conversations of a batch."""
    completed = completed_judge_prompt(judge) if judge else None
    return Conversations(generation, completed, OUTPUT, VERDICT if judge else None, "WHOLE FILE")


def contents(messages: tuple[Message, ...]) -> list[str]:
    """Return the content of the messages."""
    return [message.content for message in messages]


def test_a_row_that_looks_like_a_template_is_shown_as_it_is() -> None:
    asked = conversations(prompt(system="{llm_schema}", user="{context}"))
    item = make_item(1, context="{llm_schema} {{x}} {nothing}", group_context_id="c")
    system, user = contents(asked.generate(item, "{row}"))
    assert system == OUTPUT.text
    assert user == f"{{row}}\n\n{OWN_ROW_HEADING}\n{item.context}"


def test_an_output_that_looks_like_a_template_is_judged_as_it_is() -> None:
    judge = prompt(system="{judge_schema}", user="{context}|{output_json}")
    asked = conversations(prompt(user="{context}"), judge)
    messages = asked.judge_output(make_item(1, context="C"), None, {"answer": "{context} {{x}}"})
    assert contents(messages) == [VERDICT.text, 'C|{\n  "answer": "{context} {{x}}"\n}']


def test_the_shared_context_comes_before_the_row_of_the_item() -> None:
    item = make_item(1, context="own", group_context_id="c")
    asked = conversations(prompt(user="{context}|{row}|{group_context}"))
    assert contents(asked.generate(item, "shared")) == [f"shared\n\n{OWN_ROW_HEADING}\nown|own|shared"]


def test_without_a_group_the_context_is_the_row_alone() -> None:
    asked = conversations(prompt(user="{context}|{row}|{group_context}|{judge_schema}"))
    assert contents(asked.generate(make_item(1, context="own"), None)) == ["own|own||"]


def test_one_schema_is_the_contract_of_the_output_and_the_other_is_the_whole_file() -> None:
    asked = conversations(prompt(user="{llm_schema}|{llm_schema_txt}"))
    assert contents(asked.generate(make_item(1), None)) == [f"{OUTPUT.text}|WHOLE FILE"]


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("Judge.", "Judge.\n\nThe input:\nC\n\nThe answer to judge:\n{}"),
        ("Judge {context}.", "Judge C.\n\nThe answer to judge:\n{}"),
        ("{output_json} to {context}", "{} to C"),
    ],
)
def test_a_judge_always_sees_the_input_and_the_answer(user: str, expected: str) -> None:
    asked = conversations(prompt(user="x"), prompt(user=user))
    assert contents(asked.judge_output(make_item(1, context="C"), None, {})) == [expected]


@pytest.mark.parametrize("names", [("output_json", "task"), ("task", "nothing")])
def test_an_unknown_placeholder_is_never_sent(names: tuple[str, ...]) -> None:
    reported = ", ".join(f"{{{name}}}" for name in sorted(names))
    user = " ".join(f"{{{name}}}" for name in names)
    with pytest.raises(PromptError, match=reported):
        conversations(prompt(user=user)).generate(make_item(1), None)
    with pytest.raises(PromptError, match=r"\{task\}"):
        conversations(prompt(user="x"), prompt(user="{task}")).judge_output(make_item(1), None, {})


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        # Already in a message: not repeated.
        ([Message("user", f"x {OUTPUT.text}")], [Message("user", f"x {OUTPUT.text}")]),
        # It is added to the system message, or to a new one; the others stay unchanged.
        ([Message("system", "s"), Message("user", "u")], [Message("system", "s\n\nRULE"), Message("user", "u")]),
        ([Message("user", "u")], [Message("system", "RULE"), Message("user", "u")]),
    ],
)
def test_a_schema_that_cannot_be_sent_separately_is_put_into_the_prompt(
    messages: list[Message], expected: list[Message]
) -> None:
    said = ChatRequest("generate", tuple(messages), OUTPUT).with_schema_in_prompt()
    rule = f"Answer with one JSON object that matches this JSON schema:\n{OUTPUT.text}"
    assert said == tuple(message._replace(content=message.content.replace("RULE", rule)) for message in expected)
