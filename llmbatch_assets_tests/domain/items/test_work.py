"""Plans in Dagster's UI: correct counts, and a preview that no cell can break."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmbatch_assets.domain.items.grouping import plan_work
from llmbatch_assets.domain.items.identity import partition_key
from llmbatch_assets.domain.items.work import (
    LARGEST_CONTEXTS,
    PREVIEW_ITEMS,
    SHOWN_CHARS,
    WorkPlan,
    context_bytes,
    items_preview,
    plan_metadata,
)
from llmbatch_assets_tests.domain.strategies import CELLS, ROW_MODES, make_item, parameters, quick, snapshot

ROWS = [("1", "red", "x" * 50), ("2", "red", "y" * 30), ("3", "blue", "é"), ("3", "blue", "é"), ("5", "red", "z")]
# One line of a Markdown table with four cells, the last a piece of code or nothing.
LINE = re.compile(r"\| \d* \| `[^`|]+` \| \d+ \| (`[^`|\n]+`)? \|")


def plan(mode: str, **blocks: Any) -> WorkPlan:
    return plan_work(snapshot(ROWS), parameters(grouping=ROW_MODES[mode] | blocks.pop("grouping", {}), **blocks))


def bytes_of(texts: list[str]) -> int:
    return len("".join(texts).encode())


# The preview.


@quick
@given(st.text(), CELLS)
@example("`|`", "a | b`")
@example("a\n| b |\r\n\x85\u2028\x1c```", "")
@example("ends in \\", "")
@example("|" * 200, "")
@example("", "")
def test_no_cell_breaks_the_table(context: str, label: str) -> None:
    named = make_item(1, partition_key=partition_key(label, "0" * 40))
    shown = items_preview([named, make_item(2, context=context)])
    assert len(shown.splitlines()) == 4
    for line in shown.splitlines()[2:]:
        assert LINE.fullmatch(line), line


def test_the_preview_shows_how_the_first_items_look() -> None:
    items = [make_item(7, context="id: 7\ntext: Why?", partition_key="red-1"), make_item(8, row_index=None, context="")]
    assert items_preview(items).splitlines() == [
        "| row | partition | characters | begins |",
        "| --- | --- | --- | --- |",
        "| 7 | `red-1` | 16 | `id: 7 text: Why?` |",
        f"|  | `{items[1].partition_key}` | 0 |  |",
    ]


def test_the_preview_is_short_however_much_there_is() -> None:
    shown = items_preview([make_item(number, context="word " * 100_000) for number in range(PREVIEW_ITEMS + 5)])
    lines = shown.splitlines()[2:]
    assert len(lines) == PREVIEW_ITEMS
    assert all("| 500000 | `word " in line and len(line) < 2 * SHOWN_CHARS + 30 for line in lines)


def test_a_plan_without_items_is_a_table_without_rows() -> None:
    assert len(items_preview([]).splitlines()) == 2


# What is stored once.


@pytest.mark.parametrize("mode", ROW_MODES)
def test_savings_compare_the_stored_text_with_the_text_in_the_calls(mode: str) -> None:
    made = plan(mode)
    own = [item.context for item in made.items]
    by_id = {context.group_context_id: context.context for context in made.contexts}
    shown = [by_id[item.group_context_id] for item in made.items if item.group_context_id]

    saved = context_bytes(made)

    assert saved.stored == bytes_of(own) + bytes_of(list(by_id.values()))
    assert saved.repeated == bytes_of(own) + bytes_of(shown)
    assert saved.stored <= saved.repeated
    assert (saved.saved_percent > 0) == (mode == "row_output_with_group_context")


def test_nothing_saves_nothing() -> None:
    assert context_bytes(WorkPlan(items=[], contexts=[], warnings=[])) == (0, 0)
    assert context_bytes(WorkPlan(items=[], contexts=[], warnings=[])).saved_percent == 0.0


def test_a_context_of_many_items_saves_nearly_all() -> None:
    text = "long " * 2_000
    one = plan_work(
        snapshot([(str(number), "red", text if number == 0 else "") for number in range(100)]),
        parameters(grouping=ROW_MODES["row_output_with_group_context"]),
    )
    assert 95 < context_bytes(one).saved_percent < 100


# Counts.


@pytest.mark.parametrize(
    ("mode", "blocks", "expected"),
    [
        ("row_wise", {}, {"n_items": 5, "n_group_contexts": 0, "saved_percent": 0.0, "rows_sharing_an_item": 0}),
        ("group_output", {}, {"n_items": 2, "n_group_contexts": 0, "saved_percent": 0.0}),
        ("row_output_with_group_context", {}, {"n_items": 5, "n_group_contexts": 2, "groups_with_row_cap": 0}),
        # Rows that are not shown, in one group of two.
        ("group_output", {"grouping": {"max_rows_per_group": 2}}, {"groups_with_row_cap": 1}),
        ("row_output_with_group_context", {"grouping": {"max_rows_per_group": 2}}, {"groups_with_row_cap": 1}),
        # Cells that were cut: in two rows, and in the context of their group.
        ("row_wise", {"context": {"truncate_field_chars": 20}}, {"contexts_with_cut_fields": 2, "cut_contexts": 0}),
        ("group_output", {"context": {"truncate_field_chars": 20}}, {"contexts_with_cut_fields": 1}),
        (
            "row_output_with_group_context",
            {"context": {"truncate_field_chars": 20}},
            {"contexts_with_cut_fields": 3, "cut_contexts": 0},
        ),
        # Contexts that were cut.
        ("row_wise", {"context": {"max_context_chars": 40}}, {"cut_contexts": 2, "contexts_with_cut_fields": 0}),
        ("row_output_with_group_context", {"context": {"max_context_chars": 40}}, {"cut_contexts": 2 + 2}),
        # Identical rows.
        ("row_wise", {"work_items": {"duplicates": "share"}}, {"n_items": 4, "rows_sharing_an_item": 1}),
    ],
)
def test_the_metadata_counts_what_a_plan_contains(mode: str, blocks: dict[str, Any], expected: dict[str, Any]) -> None:
    found = plan_metadata(plan(mode, **blocks))
    assert {name: found[name] for name in expected} == expected


def test_the_largest_contexts_are_named_with_their_size() -> None:
    reported = plan_metadata(plan("row_output_with_group_context"))["largest_contexts"]
    made = plan("row_output_with_group_context")
    sizes = {context.group_key: len(context.context) for context in made.contexts}
    assert reported.startswith(f"group 'red': {sizes['red']} characters, ")
    assert f"{made.items[0].partition_key}: {len(made.items[0].context)} characters" in reported
    assert reported.count(" characters") == LARGEST_CONTEXTS

    counted = [int(size) for size in re.findall(r": (\d+) characters", reported)]
    assert counted == sorted(counted, reverse=True)


def test_the_metadata_of_an_empty_plan_is_zero() -> None:
    found = plan_metadata(WorkPlan(items=[], contexts=[], warnings=[]))
    assert found.pop("largest_contexts") == ""
    assert set(found.values()) == {0}
