"""What a report says: every item once, the same counts everywhere, and examples within their limits."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbatch_assets.domain.items.work import WorkItem
from llmbatch_assets.domain.outcome import FailedAttempt
from llmbatch_assets.domain.parameter_blocks import Report
from llmbatch_assets.domain.report.charts import charts, histogram, history_charts, latency_chart, quantile
from llmbatch_assets.domain.report.findings import Findings, gather
from llmbatch_assets.domain.report.items import NO_GROUP, SHORT_CHARS, ItemRow, SampleChooser, reasons_of, sample_of
from llmbatch_assets.domain.report.page import MOST_GROUPS, About, data_quality, report_page
from llmbatch_assets.domain.report.value_counts import (
    EMPTY_VALUE,
    CountedColumn,
    TextCounter,
    ValueCount,
    ValueCounter,
    counted_columns,
)
from llmbatch_assets.domain.usage import TokenUsage
from llmbatch_assets.errors import ConfigError
from llmbatch_assets_tests.domain.strategies import make_failure, make_item, make_output, quick

ENDS = st.lists(st.tuples(st.sampled_from(["red", "blue", None]), st.sampled_from(["accepted", "failed", "missing"])))
NOTHING = About("T", {"f": 1}, "0", "$0.00", {"b": 1, "a": 2}, data_quality({}, (), Findings(Report())), ())


def findings(ends: Sequence[tuple[str | None, str]], samples: int = 2, examples: int = 2, **more: Any) -> Findings:
    """Items of which each ended so."""
    items = [make_item(number, group) for number, (group, _) in enumerate(ends)]
    end_of = {item.work_id: end for item, (_, end) in zip(items, ends, strict=True)}

    def output_of(item: WorkItem) -> Any:
        return make_output(item) if end_of[item.work_id] == "accepted" else None

    def failures_of(item: WorkItem) -> list[FailedAttempt]:
        return [make_failure(item)] if end_of[item.work_id] == "failed" else []

    settings = Report(sample_per_group=samples, max_reason_examples=examples)
    rows: list[ItemRow] = []
    found = gather(Findings(settings, **more), items, output_of, failures_of, rows.append)
    assert [row.end for row in rows] == [end for _, end in ends]
    return found


# One pass.


@quick
@given(ENDS, st.integers(0, 3), st.integers(0, 3))
def test_every_item_is_counted_once_and_examples_keep_their_limits(
    ends: list[tuple[str | None, str]], samples: int, examples: int
) -> None:
    found = findings(ends, samples, examples)
    states = [end for _, end in ends]
    counts = {state: states.count(state) for state in ("accepted", "failed", "missing")}
    assert found.counts() == {"items": len(ends), **counts}
    lines = found.groups.top(10).shown
    assert [line.value for line in lines] == list(dict.fromkeys(group or NO_GROUP for group, _ in ends))
    assert sum(line.accepted for line in lines) == sum(found.attempts.values()) == counts["accepted"]
    picked = found.samples.items()
    for line in lines:
        shown = [item for item in picked if (item.group_key or NO_GROUP) == line.value]
        assert len(shown) == min(samples, line.accepted)
    for cause in found.causes():
        assert cause.n_items == cause.n_attempts == counts["failed"]
        assert len(cause.examples) == min(examples, counts["failed"])
    usage = found.usage
    assert (usage.requests, usage.input_tokens, usage.output_tokens) == tuple(
        each * counts["accepted"] for each in (2, 10, 5)
    )


def test_a_group_without_a_name_is_not_taken_for_the_whole_table() -> None:
    (line,) = findings([("", "accepted")]).groups.top(1).shown
    assert line.value != NO_GROUP


def test_an_item_with_an_output_is_accepted_whatever_failed_before() -> None:
    item = make_item(1)
    failures = [make_failure(item, "not_json"), make_failure(item, "judge_rejected", judge={"reasons": ["too long"]})]
    found = gather(Findings(Report()), [item], make_output, lambda _: failures)
    assert found.counts() == {"items": 1, "accepted": 1, "failed": 0, "missing": 0}
    assert [(cause.cause, cause.n_items, cause.n_attempts) for cause in found.causes()] == [
        ("judge_rejected", 0, 1),
        ("not_json", 0, 1),
    ]
    assert [told.text for told in found.rejections.top(5)] == ["too long"]


def test_the_cause_of_most_failed_items_comes_first_and_names_files_to_open() -> None:
    found = Findings(Report(max_reason_examples=1))
    for number, cause in enumerate(["a_rare", "c_often", "b_often", "c_often", "b_often"]):
        found.add(make_item(number), None, [make_failure(make_item(number), cause)])
    causes = found.causes()
    assert [(cause.cause, cause.n_items) for cause in causes] == [("b_often", 2), ("c_often", 2), ("a_rare", 1)]
    failure = make_failure(make_item(2), "b_often")
    (example,) = causes[0].examples
    assert example.artifact == f"{failure.meta['cache_id']}__a1.json"
    assert example.message == failure.error["message"]


def test_a_cost_that_is_not_known_of_one_output_is_not_known_of_all() -> None:
    found = Findings(Report())
    for number, cost in enumerate([0.25, None]):
        item = make_item(number)
        found.add(item, make_output(item, usage=TokenUsage(requests=1, cost_usd=cost)), [])
    assert found.usage.cost_usd is None
    assert found.costs == [0.25]


# Counts by value.


def test_long_lists_show_the_worst_and_sum_up_the_rest() -> None:
    counts = ValueCounter()
    for number in range(10):
        counts.add(f"v{number}", "accepted", 5)
    counts.add("v7", "failed", 2)
    lines = counts.top(3, lambda line: -line.open)
    assert [line.value for line in lines.shown] == ["v7", "v0", "v1"]
    assert lines.rest == ValueCount("", 35, 0, 0)
    assert lines.n_rest == 7


def test_counts_stay_bounded_and_still_add_up() -> None:
    counts, texts = ValueCounter(limit=2), TextCounter(1, limit=2)
    for value in "abcabca":
        counts.add(value, "accepted")
        texts.add([value], "item")
    assert counts.total("accepted") == 7
    assert counts.top(9).rest.accepted == 2
    assert [(told.text, told.times) for told in texts.top(9)] == [("a", 3), ("b", 2)]
    assert texts.beyond == 2


def test_columns_and_fields_are_counted_each_its_own_way() -> None:
    rows = [{"team": "red"}, {"team": ""}, {"team": "red"}]
    found = Findings(Report(), counted_columns(["team", "tags"], ["team"], ["answer", "tags"]), rows)
    shared = make_item(0, meta={"mode": "row_wise", "shared_row_indices": [2]})
    found.add(shared, make_output(shared, {"tags": ["x", "y"]}), [])
    found.add(make_item(1), None, [])
    team, tags = (column.values.top(9).shown for column in found.counted)
    assert team == [ValueCount("red", 2, 0, 0), ValueCount(EMPTY_VALUE, 0, 0, 1)]
    assert tags == [ValueCount("x", 1, 0, 0), ValueCount("y", 1, 0, 0)]


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, EMPTY_VALUE), ("", EMPTY_VALUE), ([], EMPTY_VALUE), (True, "true"), (0, "0"), ({"b": 1}, '{"b":1}')],
)
def test_a_value_of_a_field_is_shown_as_a_short_text(value: Any, shown: str) -> None:
    found, item = Findings(Report(), [CountedColumn("f", "output")]), make_item(0)
    found.add(item, make_output(item, {"f": value}), [])
    assert [line.value for line in found.counted[0].values.top(5).shown] == [shown]


def test_a_name_that_table_and_output_share_counts_both() -> None:
    assert counted_columns(["x", "x"], ["x"], ["x"]) == [CountedColumn("x", "input"), CountedColumn("x", "output")]


def test_unknown_names_are_all_told_with_near_ones() -> None:
    with pytest.raises(ConfigError) as told:
        counted_columns(["Skil", "zzz"], ["Skill"], ["answer"])
    first, second = str(told.value).splitlines()
    assert "report.count_by" in first
    assert "'Skil'" in first
    assert "did you mean Skill?" in first
    assert "columns: Skill; fields: answer" in second


@pytest.mark.parametrize(
    ("judge", "reasons"),
    [
        (None, []),
        ({}, []),
        ({"reasons": "one"}, ["one"]),
        ({"reasons": ["a\n b", "", 3]}, ["a b", "3"]),
        ({"reasons": {"x": 1}}, ["{'x': 1}"]),
    ],
)
def test_reasons_are_read_however_a_judge_gives_them(judge: Any, reasons: list[str]) -> None:
    assert reasons_of(judge) == reasons


# Samples.


def test_samples_do_not_depend_on_the_order_of_the_items_and_hold_back_where_there_are_too_many() -> None:
    items = [make_item(number, f"g{number % 5}") for number in range(50)]
    picked = []
    for order in (items, items[::-1]):
        chooser = SampleChooser(per_group=3, most=10)
        for item in order:
            chooser.add(item)
        picked.append({item.work_id for item in chooser.items()})
    assert picked[0] == picked[1]
    assert len(picked[0]) == 10


def test_of_more_groups_than_there_is_room_for_not_the_first_ones_are_shown() -> None:
    chooser = SampleChooser(per_group=2, most=10)
    for number in range(200):
        chooser.add(make_item(number, f"g{number % 100}"))
    shown = [item.group_key for item in chooser.items()]
    places = [int(str(key)[1:]) for key in shown]
    assert len(set(shown)) == 10
    assert places == sorted(places)
    # The chance that ten of a hundred groups, drawn by lot, are all in one half is a thousandth of a half.
    assert places[0] < 50 <= places[-1]


@pytest.mark.parametrize("full", [True, False])
def test_a_long_output_is_shown_whole_or_by_its_beginning(full: bool) -> None:
    item = make_item(1, "red")
    sample = sample_of(item, make_output(item, {"answer": "x" * 1000}), full=full)
    assert (len(sample.output) > 1000) is full
    assert sample.output.endswith("}" if full else " …")
    assert full or len(sample.output) == SHORT_CHARS + 2
    assert (sample.group, sample.verdict, sample.context) == ("red", "PASS", "text 1")
    assert sample.artifact == f"{make_output(item).meta['cache_id']}.json"


# Numbers.


@pytest.mark.parametrize(
    ("numbers", "middle"), [([], None), ([3], 3), ([3, 1], 1), ([3, 1, 2], 2), ([4, 1, 3, 2], 2), ([0, 0], 0)]
)
def test_the_median_is_one_of_the_numbers(numbers: list[float], middle: float | None) -> None:
    assert quantile(numbers, 0.5) == middle


def test_the_mean_does_not_depend_on_the_order() -> None:
    numbers = [0.1] * 10 + [1e15, -1e15]
    means = [Findings(Report(), scores=scores).mean_score for scores in (numbers, numbers[::-1], [])]
    assert means[0] == means[1]
    assert means[2] is None


@quick
@given(
    st.lists(st.floats(-1e12, 1e12) | st.integers(-10, 10) | st.sampled_from([0.0, 1e-9]), min_size=1),
    st.sampled_from([(None, None), (0.0, 100.0), (0.0, None)]),
)
def test_a_histogram_holds_every_number_in_bins_that_join(
    numbers: list[float], ends: tuple[float | None, float | None]
) -> None:
    bins = histogram(numbers, *ends)
    assert sum(one.size for one in bins) == len(numbers)
    assert len(bins) <= 15
    for one, after in pairwise(bins):
        assert one.high in (after.low, one.low)
    width = (bins[0].high or 0) - bins[0].low
    assert bins[0].low <= min(numbers) + width * 1e-6


def test_a_few_far_outliers_share_the_last_bin() -> None:
    bins = histogram([number / 100 for number in range(500)] + [900.0], 0)
    assert bins[-1].high is None
    assert bins[-1].size >= 1
    assert len(bins) > 8


# The page.


def test_a_page_without_items_is_a_page() -> None:
    page = report_page(Findings(Report()), NOTHING, [])
    assert page.counts == {"items": 0, "accepted": 0, "failed": 0, "missing": 0}
    assert (page.charts, page.samples, page.latency, page.numbers["mean_judge_score"]) == ([], [], {}, None)


def test_a_page_holds_what_was_found() -> None:
    found = Findings(Report())
    for number, score in enumerate([90, 85, 0]):
        item = make_item(number)
        judge = {"score": score, "verdict": "PASS"}
        found.add(item, make_output(item, judge=judge, latency_sec=number + 0.5), [])
    found.add(make_item(9), make_output(make_item(9), judge=None, latency_sec=9.0), [])
    page = report_page(found, NOTHING, [])
    assert page.numbers == {"share_accepted": 1.0, "cost_usd": None, "tokens": 60, "mean_judge_score": 58.3}
    assert page.headline["Cost of accepted outputs"] == "unknown"
    assert page.headline["Total spent"] == "$0.00"
    assert page.latency["median"] == 1.5
    assert page.config == '{\n  "b": 1,\n  "a": 2\n}'
    assert {chart.name for chart in page.charts} == {"outcomes", "attempts", "scores", "tokens"}


def test_charts_add_up_to_the_accepted_items_and_say_so_in_words() -> None:
    found = findings([("red", "accepted")] * 7 + [(None, "failed")] * 2)
    drawn = {chart.name: chart for chart in charts(found)}
    for name in ("attempts", "scores", "tokens"):
        assert sum(bar.value for bar in drawn[name].bars) == 7
    assert [bar.value for bar in drawn["outcomes"].bars] == [7, 2, 0]
    assert "accepted: 7, failed: 2, not attempted: 0" in drawn["outcomes"].alt
    latency = latency_chart(found)
    assert latency is not None
    assert sum(bar.value for bar in latency.bars) == 7


def test_one_run_is_no_history() -> None:
    assert history_charts([]) == []


def test_many_groups_are_cut_short_and_still_add_up() -> None:
    found = findings([(f"g{number}", "accepted") for number in range(MOST_GROUPS + 5)] + [("bad", "failed")])
    groups = report_page(found, NOTHING, []).groups
    assert groups.shown[0].value == "bad"
    assert len(groups.shown) == MOST_GROUPS
    assert sum(line.total for line in groups.shown) + groups.rest.total == MOST_GROUPS + 6


def test_quality_tells_what_was_cleaned_and_what_was_warned_of() -> None:
    meta = {
        "input_path": "t.csv",
        "n_rows": 3,
        "warnings": ["2 rows are empty"],
        "cells_changed": {"trimmed": {"a": 1, "b": 5}, "new_kind": {"a": 2}},
    }
    told = data_quality(meta, ["an empty key"], Findings(Report()))
    assert told.warnings == ["2 rows are empty", "an empty key"]
    assert [(change.column, change.cells) for change in told.changes] == [("b", 5), ("a", 2), ("a", 1)]
    assert told.facts["Cells changed"] == 8
    assert told.changes[1].kind == "new_kind"
