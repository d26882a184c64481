"""The data of the report's charts. Adapters draw them."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from typing import Literal, NamedTuple

from llmbatch_assets.domain.report.findings import Findings
from llmbatch_assets.domain.run.ledger import PastRun

Tone = Literal["plain", "good", "bad", "open"]
MOST_ATTEMPTS = 10
_SCORE_SCALE = (0.0, 100.0)
# If any score is higher, scores are assumed to be out of 100. Otherwise, the scale follows the data.
_SMALL_SCALE = 10

MAX_BINS = 12
# A few extreme values would squeeze all others into one bin, so values far above this quantile share the last bin.
_TAIL_QUANTILE = 0.99
_TAIL_FACTOR = 2
# Tolerance for floating-point error.
_SLACK = 1e-9


class Bar(NamedTuple):
    """One bar of a chart."""

    label: str
    value: float
    tone: Tone = "plain"


class Chart(NamedTuple):
    """A bar chart. ``edges`` are the bin edges of a histogram; the last one is None if the last bin has no upper end."""

    name: str
    title: str
    x_label: str
    y_label: str
    bars: tuple[Bar, ...]
    edges: tuple[float | None, ...] | None = None

    @property
    def alt(self) -> str:
        """Alternative text with the value of every bar."""
        values = ", ".join(f"{bar.label}: {bar.value:,.6g}" for bar in self.bars)
        return f"{self.title}. {self.y_label} by {self.x_label}. {values}."

    @property
    def longest(self) -> float:
        return max((bar.value for bar in self.bars), default=0)


def charts(findings: Findings) -> list[Chart]:
    """All charts that are not empty, except latency and run history."""
    low, high = _SCORE_SCALE if max(findings.scores, default=0) > _SMALL_SCALE else (None, None)
    costs = findings.costs if any(findings.costs) else []
    drawn = [
        _outcome_chart(findings),
        Chart("attempts", "Attempts needed", "attempts", "accepted items", _attempt_bars(findings.attempts)),
        _histogram_chart("scores", "Judge scores", "score", histogram(findings.scores, low, high)),
        _histogram_chart("tokens", "Tokens per output", "input and output tokens", histogram(findings.tokens, 0)),
        _histogram_chart("cost", "Cost per output", "US dollars", histogram(costs, 0)),
    ]
    return [chart for chart in drawn if chart.longest]


def latency_chart(findings: Findings) -> Chart | None:
    """A histogram of latencies, which differ from run to run; None if there are none."""
    bins = histogram(findings.latencies, 0) if any(findings.latencies) else []
    return _histogram_chart("latency", "Latency of the accepted attempts", "seconds", bins) if bins else None


def latency_facts(findings: Findings) -> dict[str, float]:
    """Latency quantiles in seconds."""
    named = {"median": 0.5, "95th percentile": 0.95, "maximum": 1.0}
    found = {name: quantile(findings.latencies, share) for name, share in named.items()}
    return {name: seconds for name, seconds in found.items() if seconds is not None}


def history_charts(runs: Sequence[PastRun]) -> list[Chart]:
    """Acceptance and cost of the last runs; empty for fewer than two runs."""
    if len(runs) <= 1:
        return []
    share = tuple(Bar(run.run_id[:8], round(100 * (run.acceptance or 0), 1), "good") for run in runs)
    cost = tuple(Bar(run.run_id[:8], run.total.known_cost_usd or 0) for run in runs)
    drawn = [
        Chart("acceptance", "Accepted items after each run", "run", "percent", share),
        Chart("run_cost", "Cost of each run", "run", "US dollars", cost),
    ]
    return [chart for chart in drawn if chart.longest]


def _outcome_chart(findings: Findings) -> Chart:
    counts = findings.counts()
    bars = (
        Bar("accepted", counts["accepted"], "good"),
        Bar("failed", counts["failed"], "bad"),
        Bar("not attempted", counts["missing"], "open"),
    )
    return Chart("outcomes", "Outcomes", "outcome", "items", bars)


def _attempt_bars(counts: Counter[int]) -> tuple[Bar, ...]:
    bars = tuple(Bar(str(number), count) for number, count in sorted(counts.items()) if number <= MOST_ATTEMPTS)
    more = sum(count for number, count in counts.items() if number > MOST_ATTEMPTS)
    return (*bars, Bar(f"over {MOST_ATTEMPTS}", more)) if more else bars


def _histogram_chart(name: str, title: str, unit: str, bins: Sequence[Bin]) -> Chart:
    bars = tuple(Bar(one.label, one.size) for one in bins)
    is_single_values = all(one.low == one.high for one in bins)
    edges = None if is_single_values else (*(one.low for one in bins), bins[-1].high)
    return Chart(name, title, unit, "accepted items", bars, edges)


class Bin(NamedTuple):
    """The number of values from ``low`` up to ``high``, which belongs to the next bin if there is one.

    If both are equal, the bin holds that single value. If ``high`` is None, there is no upper end.
    """

    low: float
    high: float | None
    size: int

    @property
    def label(self) -> str:
        if self.high is None:
            return f"{self.low:,.6g} and more"
        return f"{self.low:,.6g}" if self.low == self.high else f"{self.low:,.6g} to {self.high:,.6g}"


def quantile(numbers: Sequence[float], share: float) -> float | None:
    """The nearest-rank quantile: the smallest number that at least this share of the numbers does not exceed."""
    if not numbers:
        return None
    return sorted(numbers)[max(0, math.ceil(share * len(numbers)) - 1)]


def histogram(numbers: Sequence[float], low: float | None = None, high: float | None = None) -> list[Bin]:
    """About a dozen bins with round edges for all finite numbers, covering ``low`` to ``high`` at least.

    A small range of integers gets one bin per value.
    """
    finite = sorted(number for number in numbers if math.isfinite(number))
    if not finite:
        return []
    first = finite[0] if low is None else min(low, finite[0])
    last = finite[-1] if high is None else max(high, finite[-1])
    if last - first < MAX_BINS and all(number == int(number) for number in finite):
        counts = Counter(finite)
        return [Bin(number, number, counts[number]) for number in range(int(finite[0]), int(finite[-1]) + 1)]
    tail = quantile(finite, _TAIL_QUANTILE) or 0
    has_tail = high is None and last - first > _TAIL_FACTOR * (tail - first) > 0
    return _filled_bins(_round_edges(first, tail if has_tail else last), finite, has_tail=has_tail)


def _round_edges(first: float, last: float) -> list[float]:
    step = _round_up((last - first) / (MAX_BINS - 2) or abs(last) or 1)
    start = math.floor(first / step + _SLACK)
    stop = max(start + 1, math.ceil(last / step - _SLACK))
    return [float(f"{place * step:.12g}") for place in range(start, stop + 1)]


def _round_up(step: float) -> float:
    """The next larger number of the form 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * (1 - _SLACK))


def _filled_bins(edges: Sequence[float], numbers: Sequence[float], *, has_tail: bool) -> list[Bin]:
    # Unless the last bin is open-ended, it includes the last edge.
    last = len(edges) - (1 if has_tail else 2)
    counts = Counter(min(last, max(0, bisect_right(edges, number) - 1)) for number in numbers)
    highs = [*edges[1:], None] if has_tail else edges[1:]
    return [Bin(low, high, counts[place]) for place, (low, high) in enumerate(zip(edges, highs, strict=False))]
