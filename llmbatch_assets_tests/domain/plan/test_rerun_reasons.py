"""Reasons: what happened to an output, which settings changed, and which earlier row an edited row replaces.

Rows are edited, inserted, deleted and moved, and history piles up.
"""

from __future__ import annotations

import time
import timeit
from collections.abc import Sequence
from typing import Any

import pytest

from llmbatch_assets.domain.configuration.parameters import read_parameters
from llmbatch_assets.domain.item_state import ItemState
from llmbatch_assets.domain.items.grouping import plan_work
from llmbatch_assets.domain.items.identity import BatchIdentity, identity_of
from llmbatch_assets.domain.items.table import RawTable, take_snapshot
from llmbatch_assets.domain.items.work import WorkItem
from llmbatch_assets.domain.plan.rerun_reasons import (
    LABELS,
    PreviousItem,
    RerunReason,
    RerunReasons,
    changes_between,
    count_reasons,
    in_order,
    label_of,
    match_rows,
    reasons_from_artifacts,
)

JUDGE: dict[str, Any] = {"schema_sha": "j", "model_name": "m", "temperature": 1.0, "min_score": 0}
PLAIN = BatchIdentity(
    prompt_sha="p",
    schema_sha="s",
    model_name="m",
    temperature=1.0,
    settings={},
    judge_enabled=True,
    judge_prompt_sha="q",
    judge=JUDGE,
)


@pytest.mark.parametrize(
    ("state", "found", "reasons"),
    [
        ("accepted", (), ("forced",)),
        ("missing", (), ()),
        ("missing", ("forced",), ("forced",)),
        ("failed", ("failed_before", "forced"), ("failed_before",)),
        ("failed", ("failed_before", "verdict_missing"), ("verdict_missing",)),
        ("failed", ("failed_before", "artifact_missing"), ("artifact_missing",)),
        ("failed", ("failed_before", "artifact_missing", "artifact_broken"), ("artifact_broken",)),
    ],
)
def test_artifacts_give_the_first_reason_that_applies(
    state: ItemState, found: tuple[RerunReason, ...], reasons: RerunReasons
) -> None:
    assert reasons_from_artifacts("c", state, {one: {"c", "d"} for one in found}) == reasons
    assert reasons_from_artifacts("e", "missing", {one: {"c", "d"} for one in found}) == ()


@pytest.mark.parametrize(
    ("changes", "reasons"),
    [
        ({}, ()),
        ({"prompt_sha": "o"}, ("prompt_changed",)),
        ({"schema_sha": "o"}, ("schema_changed",)),
        ({"settings": {"llm_schema_txt": "o"}}, ("schema_changed",)),
        ({"settings": {"seed": 1}}, ("parameters_changed",)),
        ({"temperature": None}, ("parameters_changed",)),
        ({"judge_enabled": False, "judge_prompt_sha": None, "judge": None}, ("judge_changed",)),
        ({"judge": {**JUDGE, "min_score": 5}}, ("judge_changed",)),
        # A judge that is asked with the settings of llm changes with them.
        ({"model_name": "o", "judge": {**JUDGE, "model_name": "o"}}, ("parameters_changed",)),
        ({"model_name": "o", "judge": {**JUDGE, "model_name": "n"}}, ("parameters_changed", "judge_changed")),
        ({"prompt_sha": "o", "temperature": 0.0, "judge_prompt_sha": "o"}, None),
    ],
)
def test_changes_between_identities_are_named(changes: dict[str, Any], reasons: RerunReasons | None) -> None:
    expected = ("prompt_changed", "parameters_changed", "judge_changed") if reasons is None else reasons
    assert changes_between(PLAIN, PLAIN.model_copy(update=changes)) == expected


@pytest.mark.parametrize("identity", [PLAIN, PLAIN.model_copy(update={"settings": {"seed": 1, "provider": "local"}})])
def test_an_identity_is_read_back_from_its_parts(identity: BatchIdentity) -> None:
    assert identity_of(identity.parts("w")) == identity


def test_reasons_are_counted_most_frequent_first_in_a_fixed_order() -> None:
    both = in_order("prompt_changed", "row_changed", "prompt_changed")
    assert both == ("row_changed", "prompt_changed")
    several = {"a": ("new_row",), "b": both, "c": both, "d": ("forced",)}
    assert count_reasons(several) == [(both, 2), (("new_row",), 1), (("forced",), 1)]  # type: ignore[arg-type]  # literals
    assert all(LABELS.values())


# Rows.

Rows = Sequence[tuple[str, ...]]


