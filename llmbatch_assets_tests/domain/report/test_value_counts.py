"""Counts by value: bounded memory, sums that still add up, and columns found by name."""

from __future__ import annotations

from typing import Any

import pytest

from llmbatch_assets.domain.configuration.output_blocks import Report
from llmbatch_assets.domain.report.findings import Findings
from llmbatch_assets.domain.report.value_counts import (
    EMPTY_VALUE,
    CountedColumn,
    TextCounter,
    ValueCount,
    ValueCounter,
    counted_columns,
)
from llmbatch_assets.errors import ConfigError
from llmbatch_assets_tests.domain.strategies import make_item, make_output


def test_counts_stay_bounded_and_still_add_up() -> None:
    counts, texts = ValueCounter(limit=2), TextCounter(1, limit=2)
    for value in "abcabca":
        counts.add(value, "accepted")
        texts.add([value], "item")
    assert counts.total("accepted") == 7
    assert counts.top(9).rest.accepted == 2
    assert [(one.text, one.times) for one in texts.top(9)] == [("a", 3), ("b", 2)]
    assert texts.beyond == 2


def test_long_lists_show_the_worst_values_and_sum_up_the_rest() -> None:
    counts = ValueCounter()
    for number in range(50):
        counts.add(f"v{number % 10}", "accepted")
    for _ in range(2):
        counts.add("v7", "failed")
    lines = counts.top(3, lambda line: -line.open)
    assert [line.value for line in lines.shown] == ["v7", "v0", "v1"]
    assert lines.rest == ValueCount("", 35, 0, 0)
    assert lines.n_rest == 7


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, EMPTY_VALUE), ("", EMPTY_VALUE), ([], EMPTY_VALUE), (True, "true"), (0, "0"), ({"b": 1}, '{"b":1}')],
)
def test_a_value_of_a_field_is_shown_as_a_short_text(value: Any, shown: str) -> None:
    found, item = Findings(Report(), [CountedColumn("f", "output")]), make_item(0)
    found.add(item, make_output(item, {"f": value}), [])
    assert [line.value for line in found.counted[0].values.top(5).shown] == [shown]


def test_a_name_shared_by_table_and_output_counts_both() -> None:
    assert counted_columns(["x", "x"], ["x"], ["x"]) == [CountedColumn("x", "input"), CountedColumn("x", "output")]


def test_all_unknown_names_are_reported_with_similar_ones() -> None:
    with pytest.raises(ConfigError) as raised:
        counted_columns(["Skil", "zzz"], ["Skill"], ["answer"])
    first, second = str(raised.value).splitlines()
    assert "report.count_by" in first
    assert "'Skil'" in first
    assert "did you mean Skill?" in first
    assert "columns: Skill; fields: answer" in second
