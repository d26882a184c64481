"""Findings count every item once, and their examples stay within limits."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llmbatch_assets.domain.configuration.output_blocks import Report
from llmbatch_assets.domain.report.findings import Findings
from llmbatch_assets.domain.report.items import NO_GROUP
from llmbatch_assets.domain.report.value_counts import (
    EMPTY_VALUE,
    ValueCount,
    counted_columns,
)
from llmbatch_assets.domain.usage import TokenUsage
from llmbatch_assets_tests.domain.strategies import make_failure, make_findings, make_item, make_output, quick

ENDS = st.lists(st.tuples(st.sampled_from(["red", "blue", None]), st.sampled_from(["accepted", "failed", "missing"])))


@quick
@given(ENDS, st.integers(0, 3), st.integers(0, 3))
def test_every_item_is_counted_once_and_examples_keep_their_limits(
    ends: list[tuple[str | None, str]], samples: int, examples: int
) -> None:
    found = make_findings(ends, samples, examples)
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


def test_an_empty_group_key_is_not_shown_as_all_rows() -> None:
    (line,) = make_findings([("", "accepted")]).groups.top(1).shown
    assert line.value != NO_GROUP


def test_an_item_with_an_output_is_accepted_despite_earlier_failures() -> None:
    item = make_item(1)
    failures = [make_failure(item, "not_json"), make_failure(item, "judge_rejected", judge={"reasons": ["too long"]})]
    found = Findings(Report())
    found.add(item, make_output(item), failures)
    assert found.counts() == {"items": 1, "accepted": 1, "failed": 0, "missing": 0}
    assert [(cause.cause, cause.n_items, cause.n_attempts) for cause in found.causes()] == [
        ("judge_rejected", 0, 1),
        ("not_json", 0, 1),
    ]
    assert [one.text for one in found.rejections.top(5)] == ["too long"]


def test_the_cause_with_most_failed_items_comes_first_and_its_examples_name_their_files() -> None:
    found = Findings(Report(max_reason_examples=1))
    for number, cause in enumerate(["a_rare", "c_often", "b_often", "c_often", "b_often"]):
        found.add(make_item(number), None, [make_failure(make_item(number), cause)])
    causes = found.causes()
    assert [(cause.cause, cause.n_items) for cause in causes] == [("b_often", 2), ("c_often", 2), ("a_rare", 1)]
    failure = make_failure(make_item(2), "b_often")
    (example,) = causes[0].examples
    assert example.artifact == f"{failure.meta['cache_id']}__a1.json"
    assert example.message == failure.error["message"]


def test_one_output_of_unknown_cost_makes_the_total_unknown() -> None:
    found = Findings(Report())
    for number, cost in enumerate([0.25, None]):
        item = make_item(number)
        found.add(item, make_output(item, usage=TokenUsage(requests=1, cost_usd=cost)), [])
    assert found.usage.cost_usd is None
    assert found.costs == [0.25]


def test_columns_count_rows_and_fields_count_list_elements() -> None:
    rows = [{"team": "red"}, {"team": ""}, {"team": "red"}]
    found = Findings(Report(), counted_columns(["team", "tags"], ["team"], ["answer", "tags"]), rows)
    shared = make_item(0, meta={"mode": "row_wise", "shared_row_indices": [2]})
    found.add(shared, make_output(shared, {"tags": ["x", "y"]}), [])
    found.add(make_item(1), None, [])
    team, tags = (column.values.top(9).shown for column in found.counted)
    assert team == [ValueCount("red", 2, 0, 0), ValueCount(EMPTY_VALUE, 0, 0, 1)]
    assert tags == [ValueCount("x", 1, 0, 0), ValueCount("y", 1, 0, 0)]


def test_the_mean_does_not_depend_on_the_order() -> None:
    numbers = [0.1] * 10 + [1e15, -1e15]
    means = [Findings(Report(), scores=scores).mean_score for scores in (numbers, numbers[::-1], [])]
    assert means[0] == means[1]
    assert means[2] is None