def items_of(rows: Rows, label: str = "", mode: str = "") -> list[WorkItem]:
    blocks = {
        "work_items": {"label_column": label},
        "grouping": {"enabled": bool(mode), "column": "team", **({"mode": mode} if mode else {})},
    }
    parameters = read_parameters(blocks)
    table = RawTable(["id", "team", "text"], rows, "csv")
    return plan_work(take_snapshot(table, "t.csv", parameters.input), parameters).items


def artifact(item: WorkItem, at: str = "2026-01-01", **other: object) -> PreviousItem:
    previous = PreviousItem(
        item.work_id, item.partition_key, item.group_key, item.row_index, item.group_context_id, at, PLAIN
    )
    return previous._replace(**other)  # type: ignore[arg-type]  # fields of a PreviousItem


def reasons(
    before: list[WorkItem], now: list[WorkItem], *more: PreviousItem, by_label: bool = False
) -> dict[int | None, str]:
    """The reason of each item without an artifact, by row; new ones are left out."""
    known = [artifact(item) for item in before] + list(more)
    ids = {item.work_id for item in now}
    gone = [one for one in known if one.work_id not in ids]
    kept = [one for one in known if one.work_id in ids]
    unmatched = [item for item in now if item.work_id not in {one.work_id for one in kept}]
    found = match_rows(now, unmatched, gone, kept, by_label=by_label)
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
def test_rows_are_matched_by_position(rows: Rows, expected: dict[int | None, str]) -> None:
    assert reasons(items_of([A, B, C, D]), items_of(rows)) == expected


def test_a_label_finds_a_row_that_moved() -> None:
    before, now = items_of([A, B, C, D], "id"), items_of([D, B2, NEW, A], "id")
    assert reasons(before, now, by_label=True) == {1: "row_changed"}


def test_a_label_shared_by_several_rows_identifies_none() -> None:
    before, now = items_of([A, B, C, D], "team"), items_of([A, B2, C, D, NEW], "team")
    assert reasons(before, now, by_label=True) == {1: "row_changed"}


def test_changes_of_the_own_row_differ_from_changes_of_other_rows() -> None:
    mode = "row_output_with_group_context"
    before, now = items_of([A, B, C, D], mode=mode), items_of([A, B2, C, D], mode=mode)
    assert reasons(before, now) == {0: "sibling_changed", 1: "row_changed"}
    deleted = items_of([A, C, D], mode=mode)
    assert reasons(before, deleted) == {0: "sibling_changed"}


def test_identical_rows_of_a_group_are_each_matched_as_siblings() -> None:
    mode = "row_output_with_group_context"
    before, now = items_of([A, A, B], mode=mode), items_of([A, A, B2], mode=mode)
    assert reasons(before, now) == {0: "sibling_changed", 1: "sibling_changed", 2: "row_changed"}


def test_the_latest_previous_row_is_matched_not_an_older_one() -> None:
    # Row 1 was `two`, was edited twice, and has an output now: its old versions belong to nobody.
    old = [artifact(item, "2025-01-01") for item in items_of([A, B])][1]
    older = [artifact(item, "2024-01-01") for item in items_of([A, ("b", "x", "2")])][1]
    before = items_of([A, B2, C])
    assert reasons(before, items_of([A, B2, C, D]), old, older) == {}


def test_items_made_with_other_settings_count_as_changed_parameters() -> None:
    now = items_of([A, B])
    known = [artifact(item, work_id=f"w{item.row_index}", other_settings=True) for item in now]
    assert reasons([], now, *known) == {0: "parameters_changed", 1: "parameters_changed"}


def test_groups_are_found_by_their_key() -> None:
    before, now = items_of([A, C], mode="group_output"), items_of([A, B, D, NEW], mode="group_output")
    known = [artifact(item) for item in before]
    found = match_rows(now, now, known, [], by_label=False)
    assert [found[item.work_id].reason for item in now] == ["group_changed", "group_changed"]


def test_labels_are_the_start_of_partition_keys() -> None:
    assert [label_of(item) for item in items_of([A, ("Ü b", "x", "t")], "id")] == ["a", "ü-b"]
    assert label_of(items_of([A])[0]) == ""


def test_time_grows_linearly_with_the_rows() -> None:
    def seconds(count: int) -> float:
        before = items_of([(str(n), "x", f"text {n}") for n in range(count)], mode="row_output_with_group_context")
        now = items_of([(str(n), "x", f"text {n}!") for n in range(count)], mode="row_output_with_group_context")
        known = [artifact(item) for item in before]
        # Without the garbage collector, whose time is that of all that other tests have left.
        return timeit.timeit(lambda: match_rows(now, now, known, [], by_label=False), timer=time.process_time, number=1)

    assert seconds(8_000) < 24 * seconds(1_000)
