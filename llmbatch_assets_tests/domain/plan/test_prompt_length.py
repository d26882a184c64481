"""Lengths of requests, which are to be exactly those of the requests that are made."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbatch_assets.domain.items.work import WorkItem
from llmbatch_assets.domain.plan.prompt_length import Ruler, length
from llmbatch_assets.domain.prompt import PromptTemplate
from llmbatch_assets.domain.request import item_values

SHARED = {"llm_schema": '{"type": "object"}', "llm_schema_txt": "the schema", "judge_schema": None}
PROMPTS: list[dict[str, Any]] = [
    {"user": "{context}"},
    {"system": "Say {llm_schema}", "user": "About {row} of {group_context}: {{really}} {row}"},
    {"system": "{group_context}", "user": "{row}", "examples": [{"user": "q", "assistant": "{}"}]},
    {"user": "nothing of it {{ {{x}} }}", "assistant_prefix": "{"},
]


@pytest.mark.parametrize("prompt", PROMPTS)
@given(row=st.text(max_size=40), group=st.none() | st.text(max_size=40))
def test_a_length_is_that_of_the_request(prompt: dict[str, Any], row: str, group: str | None) -> None:
    template = PromptTemplate(path="p", **prompt)
    item = WorkItem("w", "k", "g", 0, None if group is None else "c", row, {})
    messages = template.render(SHARED | item_values(item, group))
    ruler = Ruler.of(template, SHARED)
    measured = ruler.measure(length(row), None if group is None else length(group))
    assert measured == sum(length(message.content) for message in messages)


def test_scripts_that_take_more_tokens_are_longer() -> None:
    assert (length("river"), length("река"), length("川の水")) == (5, 8, 9)


def test_what_comes_before_the_items_own_part_is_known() -> None:
    rulers = [Ruler.of(PromptTemplate(path="p", **prompt), SHARED) for prompt in PROMPTS]
    assert [(ruler.opening, ruler.opens_with_group) for ruler in rulers] == [
        (0, True),
        (len('Say {"type": "object"}') + len("About "), False),
        (0, True),
        (rulers[3].shared, False),
    ]
