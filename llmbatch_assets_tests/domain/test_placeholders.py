"""Placeholders: their meaning by grouping mode, and the ways to write a column."""

from __future__ import annotations

import pytest

from llmbatch_assets.domain.grouping_modes import GROUPING_MODES
from llmbatch_assets.domain.placeholders import (
    EMPTY,
    GENERATION_NAMES,
    JUDGE_NAMES,
    PLACEHOLDERS,
    SCHEMA_NAMES,
    column_placeholder,
    columns_named,
    unknown_placeholders,
)
from llmbatch_assets.domain.prompt import placeholders_in

COLUMNS = ["Text", "Customer name", 'Size 12"', "a-b", "a_b", "c d", "c-d", "Größe", "x\\y", "{z}"]


def test_the_names_of_each_prompt_are_a_contract() -> None:
    shared = {"context", "row", "group_context", "llm_schema", "llm_schema_txt", "judge_schema"}
    assert shared == GENERATION_NAMES
    assert shared | {"output_json"} == JUDGE_NAMES
    assert {"context", "task"} == SCHEMA_NAMES


def test_only_the_group_context_can_be_always_empty() -> None:
    empty = {
        (one.name, mode.name) for one in PLACEHOLDERS for mode in GROUPING_MODES.values() if one.value(mode) == EMPTY
    }
    assert empty == {("group_context", "row_wise"), ("group_context", "group_output")}


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("Text", ["Text"]),
        ('"Text"', ["Text"]),
        ('"Customer name"', ["Customer name"]),
        # As in context.row_template.
        ("Customer_name", ["Customer name"]),
        # An exact name goes first; otherwise two columns are too many.
        ("a_b", ["a_b"]),
        ('"a-b"', ["a-b"]),
        ("c_d", ["c d", "c-d"]),
        # Composed and decomposed letters are the same.
        ("Gro\u0308\u00dfe", ["Größe"]),
        ("text", []),
        ('"Customer_name"', []),
    ],
)
def test_a_column_is_written_as_a_word_or_in_quotes(name: str, columns: list[str]) -> None:
    assert columns_named(name, COLUMNS) == columns


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("taken", [(), COLUMNS])
def test_every_column_has_a_placeholder_that_stands_for_it(column: str, taken: list[str]) -> None:
    (name,) = placeholders_in(f"x {{{column_placeholder(column, taken)}}} y")
    assert columns_named(name, COLUMNS) == [column]


def test_an_unknown_placeholder_is_answered_with_similar_ones_and_with_all_that_are_known() -> None:
    told = unknown_placeholders(["Txt", "contxt"], ["context", "row"], ["Id", "Text", "Customer name"])
    assert told == (
        "unknown placeholder {Txt} (did you mean {Text} or {context}?), {contxt} (did you mean {context} or {Text}?). "
        'Known placeholders: {context}, {row}; columns: {Text}, {Id}, {"Customer name"}. '
        "Double the braces to write a word in braces: {{Txt}}"
    )


def test_a_table_with_many_columns_is_listed_by_its_nearest_ones() -> None:
    told = unknown_placeholders(["c99x"], ["row"], [f"c{number}" for number in range(5000)])
    assert "columns: {c99}" in told
    assert told.count("{c") < 25
    assert ", ..." in told
