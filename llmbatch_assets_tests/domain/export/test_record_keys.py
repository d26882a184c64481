"""The sum of records is the same in any order, and differs once a record is lost, repeated or another."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbatch_assets.domain.export.record_keys import RecordKey, RecordTally, expected_keys, record_key, records_sum
from llmbatch_assets.domain.export.records import JoinMode
from llmbatch_assets.domain.items.work import WorkItem

KEYS = st.builds(RecordKey, st.sampled_from("ab"), st.sampled_from(["", "0", "1"]), st.sampled_from("xy"))


@given(st.lists(KEYS), st.lists(KEYS))
def test_sums_are_equal_only_for_the_same_records(some: list[RecordKey], others: list[RecordKey]) -> None:
    assert (records_sum(some) == records_sum(others)) is (sorted(some) == sorted(others))


@given(st.lists(KEYS), st.lists(KEYS))
def test_a_sum_can_be_made_in_parts(some: list[RecordKey], others: list[RecordKey]) -> None:
    assert records_sum(others, records_sum(some)) == records_sum(some + others)


def item(row_index: int | None, **meta: Any) -> WorkItem:
    return WorkItem(
        work_id="w",
        partition_key="p",
        row_index=row_index,
        group_key=None,
        context="",
        group_context_id=None,
        meta=meta,
    )


@pytest.mark.parametrize(
    ("mode", "one", "rows"),
    [
        ("rows", item(3), ["3"]),
        ("rows", item(3, shared_row_indices=[5, 8]), ["3", "5", "8"]),
        ("one", item(None, row_indices=[1, 4], n_rows_used=2), [""]),
        ("expand", item(None, row_indices=[1, 4, 6], n_rows_used=2), ["1", "4"]),
        ("explode", item(None, row_indices=[1, 4], n_rows_used=2), [""]),
    ],
)
def test_an_output_is_expected_for_each_row_that_it_is_joined_with(
    mode: JoinMode, one: WorkItem, rows: list[str]
) -> None:
    keys = list(expected_keys(one, "c", mode))
    assert keys == [RecordKey("w", row, "c") for row in rows]
    # The rows of a group with a list are those of its elements, of which the plan knows nothing.
    tally = RecordTally(mode)
    for row in one.meta.get("row_indices", []) if mode == "explode" else rows:
        tally.add([{"work_id": "w", "row_index": row or None, "cache_id": "c"}])
    assert tally.sum == records_sum(keys)


def test_a_record_is_named_by_its_row_or_its_item() -> None:
    meta = {"work_id": "w", "row_index": 3, "cache_id": "c"}
    assert record_key(meta, "rows").label == "row 3"
    assert record_key(meta, "explode").label == "item w"
