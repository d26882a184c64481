"""The report's page: the same counts everywhere, and long lists cut short."""

from __future__ import annotations

from llmbatch_assets.domain.configuration.output_blocks import Report
from llmbatch_assets.domain.report.findings import Findings
from llmbatch_assets.domain.report.page import MOST_GROUPS, About, data_quality, report_page
from llmbatch_assets_tests.domain.strategies import make_findings, make_item, make_output

ABOUT = About("T", {"f": 1}, "0", "$0.00", {"b": 1, "a": 2}, data_quality({}, (), Findings(Report())), ())


def test_a_page_shows_the_findings() -> None:
    found = Findings(Report())
    for number, score in enumerate([90, 85, 0]):
        item = make_item(number)
        judge = {"score": score, "verdict": "PASS"}
        found.add(item, make_output(item, judge=judge, latency_sec=number + 0.5), [])
    found.add(make_item(9), make_output(make_item(9), judge=None, latency_sec=9.0), [])
    page = report_page(found, ABOUT, [])
    assert page.numbers == {"share_accepted": 1.0, "cost_usd": None, "tokens": 60, "judge_score_mean": 58.3}
    assert page.headline["Cost of accepted outputs"] == "unknown"
    assert page.headline["Total spent"] == "$0.00"
    assert page.latency["median"] == 1.5
    assert page.config == '{\n  "b": 1,\n  "a": 2\n}'
    assert {chart.name for chart in page.charts} == {"outcomes", "attempts", "scores", "tokens"}


def test_many_groups_are_summed_up_worst_first() -> None:
    found = make_findings([(f"g{number}", "accepted") for number in range(MOST_GROUPS + 5)] + [("bad", "failed")])
    groups = report_page(found, ABOUT, []).groups
    assert groups.shown[0].value == "bad"
    assert len(groups.shown) == MOST_GROUPS
    assert sum(line.total for line in groups.shown) + groups.rest.total == MOST_GROUPS + 6


def test_data_quality_lists_changes_and_warnings() -> None:
    meta = {
        "input_path": "t.csv",
        "n_rows": 3,
        "warnings": ["2 rows are empty"],
        "cells_changed": {"trimmed": {"a": 1, "b": 5}, "new_kind": {"a": 2}},
    }
    quality = data_quality(meta, ["an empty key"], Findings(Report()))
    assert quality.warnings == ["2 rows are empty", "an empty key"]
    assert [(change.column, change.cells) for change in quality.changes] == [("b", 5), ("a", 2), ("a", 1)]
    assert quality.facts["Cells changed"] == 8
    assert quality.changes[1].kind == "new_kind"


def test_a_page_without_items_has_no_charts_or_samples() -> None:
    page = report_page(Findings(Report()), ABOUT, [])
    assert page.counts == {"items": 0, "accepted": 0, "failed": 0, "missing": 0}
    assert (page.charts, page.samples, page.latency, page.numbers["judge_score_mean"]) == ([], [], {}, None)
