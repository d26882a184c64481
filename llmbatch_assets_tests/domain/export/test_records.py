"""Outputs joined with their rows at their current positions; everything else is listed as not exported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbatch_assets.domain.export.columns import Record
from llmbatch_assets.domain.export.records import Entry, ItemOutcome, Join, NotExported, OutdatedOutput, entries
from llmbatch_assets.domain.items.grouping import plan_work
from llmbatch_assets.domain.items.table import Snapshot
from llmbatch_assets.domain.items.work import WorkItem
from llmbatch_assets_tests.domain.strategies import (
    ROW_MODES,
    make_failure,
    make_output,
    parameters,
    quick,
    snapshot,
)

ROWS = (("1", "red", "a"), ("2", "blue", "b"), ("1", "red", "a"), ("3", "red", "c"))
TABLE = snapshot(ROWS)
EXPLODE = {"list": "answers", "item_key": "row", "input_column": "id"}


def planned(mode: str, table: Snapshot = TABLE, **blocks: Any) -> tuple[Join, list[WorkItem]]:
    grouping = ROW_MODES[mode] | blocks.pop("grouping", {})
    read = parameters(grouping=grouping, **blocks)
    return Join.of(table, read), plan_work(table, read).items


def joined(mode: str, parsed: Mapping[str, Any] | None = None, table: Snapshot = TABLE, **blocks: Any) -> list[Entry]:
    """The entries of a batch of which every item has an output."""
    join, items = planned(mode, table, **blocks)
    # The artifacts are of a day on which the rows stood elsewhere.
    old = [replace(item, row_index=99, group_key="old", partition_key="old") for item in items]
    outputs = [make_output(then, {"of": then.work_id} if parsed is None else parsed) for then in old]
    return list(entries(join, map(ItemOutcome, items, outputs)))


def records(found: Sequence[Entry]) -> list[Record]:
    return [entry for entry in found if not isinstance(entry, NotExported)]


def left_out(found: Sequence[Entry]) -> list[NotExported]:
    return [entry for entry in found if isinstance(entry, NotExported)]


# Rows.


@pytest.mark.parametrize("mode", ["row_wise", "row_output_with_group_context"])
def test_every_row_gets_its_output_and_its_current_position(mode: str) -> None:
    found = records(joined(mode))
    assert [record["meta"]["row_index"] for record in found] == [0, 1, 2, 3]
    assert [record["input"] for record in found] == TABLE.rows
    assert all(record["parsed"] == {"of": record["meta"]["work_id"]} for record in found)
    groups = [None] * 4 if mode == "row_wise" else ["red", "blue", "red", "red"]
    assert [record["meta"]["group_key"] for record in found] == groups
    assert "old" not in {record["meta"]["partition_key"] for record in found}


def test_rows_that_share_an_output_each_have_a_record_in_table_order() -> None:
    found = records(joined("row_wise", work_items={"duplicates": "share"}))
    assert [record["meta"]["row_index"] for record in found] == [0, 1, 2, 3]
    assert found[0]["parsed"] == found[2]["parsed"] != found[3]["parsed"]
    assert found[2]["input"] == TABLE.rows[2]


@quick
@given(
    states=st.lists(st.sampled_from(["accepted", "failed", "missing", "outdated"]), min_size=4, max_size=4),
    mode=st.sampled_from(sorted(ROW_MODES)),
    share=st.booleans(),
    group_rows=st.sampled_from(["one", "expand"]),
    cap=st.integers(0, 2),
)
def test_every_row_is_exported_or_listed_as_not_exported_once(
    states: list[str], mode: str, share: bool, group_rows: str, cap: int
) -> None:
    join, items = planned(
        mode,
        grouping={"max_rows_per_group": cap},
        work_items={"duplicates": "share" if share else "separate"},
        outputs={"group_rows": group_rows},
    )
    found = list(entries(join, map(standing, items, states)))
    rows = [one.row_index if isinstance(one, NotExported) else one["meta"]["row_index"] for one in found]
    if join.mode == "one":
        assert len([row for row in rows if row is None]) == len(items)
        assert len(left_out(found)) == sum(state != "accepted" for state in states[: len(items)]) + n_beyond(items)
        return
    assert set(rows) == {0, 1, 2, 3}
    assert len(rows) == 4
    assert join.mode != "rows" or rows == [0, 1, 2, 3]
    told = {one.state for one in left_out(found)} - {"row_beyond_cap"}
    assert told == {state for state in states[: len(items)] if state != "accepted"}


def n_beyond(items: Sequence[WorkItem]) -> int:
    return sum(item.meta["n_rows_total"] - item.meta["n_rows_used"] for item in items)


def standing(item: WorkItem, state: str) -> ItemOutcome:
    match state:
        case "accepted":
            return ItemOutcome(item, make_output(item))
        case "failed":
            return ItemOutcome(item, failure=make_failure(item), failure_file="f.json")
        case "outdated":
            return ItemOutcome(item, older=OutdatedOutput("o.json", "model"))
    return ItemOutcome(item)


def test_lines_that_are_not_exported_have_a_reason_and_a_file() -> None:
    join, items = planned("row_output_with_group_context")
    both = standing(items[0], "failed")._replace(older=OutdatedOutput("o.json", "model"))
    failed, missing, outdated = entries(join, [both, ItemOutcome(items[1]), standing(items[2], "outdated")])
    assert failed == NotExported(
        state="failed",
        partition_key=items[0].partition_key,
        work_id=items[0].work_id,
        row_index=0,
        group_key="red",
        cause="schema_mismatch",
        message=f"schema_mismatch of {items[0].partition_key}",
        failure_file="f.json",
        older_output_file="o.json",
    )
    assert isinstance(missing, NotExported)
    assert (missing.state, missing.row_index, missing.failure_file) == ("missing", 1, "")
    assert isinstance(outdated, NotExported)
    assert (outdated.state, outdated.older_output_file) == ("outdated", "o.json")
    assert "another model" in outdated.message


# Groups.


def test_the_output_of_a_group_has_all_its_rows() -> None:
    red, blue = records(joined("group_output"))
    assert red["input"] == {"team": "red"}
    assert red["meta"]["row_index"] is None
    assert red["meta"]["group_key"] == red["input"]["team"]
    assert red["input_group_row_indices"] == [0, 2, 3]
    assert red["input_group_rows"] == [TABLE.rows[index] for index in (0, 2, 3)]
    assert (red["grouping_column"], blue["input_group_row_indices"]) == ("team", [1])
    assert red["group_context"].startswith("red (3 rows)")


@pytest.mark.parametrize("group_rows", ["one", "expand"])
def test_rows_beyond_the_cap_are_listed(group_rows: str) -> None:
    capped = joined("group_output", grouping={"max_rows_per_group": 2}, outputs={"group_rows": group_rows})
    (beyond,) = left_out(capped)
    assert (beyond.state, beyond.row_index, beyond.group_key) == ("row_beyond_cap", 3, "red")
    assert "first 2 rows" in beyond.message


def test_the_output_of_a_group_is_joined_with_each_of_its_rows() -> None:
    found = joined("group_output", {"say": "x"}, outputs={"group_rows": "expand"})
    assert left_out(found) == []
    assert [(one["meta"]["row_index"], one["meta"]["group_key"]) for one in records(found)] == [
        (0, "red"),
        (2, "red"),
        (3, "red"),
        (1, "blue"),
    ]
    assert [one["input"] for one in records(found)] == [TABLE.rows[index] for index in (0, 2, 3, 1)]
    assert {one["parsed"]["say"] for one in records(found)} == {"x"}
    # All rows of a group in each of its records would make the export grow with their square.
    assert not any("input_group_rows" in one for one in records(found))


def exploded(elements: Any, ids: Sequence[str] = ("1", "2", "3")) -> tuple[list[tuple[Any, Any]], list[NotExported]]:
    """Records as row index and element of one group with rows of these ids, and what is left out."""
    table = snapshot([(name, "red", "") for name in ids])
    found = joined("group_output", {"answers": elements, "note": "n"}, table, outputs={"explode": EXPLODE})
    assert all(one["parsed"] == {"note": "n"} for one in records(found))
    return [(one["meta"]["row_index"], one["element"]["a"]) for one in records(found)], left_out(found)


def test_each_element_is_joined_with_the_row_it_refers_to() -> None:
    made, left = exploded([{"row": "3", "a": "c"}, {"row": "1", "a": "a"}, {"row": "2", "a": "b"}])
    assert (made, left) == ([(2, "c"), (0, "a"), (1, "b")], [])


def test_keys_are_compared_as_composed_text() -> None:
    made, left = exploded(
        [{"row": 7, "a": 1}, {"row": " cafe\u0301 ", "a": 2}, {"row": 1.0, "a": 3}], ("7", "caf\u00e9", "1")
    )
    assert (made, left) == ([(0, 1), (1, 2), (2, 3)], [])


def test_unmatched_elements_and_rows_are_listed() -> None:
    made, left = exploded([{"row": "1", "a": "a"}, {"row": "9", "a": "x"}, {"row": None, "a": "y"}])
    assert made == [(0, "a")]
    assert [(one.state, one.row_index) for one in left] == [
        ("element_without_row", None),
        ("element_without_row", None),
        ("row_without_element", 1),
        ("row_without_element", 2),
    ]
    assert left[0].element_json == '{"a":"x","row":"9"}'
    assert "'9'" in left[0].message
    assert "'2'" in left[2].message


def test_rows_with_the_same_value_take_its_elements_in_turn() -> None:
    made, left = exploded([{"row": "1", "a": number} for number in range(3)], ("1", "1"))
    assert (made, left) == ([(0, 0), (1, 1), (0, 2)], [])


@pytest.mark.parametrize("elements", [[], None])
def test_without_elements_every_row_is_listed(elements: Any) -> None:
    made, left = exploded(elements)
    assert (made, [one.row_index for one in left]) == ([], [0, 1, 2])


def test_a_row_beyond_the_cap_is_never_matched() -> None:
    table = snapshot([("1", "red", ""), ("2", "red", "")])
    parsed = {"answers": [{"row": "1"}, {"row": "2"}]}
    blocks = {"grouping": {"max_rows_per_group": 1}, "outputs": {"explode": EXPLODE}}
    found = joined("group_output", parsed, table, **blocks)
    assert len(records(found)) == 1
    assert [one.state for one in left_out(found)] == ["element_without_row", "row_beyond_cap"]


@pytest.mark.parametrize("outputs", [{"group_rows": "expand"}, {"explode": EXPLODE}])
def test_without_an_output_every_row_of_the_group_is_listed(outputs: dict[str, Any]) -> None:
    join, items = planned("group_output", outputs=outputs)
    found = list(entries(join, [standing(items[0], "failed"), ItemOutcome(items[1])]))
    assert [(one.state, one.row_index) for one in left_out(found)] == [
        ("failed", 0),
        ("failed", 2),
        ("failed", 3),
        ("missing", 1),
    ]
