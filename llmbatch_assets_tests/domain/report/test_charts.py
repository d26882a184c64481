"""Charts: histograms that lose no number, and bars that add up to the items."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbatch_assets.domain.report.charts import charts, histogram, history_charts, latency_chart, quantile
from llmbatch_assets_tests.domain.strategies import make_findings, quick


@quick
@given(
    st.lists(st.floats(-1e12, 1e12) | st.integers(-10, 10) | st.sampled_from([0.0, 1e-9]), min_size=1),
    st.sampled_from([(None, None), (0.0, 100.0), (0.0, None)]),
)
def test_a_histogram_holds_every_number_in_adjoining_bins(
    numbers: list[float], ends: tuple[float | None, float | None]
) -> None:
    bins = histogram(numbers, *ends)
    assert sum(one.size for one in bins) == len(numbers)
    assert len(bins) <= 15
    for one, after in pairwise(bins):
        assert one.high in (after.low, one.low)
    width = (bins[0].high or 0) - bins[0].low
    assert bins[0].low <= min(numbers) + width * 1e-6


def test_a_few_outliers_share_the_last_bin() -> None:
    bins = histogram([number / 100 for number in range(500)] + [900.0], 0)
    assert bins[-1].high is None
    assert bins[-1].size >= 1
    assert len(bins) > 8


@pytest.mark.parametrize(
    ("numbers", "middle"), [([], None), ([3], 3), ([3, 1], 1), ([3, 1, 2], 2), ([4, 1, 3, 2], 2), ([0, 0], 0)]
)
def test_the_median_is_one_of_the_numbers(numbers: list[float], middle: float | None) -> None:
    assert quantile(numbers, 0.5) == middle


def test_charts_add_up_to_the_accepted_items_and_have_alternative_text() -> None:
    found = make_findings([("red", "accepted")] * 7 + [(None, "failed")] * 2)
    drawn = {chart.name: chart for chart in charts(found)}
    for name in ("attempts", "scores", "tokens"):
        assert sum(bar.value for bar in drawn[name].bars) == 7
    assert [bar.value for bar in drawn["outcomes"].bars] == [7, 2, 0]
    assert "accepted: 7, failed: 2, not attempted: 0" in drawn["outcomes"].alt
    latency = latency_chart(found)
    assert latency is not None
    assert sum(bar.value for bar in latency.bars) == 7


def test_no_runs_make_no_history_charts() -> None:
    assert history_charts([]) == []
