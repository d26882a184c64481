"""The report's contents in the order in which people read them, for a template to lay out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from llmbatch_assets.domain.canonical import readable_json
from llmbatch_assets.domain.ledger import PastRun
from llmbatch_assets.domain.report.charts import Chart, charts, history_charts, latency_chart, latency_facts
from llmbatch_assets.domain.report.counted import ColumnCounts
from llmbatch_assets.domain.report.distribution import mean
from llmbatch_assets.domain.report.findings import Findings
from llmbatch_assets.domain.report.quality import Quality
from llmbatch_assets.domain.report.samples import Sample
from llmbatch_assets.domain.report.tallies import Line, Lines, TextCounts, Told
from llmbatch_assets.domain.usage import format_cost

MOST_GROUPS = 60
MOST_VALUES = 25
MOST_REASONS = 15


class About(NamedTuple):
    """What is known of the batch apart from its items."""

    title: str
    facts: dict[str, Any]
    calls: str
    spent: str
    config: dict[str, Any]
    quality: Quality
    runs: Sequence[PastRun]


class Reasons(NamedTuple):
    """The most frequent reasons, and how many different ones there are beside them."""

    told: list[Told]
    n_more: int

    @property
    def longest(self) -> int:
        return max((told.times for told in self.told), default=0)


class ValueCounts(NamedTuple):
    """The counts by one column; ``of_rows``: it is one of the table, whose rows are counted."""

    name: str
    of_rows: bool
    lines: Lines


def report_page(findings: Findings, about: About, samples: Sequence[Sample]) -> dict[str, Any]:
    """The values of the report's templates."""
    counts = findings.counts()
    return {
        "title": about.title,
        "counts": counts,
        "numbers": numbers(findings),
        "headline": headline(findings, about.spent),
        "facts": about.facts,
        "usage": usage_facts(findings) | {"all calls so far": about.calls},
        "groups": findings.groups.lines(
            MOST_GROUPS, _worst_first if len(findings.groups.counts) > MOST_GROUPS else None
        ),
        "charts": charts(findings),
        "latency": latency_facts(findings),
        "latency_chart": latency_chart(findings),
        "causes": findings.causes(),
        "rejections": _top(findings.rejections),
        "approvals": _top(findings.approvals),
        "counted": [_counted(column) for column in findings.counted],
        "samples": list(samples),
        "quality": about.quality,
        "runs": list(about.runs),
        "history_charts": history_charts(about.runs),
        "config": readable_json(about.config),
    }


def numbers(findings: Findings) -> dict[str, float | None]:
    """What can be plotted over time; None is not known, or has no meaning here."""
    counts, usage = findings.counts(), findings.usage
    score = mean(findings.scores)
    return {
        "share_accepted": round(counts["accepted"] / counts["items"], 4) if counts["items"] else None,
        "cost_usd": usage.cost_usd,
        "tokens": usage.input_tokens + usage.output_tokens,
        "mean_judge_score": None if score is None else round(score, 1),
    }


def headline(findings: Findings, spent: str) -> dict[str, str]:
    """The numbers that are looked at first; failed attempts have no output and yet cost something."""
    counts = findings.counts()
    told = {
        "accepted": f"{counts['accepted']:,}",
        "failed": f"{counts['failed']:,}",
        "not attempted": f"{counts['missing']:,}",
        "cost of the outputs": format_cost(findings.usage.cost_usd).removeprefix("cost "),
        "cost of all calls": spent.removeprefix("cost "),
        "tokens": f"{findings.usage.input_tokens + findings.usage.output_tokens:,}",
    }
    score = mean(findings.scores)
    return told if score is None else told | {"mean judge score": f"{score:.1f}"}


def usage_facts(findings: Findings) -> dict[str, str]:
    """What the accepted outputs took."""
    usage = findings.usage
    return {
        "requests": f"{usage.requests:,}",
        "input tokens (of them cached)": f"{usage.input_tokens:,} ({usage.cached_input_tokens:,})",
        "output tokens (of them reasoning)": f"{usage.output_tokens:,} ({usage.reasoning_tokens:,})",
        "cost of the accepted outputs": format_cost(usage.cost_usd),
    }


def all_charts(page: dict[str, Any]) -> list[Chart]:
    """Every chart of a page."""
    latency = page["latency_chart"]
    return [*page["charts"], *([latency] if latency else []), *page["history_charts"]]


def _worst_first(line: Line) -> int:
    return -line.open


def _most_first(line: Line) -> int:
    return -line.total


def _counted(column: ColumnCounts) -> ValueCounts:
    return ValueCounts(column.counted.name, column.counted.part == "input", column.ends.lines(MOST_VALUES, _most_first))


def _top(texts: TextCounts) -> Reasons:
    return Reasons(texts.top(MOST_REASONS), max(0, texts.n_texts - MOST_REASONS))
