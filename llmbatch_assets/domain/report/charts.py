"""Which charts the report has, as numbers with names: how they are drawn is decided elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from llmbatch_assets.domain.ledger import PastRun
from llmbatch_assets.domain.report.distribution import Bin, histogram, quantile
from llmbatch_assets.domain.report.findings import Findings

Tone = Literal["plain", "good", "bad", "open"]
MOST_ATTEMPTS = 10
_SCORE_SCALE = (0.0, 100.0)
# Scores above this are taken for points of a hundred; smaller ones have a scale of their own.
_SMALL_SCALE = 10


class Bar(NamedTuple):
    """One bar: its name, its length, its colour."""

    label: str
    value: float
    tone: Tone = "plain"


class Chart(NamedTuple):
    """A bar chart. ``edges`` are those of a histogram's bins, the last one None where it has no end.

    They are None where bars stand for themselves.
    """

    name: str
    title: str
    x_label: str
    y_label: str
    bars: tuple[Bar, ...]
    edges: tuple[float | None, ...] | None = None

    @property
    def alt(self) -> str:
        """The chart in words: every bar."""
        told = ", ".join(f"{bar.label}: {bar.value:,.6g}" for bar in self.bars)
        return f"{self.title}. {self.y_label} by {self.x_label}. {told}."

    @property
    def longest(self) -> float:
        return max((bar.value for bar in self.bars), default=0)


def outcome_chart(findings: Findings) -> Chart:
    """How the items ended."""
    counts = findings.counts()
    bars = (
        Bar("accepted", counts["accepted"], "good"),
        Bar("failed", counts["failed"], "bad"),
        Bar("not attempted", counts["missing"], "open"),
    )
    return Chart("outcomes", "Outcomes", "outcome", "items", bars)


def charts(findings: Findings) -> list[Chart]:
    """The charts of what was found, without those that would be empty."""
    scores = findings.scores
    low, high = _SCORE_SCALE if max(scores, default=0) > _SMALL_SCALE else (None, None)
    drawn = [
        outcome_chart(findings),
        Chart("attempts", "Attempts needed", "attempts", "accepted items", _attempt_bars(findings)),
        _histogram("scores", "Judge scores", "score", histogram(scores, low, high)),
        _histogram("tokens", "Tokens per output", "input and output tokens", histogram(findings.tokens, 0)),
        _histogram(
            "cost", "Cost per output", "US dollars", histogram(findings.costs, 0) if any(findings.costs) else []
        ),
    ]
    return [chart for chart in drawn if chart.longest]


def latency_chart(findings: Findings) -> Chart | None:
    """How long answers took, which differs from run to run."""
    bins = histogram(findings.latencies, 0) if any(findings.latencies) else []
    return _histogram("latency", "Latency of the accepted attempts", "seconds", bins) if bins else None


def latency_facts(findings: Findings) -> dict[str, float]:
    """Quantiles of the latency, in seconds."""
    named = {"median": 0.5, "95 of 100 below": 0.95, "longest": 1.0}
    found = {name: quantile(findings.latencies, share) for name, share in named.items()}
    return {name: seconds for name, seconds in found.items() if seconds is not None}


def history_charts(runs: Sequence[PastRun]) -> list[Chart]:
    """Acceptance and cost of the last runs; a single run is no history."""
    if len(runs) <= 1:
        return []
    share = tuple(Bar(_short(run), round(100 * (run.acceptance or 0), 1), "good") for run in runs)
    cost = tuple(Bar(_short(run), run.total.known_cost_usd or 0) for run in runs)
    drawn = [
        Chart("acceptance", "Items with an output after each run", "run", "percent", share),
        Chart("run_cost", "Cost of each run", "run", "US dollars", cost),
    ]
    return [chart for chart in drawn if chart.longest]


def _short(run: PastRun) -> str:
    return run.run_id[:8]


def _attempt_bars(findings: Findings) -> tuple[Bar, ...]:
    counts = findings.attempts
    bars = tuple(Bar(str(number), count) for number, count in sorted(counts.items()) if number <= MOST_ATTEMPTS)
    more = sum(count for number, count in counts.items() if number > MOST_ATTEMPTS)
    return (*bars, Bar(f"over {MOST_ATTEMPTS}", more)) if more else bars


def _histogram(name: str, title: str, unit: str, bins: Sequence[Bin]) -> Chart:
    bars = tuple(Bar(one.label, one.size) for one in bins)
    if all(one.low == one.high for one in bins):
        return Chart(name, title, unit, "accepted items", bars)
    return Chart(name, title, unit, "accepted items", bars, (*(one.low for one in bins), bins[-1].high))
