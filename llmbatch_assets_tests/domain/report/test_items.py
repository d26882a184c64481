"""Sample outputs and judges' reasons in the report."""

from __future__ import annotations

from typing import Any

import pytest

from llmbatch_assets.domain.report.items import SHORT_CHARS, SampleChooser, reasons_of, sample_of
from llmbatch_assets_tests.domain.strategies import make_item, make_output


def test_samples_are_limited_and_do_not_depend_on_the_order_of_the_items() -> None:
    items = [make_item(number, f"g{number % 5}") for number in range(50)]
    picked = []
    for order in (items, items[::-1]):
        chooser = SampleChooser(per_group=3, most=10)
        for item in order:
            chooser.add(item)
        picked.append({item.work_id for item in chooser.items()})
    assert picked[0] == picked[1]
    assert len(picked[0]) == 10


def test_if_there_are_too_many_groups_samples_are_not_all_from_the_first_ones() -> None:
    chooser = SampleChooser(per_group=2, most=10)
    for number in range(200):
        chooser.add(make_item(number, f"g{number % 100}"))
    shown = [item.group_key for item in chooser.items()]
    places = [int(str(key)[1:]) for key in shown]
    assert len(set(shown)) == 10
    assert places == sorted(places)
    # The chance that ten random groups of a hundred are all in the same half is about 0.1 %.
    assert places[0] < 50 <= places[-1]


@pytest.mark.parametrize("full", [True, False])
def test_a_long_output_is_shown_in_full_or_shortened(full: bool) -> None:
    item = make_item(1, "red")
    sample = sample_of(item, make_output(item, {"answer": "x" * 1000}), full=full)
    assert (len(sample.output) > 1000) is full
    assert sample.output.endswith("}" if full else " …")
    assert full or len(sample.output) == SHORT_CHARS + 2
    assert (sample.group, sample.verdict, sample.context) == ("red", "PASS", "text 1")
    assert sample.artifact == f"{make_output(item).meta['cache_id']}.json"


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
def test_reasons_are_read_in_any_form_a_judge_gives_them(judge: Any, reasons: list[str]) -> None:
    assert reasons_of(judge) == reasons
