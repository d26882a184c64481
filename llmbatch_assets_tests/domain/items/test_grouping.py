"""Rows to items: every row appears where its mode promises, under an id that its neighbours cannot change."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbatch_assets.domain.canonical import sha1_text
from llmbatch_assets.domain.configuration.input_blocks import Input
from llmbatch_assets.domain.grouping_modes import GROUPING_MODES
from llmbatch_assets.domain.items.grouping import plan_work
from llmbatch_assets.domain.items.table import RawTable, take_snapshot
from llmbatch_assets.domain.items.work import WorkItem, WorkPlan, work_items_of
from llmbatch_assets.domain.text import CUT_MARK
from llmbatch_assets.errors import ConfigError, GroupingColumnError
from llmbatch_assets_tests.domain.strategies import ROW_MODES, ROWS, TEAMS, parameters, quick, snapshot

Rows = Sequence[tuple[str, str, str]]

TABLE = (
    ("1", "red", "How tall?"),
    ("2", "blue", "Who, when?"),
    ("3", "red", "{context}"),
    ("3", "red", "{context}"),
    ("4", "", "naïve"),
)


def plan(mode: str, rows: Rows, **blocks: dict[str, Any]) -> WorkPlan:
    """The plan of a table in a mode."""
    grouping = ROW_MODES[mode] | blocks.pop("grouping", {})
    return plan_work(snapshot(rows), parameters(grouping=grouping, **blocks))


def groups_of(rows: Rows) -> dict[str, list[int]]:
    """Groups as first seen, with their rows."""
    members: dict[str, list[int]] = {}
    for index, (_, team, _) in enumerate(rows):
        members.setdefault(team, []).append(index)
    return members


# What each mode promises: the rows of each item, in output order.
PROMISED: dict[str, Callable[[Rows], list[list[int]]]] = {
    "row_wise": lambda rows: [[index] for index in range(len(rows))],
    "group_output": lambda rows: list(groups_of(rows).values()),
    "row_output_with_group_context": lambda rows: [[index] for index in range(len(rows))],
}


def rows_of(item: WorkItem) -> list[int]:
    """The rows that an item is made from."""
    indices: list[int] = item.meta["row_indices"] if item.row_index is None else [item.row_index]
    return indices


def by_content(made: WorkPlan, rows: Rows) -> dict[str, set[str]]:
    """Ids of the items, by what their rows say."""
    ids: dict[str, set[str]] = {}
    for item in made.items:
        ids.setdefault(json.dumps([rows[index] for index in rows_of(item)]), set()).add(item.work_id)
    return ids


def test_every_mode_has_a_promise() -> None:
    assert set(PROMISED) == set(GROUPING_MODES) == set(ROW_MODES)


@pytest.mark.parametrize("mode", GROUPING_MODES)
@quick
@given(rows=ROWS)
def test_every_row_appears_in_order_where_its_mode_promises(mode: str, rows: Rows) -> None:
    made = plan(mode, rows)
    assert [rows_of(item) for item in made.items] == PROMISED[mode](rows)
    assert all(item.meta["mode"] == mode for item in made.items)
    expected = [None if mode == "row_wise" else rows[rows_of(item)[0]][1] for item in made.items]
    assert [item.group_key for item in made.items] == expected


@pytest.mark.parametrize("mode", GROUPING_MODES)
@quick
@given(rows=ROWS, label=st.sampled_from(["", "id", "text"]))
def test_keys_of_partitions_are_unique_and_hold_no_comma(mode: str, rows: Rows, label: str) -> None:
    items = plan(mode, rows, work_items={"label_column": label}).items
    keys = [item.partition_key for item in items]
    assert len({item.work_id for item in items}) == len(set(keys)) == len(items)
    assert not [key for key in keys if set(key) & set(", \n\t/\\")]


@pytest.mark.parametrize("mode", GROUPING_MODES)
@quick
@given(rows=ROWS, extra=st.tuples(st.just("new"), TEAMS, st.just("row")), place=st.integers(0, 8))
def test_a_row_of_another_group_changes_no_id(mode: str, rows: Rows, extra: tuple[str, str, str], place: int) -> None:
    grown = [*rows[:place], extra, *rows[place:]]
    before, after = by_content(plan(mode, rows), rows), by_content(plan(mode, grown), grown)
    # Row-wise items have no group, so every other row is of another one.
    own = set() if mode == "row_wise" else {json.dumps([row]) for row in rows if row[1] == extra[1]}
    if mode == "group_output":
        own = {content for content in before if json.loads(content)[0][1] == extra[1]}
    assert {content: before[content] for content in set(before) - own} == {
        content: after[content] for content in set(before) - own
    }


@pytest.mark.parametrize("mode", GROUPING_MODES)
@quick
@given(rows=ROWS)
def test_groups_that_change_places_keep_their_ids(mode: str, rows: Rows) -> None:
    moved = [rows[index] for members in reversed(groups_of(rows).values()) for index in members]
    assert by_content(plan(mode, moved), moved) == by_content(plan(mode, rows), rows)


def test_a_row_that_joins_a_group_changes_only_the_ids_of_that_group() -> None:
    grown = (*TABLE, ("5", "red", "Why?"))
    before, after = (plan("row_output_with_group_context", rows).items for rows in (TABLE, grown))
    changed = {item.group_key for item, then in zip(before, after, strict=False) if item.work_id != then.work_id}
    assert changed == {"red"}


@quick
@given(rows=ROWS, cap=st.integers(0, 3))
def test_a_shared_context_equals_the_one_that_each_item_would_contain(rows: Rows, cap: int) -> None:
    grouping = {"max_rows_per_group": cap}
    shared = plan("row_output_with_group_context", rows, grouping=grouping)
    whole = {item.group_key: item.context for item in plan("group_output", rows, grouping=grouping).items}
    alone = plan("row_wise", rows).items
    texts = {context.group_context_id: context.context for context in shared.contexts}
    assert [context.group_key for context in shared.contexts] == list(groups_of(rows))
    for item, row in zip(shared.items, alone, strict=True):
        assert item.group_context_id is not None
        assert texts[item.group_context_id] == whole[item.group_key]
        assert item.group_context_id == sha1_text(whole[item.group_key])
        assert item.context == row.context


@pytest.mark.parametrize("mode", ["row_wise", "group_output"])
def test_only_one_mode_stores_contexts_separately(mode: str) -> None:
    assert plan(mode, TABLE).contexts == []
    assert all(item.group_context_id is None for item in plan(mode, TABLE).items)


# Ids are a contract: outputs that people paid for are found by them. A change here is a new IDENTITY_VERSION.
@pytest.mark.parametrize(
    ("mode", "keys"),
    [
        (
            "row_wise",
            [
                "cffc37a7bacad5e5b867287934afc23b1e507348",
                "5e6b0aaa120821050f933b5685a9c937abd3fb26",
                "0712270573fe5b4013487ea18f77751e9b4c3882",
                "af00d80a2de20e6d532e75d73ab97bbf20012e09",
                "fbe7c5e8551011912a939fa57c220e2d868f2640",
            ],
        ),
        ("group_output", ["red-c355ed95754a225c", "blue-cd76a8db1d988424", "empty-ed23661579e8a591"]),
        (
            "row_output_with_group_context",
            [
                "red-b95892a5eff38344",
                "blue-8e342ab0b3a20f2c",
                "red-0ced560c7140975f",
                "red-16f5642ca621f254",
                "empty-3bf71a3720126545",
            ],
        ),
    ],
)
def test_the_ids_of_a_table_are_a_contract(mode: str, keys: list[str]) -> None:
    assert [item.partition_key for item in plan(mode, TABLE).items] == keys


def test_a_group_is_shown_between_its_header_and_its_footer_with_its_rows_as_they_are() -> None:
    context = {
        "columns": {"mode": "include", "include": ["text"]},
        "group_header_template": "{group_key}: {n_rows}",
        "group_footer_template": "End of {group_key}",
    }
    red = plan("group_output", TABLE, context=context).items[0]
    assert red.context == (
        "red: 3\n\n[1]\ntext: How tall?\n\n[2]\ntext: {context}\n\n[3]\ntext: {context}\n\nEnd of red"
    )


def test_a_cap_limits_the_rows_that_are_shown_and_says_so() -> None:
    made = plan("row_output_with_group_context", TABLE, grouping={"max_rows_per_group": 2})
    red = made.contexts[0]
    assert red.context.startswith("red (3 rows)")
    assert red.context.count("id: 3") == 1
    assert red.meta == {
        "grouping_column": "team",
        "n_rows_total": 3,
        "n_rows_used": 2,
        "row_cap_applied": True,
        "row_indices": [0, 2, 3],
    }
    assert made.contexts[1].meta["row_cap_applied"] is False
    # In row mode every row stays an item.
    assert len(made.items) == len(TABLE)


@pytest.mark.parametrize("mode", GROUPING_MODES)
def test_what_is_cut_is_recorded(mode: str) -> None:
    long = [("1", "red", "x" * 50), ("2", "red", "short")]
    fields = plan(mode, long, context={"truncate_field_chars": 10})
    assert fields.items[0].meta["truncated_fields"] == ["text"]
    whole = plan(mode, long, context={"max_context_chars": 10})
    assert whole.items[0].meta["context_truncated"] is True
    assert whole.items[0].context.endswith(CUT_MARK)
    assert "context_truncated" not in plan(mode, long).items[0].meta
    for context in fields.contexts:
        assert context.meta["truncated_fields"] == ["text"]
    for context in whole.contexts:
        assert context.meta["context_truncated"] is True


def test_identical_rows_are_separate_items() -> None:
    items = plan("row_wise", TABLE).items
    assert items[2].context == items[3].context
    assert items[2].work_id != items[3].work_id


@pytest.mark.parametrize("mode", ["row_wise", "row_output_with_group_context"])
def test_identical_rows_can_share_one_item_that_lists_them(mode: str) -> None:
    rows = (("1", "a", "x"), ("2", "a", "y"), ("1", "a", "x"), ("1", "b", "x"), ("1", "a", "x"))
    items = plan(mode, rows, work_items={"duplicates": "share"}).items
    shared = {item.row_index: item.meta.get("shared_row_indices") for item in items}
    assert shared == {0: [2, 4], 1: None, 3: None}
    apart = {item.row_index: item.work_id for item in plan(mode, rows).items}
    assert {item.row_index: item.work_id for item in items} == {index: apart[index] for index in (0, 1, 3)}


def test_a_label_comes_from_its_column_else_from_the_group() -> None:
    assert [item.partition_key.rsplit("-", 1)[0] for item in plan("group_output", TABLE).items[:2]] == ["red", "blue"]
    labelled = plan("row_output_with_group_context", TABLE, work_items={"label_column": "text"}).items
    assert labelled[1].partition_key == f"who-when-{labelled[1].work_id[:16]}"
    # No label: the whole id.
    bare = plan("row_wise", TABLE).items[0]
    assert bare.partition_key == bare.work_id


@pytest.mark.parametrize("mode", ["group_output", "row_output_with_group_context"])
def test_a_missing_grouping_column_is_reported_with_the_nearest_first(mode: str) -> None:
    with pytest.raises(GroupingColumnError, match="no column 'teams'; it has: team, id, text"):
        plan(mode, TABLE, grouping={"column": "teams"})
    with pytest.raises(ValueError, match="no column 'Nothing'"):
        plan(mode, TABLE, grouping={"column": "Nothing"})


def test_a_grouping_column_that_is_not_in_use_may_be_missing() -> None:
    assert len(plan("row_wise", TABLE, grouping={"column": "Nothing"}).items) == len(TABLE)


@pytest.mark.parametrize("mode", GROUPING_MODES)
def test_a_missing_label_column_is_reported(mode: str) -> None:
    with pytest.raises(GroupingColumnError, match="no column 'name'"):
        plan(mode, TABLE, work_items={"label_column": "name"})


@pytest.mark.parametrize("mode", GROUPING_MODES)
def test_an_unknown_column_in_a_row_template_is_reported_in_every_mode(mode: str) -> None:
    with pytest.raises(ConfigError, match="row_template"):
        plan(mode, TABLE, context={"row_template": "{nothing}"})


@pytest.mark.parametrize("mode", ["group_output", "row_output_with_group_context"])
@pytest.mark.parametrize("key", ["group_header_template", "group_footer_template"])
def test_an_unknown_placeholder_in_a_group_template_is_reported(mode: str, key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        plan(mode, TABLE, context={key: "{group_key} {total}"})


@pytest.mark.parametrize("mode", GROUPING_MODES)
def test_an_empty_table_gives_no_items(mode: str) -> None:
    assert plan(mode, ()) == WorkPlan(items=[], contexts=[], warnings=[])


@pytest.mark.parametrize("mode", GROUPING_MODES)
def test_the_artifact_of_the_items_says_how_they_were_made(mode: str) -> None:
    read = parameters(grouping=ROW_MODES[mode])
    made = plan_work(snapshot(TABLE), read)
    kept = work_items_of(made, read, "pipeline3_group_contexts.json")
    shared = mode == "row_output_with_group_context"
    assert kept.meta == {
        "grouping": {
            "enabled": mode != "row_wise",
            "mode": mode,
            "column": None if mode == "row_wise" else "team",
            "dedupe_group_context": shared,
        },
        "warnings": made.warnings,
    }
    assert (kept.n_items, kept.n_group_contexts) == (len(made.items), len(made.contexts))
    assert kept.group_contexts_artifact == ("pipeline3_group_contexts.json" if shared else None)
    assert kept.items == made.items


def test_suspicious_values_of_the_grouping_column_are_reported_with_examples() -> None:
    rows = (("1", "", "x"), ("2", "caf\u00e9", "x"), ("3", "cafe\u0301", "x"), ("4", "Café", "x"))
    made = plan("group_output", rows)
    assert [item.group_key for item in made.items] == ["", "caf\u00e9", "Café"]
    empty, composed, alike = made.warnings
    assert empty == "1 row without a value in 'team', put into one group; row: 1"
    assert composed.startswith("1 value of 'team' normalized (Unicode NFC)")
    assert alike.endswith("differ only in case or spaces and stay separate: 'Café' / 'café'")


def test_a_column_is_found_however_its_accents_are_typed() -> None:
    composed, typed = "Cat\u00e9gorie", "Cate\u0301gorie"
    taken = take_snapshot(RawTable([composed], [["x"]], "csv"), "t.csv", Input())
    settings = parameters(grouping={"enabled": True, "column": typed}, context={"columns": {"include": [typed]}})
    assert [item.group_key for item in plan_work(taken, settings).items] == ["x"]


# Empty rows.

GAPS = (("1", "red", "a"), ("", "", ""), ("2", "", "b"), ("", "", ""), ("3", "red", ""))


@pytest.mark.parametrize("mode", GROUPING_MODES)
@pytest.mark.parametrize("duplicates", ["separate", "share"])
@pytest.mark.parametrize("include", [["text"], ["id", "team", "text"]])
def test_skipping_empty_rows_takes_only_their_items(mode: str, duplicates: str, include: list[str]) -> None:
    # With the text alone, the last row looks like the empty ones.
    blocks: dict[str, Any] = {
        "work_items": {"duplicates": duplicates},
        "context": {"columns": {"mode": "include", "include": include}},
    }
    whole = plan(mode, GAPS, **blocks)
    kept = plan(mode, GAPS, input={}, **blocks)
    ids = {item.work_id for item in whole.items}
    assert {item.work_id for item in kept.items} <= ids
    covered = {row for item in kept.items for row in [*rows_of(item), *item.meta.get("shared_row_indices", ())]}
    assert {0, 2, 4} <= covered
    assert not [item for item in kept.items if set(rows_of(item)) <= {1, 3}]


def test_a_group_of_empty_rows_alone_is_left_out() -> None:
    rows = (("1", "red", "a"), ("", "", ""), ("", "", ""))
    for mode in ("group_output", "row_output_with_group_context"):
        made = plan(mode, rows, input={})
        assert [item.group_key for item in made.items] == ["red"]
        assert [context.group_key for context in made.contexts] in ([], ["red"])
        assert made.warnings == []
