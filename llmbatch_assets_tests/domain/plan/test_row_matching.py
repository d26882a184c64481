"""Which earlier item an item was: rows are edited, inserted, deleted and moved, and history piles up."""

from __future__ import annotations

import time
import timeit
from collections.abc import Sequence

import pytest

from llmbatch_assets.domain.items.grouping import plan_work
from llmbatch_assets.domain.items.identity import BatchIdentity
from llmbatch_assets.domain.items.table import RawTable, take_snapshot
from llmbatch_assets.domain.items.work import WorkItem
from llmbatch_assets.domain.parameters import read_parameters
from llmbatch_assets.domain.plan.row_matching import Former, label_of, match_rows

IDENTITY = BatchIdentity(
    prompt_sha="p", schema_sha="s", model_name="m", temperature=1.0, settings={}, judge_enabled=False
)
Rows = Sequence[tuple[str, ...]]


def items_of(rows: Rows, label: str = "", mode: str = "") -> list[WorkItem]:
    blocks = {
        "work_items": {"label_column": label},
        "grouping": {"enabled": bool(mode), "column": "team", **({"mode": mode} if mode else {})},
    }
    parameters = read_parameters(blocks)
    table = RawTable(["id", "team", "text"], rows, "csv")
    return plan_work(take_snapshot(table, "t.csv", parameters.input), parameters).items


def artifact(item: WorkItem, at: str = "2026-01-01", **other: object) -> Former:
    former = Former(
        item.work_id, item.partition_key, item.group_key, item.row_index, item.group_context_id, at, IDENTITY
    )
    return former._replace(**other)  # type: ignore[arg-type]  # fields of a Former


def reasons(
    before: list[WorkItem], now: list[WorkItem], *more: Former, by_label: bool = False
) -> dict[int | None, str]:
    """The reason of each item without an artifact, by row; new ones are left out."""
    known = [artifact(item) for item in before] + list(more)
    ids = {item.work_id for item in now}
    former = [one for one in known if one.work_id not in ids]
    standing = [one for one in known if one.work_id in ids]
    unmatched = [item for item in now if item.work_id not in {one.work_id for one in standing}]
    found = match_rows(now, unmatched, former, standing, by_label=by_label)
    return {item.row_index: found[item.work_id].reason for item in unmatched if item.work_id in found}


A, B, C, D = (("a", "x", "one"), ("b", "x", "two"), ("c", "y", "three"), ("d", "y", "four"))
B2 = ("b", "x", "two and a half")
NEW = ("n", "x", "new")

CASES: list[tuple[str, Rows, dict[int | None, str]]] = [
    ("edited", [A, B2, C, D], {1: "row_changed"}),
    ("inserted before", [NEW, A, B, C, D], {}),
    ("inserted before and edited", [NEW, A, B2, C, D], {2: "row_changed"}),
    ("deleted before and edited", [B2, C, D], {0: "row_changed"}),
    ("deleted after and edited", [A, B2, D], {1: "row_changed"}),
    ("appended", [A, B, C, D, NEW], {}),
    ("moved", [D, C, B, A], {}),
    ("two in a row edited", [A, B2, ("c", "y", "3"), D], {1: "row_changed", 2: "row_changed"}),
]


@pytest.mark.parametrize(("rows", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_rows_are_found_by_their_place_after_one_that_stayed(rows: Rows, expected: dict[int | None, str]) -> None:
    assert reasons(items_of([A, B, C, D]), items_of(rows)) == expected


def test_a_label_finds_a_row_wherever_it_went() -> None:
    before, now = items_of([A, B, C, D], "id"), items_of([D, B2, NEW, A], "id")
    assert reasons(before, now, by_label=True) == {1: "row_changed"}


def test_a_label_that_several_rows_share_is_none() -> None:
    before, now = items_of([A, B, C, D], "team"), items_of([A, B2, C, D, NEW], "team")
    assert reasons(before, now, by_label=True) == {1: "row_changed"}


def test_the_own_row_is_told_from_the_groups_others() -> None:
    mode = "row_output_with_group_context"
    before, now = items_of([A, B, C, D], mode=mode), items_of([A, B2, C, D], mode=mode)
    assert reasons(before, now) == {0: "sibling_changed", 1: "row_changed"}
    deleted = items_of([A, C, D], mode=mode)
    assert reasons(before, deleted) == {0: "sibling_changed"}


def test_identical_rows_of_a_group_are_siblings_each() -> None:
    mode = "row_output_with_group_context"
    before, now = items_of([A, A, B], mode=mode), items_of([A, A, B2], mode=mode)
    assert reasons(before, now) == {0: "sibling_changed", 1: "sibling_changed", 2: "row_changed"}


def test_a_row_of_long_ago_is_not_taken_for_the_one_before() -> None:
    # Row 1 was `two`, was edited twice, and has an output now: its old versions belong to nobody.
    old = [artifact(item, "2025-01-01") for item in items_of([A, B])][1]
    older = [artifact(item, "2024-01-01") for item in items_of([A, ("b", "x", "2")])][1]
    before = items_of([A, B2, C])
    assert reasons(before, items_of([A, B2, C, D]), old, older) == {}


def test_items_that_were_made_otherwise_changed_by_the_parameters() -> None:
    now = items_of([A, B])
    known = [artifact(item, work_id=f"w{item.row_index}", other_settings=True) for item in now]
    assert reasons([], now, *known) == {0: "parameters_changed", 1: "parameters_changed"}


def test_groups_are_found_by_their_key() -> None:
    before, now = items_of([A, C], mode="group_output"), items_of([A, B, D, NEW], mode="group_output")
    known = [artifact(item) for item in before]
    found = match_rows(now, now, known, [], by_label=False)
    assert [found[item.work_id].reason for item in now] == ["group_changed", "group_changed"]


def test_labels_are_what_partition_keys_begin_with() -> None:
    assert [label_of(item.partition_key) for item in items_of([A, ("Ü b", "x", "t")], "id")] == ["a", "ü-b"]
    assert label_of(items_of([A])[0].partition_key) == ""


def test_time_grows_with_the_rows_and_not_with_their_square() -> None:
    def seconds(count: int) -> float:
        before = items_of([(str(n), "x", f"text {n}") for n in range(count)], mode="row_output_with_group_context")
        now = items_of([(str(n), "x", f"text {n}!") for n in range(count)], mode="row_output_with_group_context")
        known = [artifact(item) for item in before]
        # Without the garbage collector, whose time is that of all that other tests have left.
        return timeit.timeit(lambda: match_rows(now, now, known, [], by_label=False), timer=time.process_time, number=1)

    assert seconds(8_000) < 24 * seconds(1_000)
