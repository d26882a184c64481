"""What a report says: every item once, the same counts everywhere, and examples within their limits."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbatch_assets.domain.outcome import TokenUsage
from llmbatch_assets.domain.report import NO_GROUP, SHORT_CHARS, Findings, gather, median, report_page
from llmbatch_assets.domain.work import WorkItem
from llmbatch_assets_tests.domain.strategies import make_failure, make_item, make_output, quick

ENDS = st.lists(st.tuples(st.sampled_from(["red", "blue", None]), st.sampled_from(["accepted", "failed", "missing"])))


def findings(ends: list[tuple[str | None, str]], samples: int = 2, examples: int = 2, full: bool = True) -> Findings:
    """Items of which each ended so."""
    items = [make_item(number, group) for number, (group, _) in enumerate(ends)]
    end_of = {item.work_id: end for item, (_, end) in zip(items, ends, strict=True)}

    def output_of(item: WorkItem) -> Any:
        return make_output(item) if end_of[item.work_id] == "accepted" else None

    def failure_of(item: WorkItem) -> Any:
        return make_failure(item) if end_of[item.work_id] == "failed" else None

    return gather(Findings(samples, examples, full), items, output_of, failure_of)


@quick
@given(ENDS, st.integers(0, 3), st.integers(0, 3))
def test_every_item_is_counted_once_and_examples_keep_their_limits(
    ends: list[tuple[str | None, str]], samples: int, examples: int
) -> None:
    found = findings(ends, samples, examples)
    states = [end for _, end in ends]
    counts = {state: states.count(state) for state in ("accepted", "failed", "missing")}
    assert found.counts() == {"items": len(ends), **counts}
    lines = found.group_lines()
    assert [line.group for line in lines] == list(dict.fromkeys(group or NO_GROUP for group, _ in ends))
    assert sum(line.accepted for line in lines) == sum(found.attempts.values()) == counts["accepted"]
    for line in lines:
        shown = [sample for sample in found.samples if sample.group == line.group]
        assert len(shown) == min(samples, line.accepted)
    for cause in found.failure_causes():
        assert cause.n_items == counts["failed"]
        assert len(cause.examples) == min(examples, counts["failed"])
    assert found.usage == TokenUsage(
        requests=2 * counts["accepted"], input_tokens=10 * counts["accepted"], output_tokens=5 * counts["accepted"]
    )


def test_a_group_without_a_name_is_not_taken_for_the_whole_table() -> None:
    (line,) = findings([("", "accepted")]).group_lines()
    assert line.group != NO_GROUP


def test_an_item_with_an_output_is_accepted_whatever_failed_before() -> None:
    item = make_item(1)
    found = gather(Findings(1, 1, True), [item], make_output, make_failure)
    assert found.counts() == {"items": 1, "accepted": 1, "failed": 0, "missing": 0}
    assert found.failure_causes() == []


def test_the_most_frequent_cause_comes_first_and_names_files_to_open() -> None:
    found = Findings(0, 1, True)
    for number, cause in enumerate(["a_rare", "c_often", "b_often", "c_often", "b_often"]):
        found.add_failed(make_item(number), make_failure(make_item(number), cause))
    causes = found.failure_causes()
    assert [(cause.cause, cause.n_items) for cause in causes] == [("b_often", 2), ("c_often", 2), ("a_rare", 1)]
    failure = make_failure(make_item(2), "b_often")
    (example,) = causes[0].examples
    assert example.artifact == f"{failure.meta['cache_id']}__a1.json"
    assert example.message == failure.error["message"]


@pytest.mark.parametrize("full", [True, False])
def test_a_long_output_is_shown_whole_or_by_its_beginning(full: bool) -> None:
    item, found = make_item(1, "red"), Findings(1, 0, full)
    found.add_accepted(item, make_output(item, {"answer": "x" * 1000}))
    (sample,) = found.samples
    assert (len(sample.output) > 1000) is full
    assert sample.output.endswith("}" if full else " …")
    assert full or len(sample.output) == SHORT_CHARS + 2
    assert (sample.group, sample.verdict, sample.context) == ("red", "PASS", "text 1")
    assert sample.artifact == f"{make_output(item).meta['cache_id']}.json"


def test_a_short_output_is_always_shown_whole() -> None:
    item, found = make_item(1), Findings(1, 0, full_examples=False)
    found.add_accepted(item, make_output(item, {"a": 1}))
    assert found.samples[0].output == '{\n  "a": 1\n}'


@pytest.mark.parametrize(
    ("numbers", "middle"), [([], None), ([3], 3), ([3, 1], 1), ([3, 1, 2], 2), ([4, 1, 3, 2], 2), ([0, 0], 0)]
)
def test_the_median_is_one_of_the_numbers(numbers: list[float], middle: float | None) -> None:
    assert median(numbers) == middle


def page(found: Findings) -> dict[str, Any]:
    """The page of these findings."""
    return report_page(found, title="T", config={"b": 1, "a": 2}, facts={"f": 1}, pointers={"p": "q"})


def test_a_page_without_items_is_a_page() -> None:
    empty = page(Findings(1, 1, True))
    assert empty["counts"] == {"items": 0, "accepted": 0, "failed": 0, "missing": 0}
    assert (empty["judge_mean"], empty["latency_median"], empty["groups"], empty["samples"]) == (None, None, [], [])


def test_a_page_holds_what_was_found() -> None:
    found = Findings(1, 1, True)
    for number, score in enumerate([90, 85, 0]):
        item = make_item(number)
        found.add_accepted(item, make_output(item, judge={"score": score, "verdict": "PASS"}, latency_sec=number + 0.5))
    found.add_accepted(make_item(9), make_output(make_item(9), judge=None, latency_sec=9.0))
    shown = page(found)
    assert (shown["title"], shown["facts"], shown["pointers"]) == ("T", {"f": 1}, {"p": "q"})
    assert shown["judge_mean"] == 58.3
    assert shown["latency_median"] == 1.5
    assert shown["attempts"] == [(1, 4)]
    assert shown["config"] == '{\n  "b": 1,\n  "a": 2\n}'
