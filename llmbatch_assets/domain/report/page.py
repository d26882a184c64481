"""The contents of the report in reading order, laid out by the templates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from llmbatch_assets.domain.canonical import readable_json
from llmbatch_assets.domain.report.charts import Chart, charts, history_charts, latency_chart, latency_facts
from llmbatch_assets.domain.report.findings import CauseSummary, Findings
from llmbatch_assets.domain.report.items import Sample
from llmbatch_assets.domain.report.value_counts import ColumnCounter, TextCount, TextCounter, ValueCounts
from llmbatch_assets.domain.run.ledger import PastRun
from llmbatch_assets.domain.usage import format_cost

MOST_GROUPS = 60
MOST_VALUES = 25
MOST_REASONS = 15
MOST_CHANGES = 100
MOST_WARNINGS = 50

_CHANGE_KINDS = {
    "null_token": "null values such as N/A emptied",
    "trimmed": "leading or trailing spaces removed",
    "line_breaks": "line breaks and tabs replaced by a space",
    "invisible": "invisible or look-alike characters normalized",
    "unescaped": "escaped delimiters unescaped",
}


class CellChange(NamedTuple):
    """The number of cells of a column that were changed in one way."""

    kind: str
    column: str
    cells: int


class DataQuality(NamedTuple):
    """Changes to the table, and warnings. ``more_cells`` counts changed cells beyond the listed changes."""

    facts: dict[str, Any]
    changes: list[CellChange]
    more_cells: int
    warnings: list[str]


class About(NamedTuple):
    """Facts about the batch that do not come from its items."""

    title: str
    facts: dict[str, Any]
    calls: str
    spent: str
    config: dict[str, Any]
    quality: DataQuality
    runs: Sequence[PastRun]


class TopReasons(NamedTuple):
    """The most frequent reasons, and the number of further ones."""

    counts: list[TextCount]
    n_more: int

    @property
    def longest(self) -> int:
        return max((one.times for one in self.counts), default=0)


class ColumnCounts(NamedTuple):
    """The value counts of a column, over table rows if ``of_rows``, else over accepted outputs."""

    name: str
    of_rows: bool
    values: ValueCounts


class ReportPage(NamedTuple):
    """The values that the templates use, by name."""

    about: About
    counts: dict[str, int]
    numbers: dict[str, float | None]
    headline: dict[str, str]
    usage: dict[str, str]
    groups: ValueCounts
    charts: list[Chart]
    latency: dict[str, float]
    latency_chart: Chart | None
    causes: list[CauseSummary]
    rejections: TopReasons
    approvals: TopReasons
    counted: list[ColumnCounts]
    sample_per_group: int
    samples: Sequence[Sample]
    history_charts: list[Chart]
    config: str

    @property
    def all_charts(self) -> list[Chart]:
        return [*self.charts, *([self.latency_chart] if self.latency_chart else []), *self.history_charts]


def report_page(findings: Findings, about: About, samples: Sequence[Sample]) -> ReportPage:
    worst_first = (lambda group: -group.open) if len(findings.groups.counts) > MOST_GROUPS else None
    return ReportPage(
        about=about,
        counts=findings.counts(),
        numbers=_numbers(findings),
        headline=_headline(findings, about.spent),
        usage=_usage_facts(findings) | {"All calls": about.calls},
        groups=findings.groups.top(MOST_GROUPS, worst_first),
        charts=charts(findings),
        latency=latency_facts(findings),
        latency_chart=latency_chart(findings),
        causes=findings.causes(),
        rejections=_top(findings.rejections),
        approvals=_top(findings.approvals),
        counted=[_column_counts(column) for column in findings.counted],
        sample_per_group=findings.settings.sample_per_group,
        samples=samples,
        history_charts=history_charts(about.runs),
        config=readable_json(about.config),
    )


def data_quality(meta: Mapping[str, Any], plan_warnings: Sequence[str], findings: Findings) -> DataQuality:
    """Collect it from the snapshot's ``meta``, the plan's warnings and the items."""
    changes = [
        CellChange(_CHANGE_KINDS.get(kind, kind), column, cells)
        for kind, columns in meta.get("cells_changed", {}).items()
        for column, cells in columns.items()
    ]
    changes.sort(key=lambda change: -change.cells)
    facts = {
        "Table": meta.get("input_path", ""),
        "Format": meta.get("input_format", ""),
        "Rows": meta.get("n_rows", 0),
        "Columns": meta.get("n_cols", 0),
        "Cells changed": sum(change.cells for change in changes),
        "Rows that share the output of an identical row": findings.n_sharing_rows,
        "Items with truncated text (context.truncate_field_chars, context.max_context_chars)": findings.n_cut_contexts,
    }
    warnings = [*meta.get("warnings", ()), *plan_warnings]
    more = [f"and {len(warnings) - MOST_WARNINGS} more"] if len(warnings) > MOST_WARNINGS else []
    hidden = sum(change.cells for change in changes[MOST_CHANGES:])
    return DataQuality(facts, changes[:MOST_CHANGES], hidden, [*warnings[:MOST_WARNINGS], *more])


def _numbers(findings: Findings) -> dict[str, float | None]:
    """The numbers that Dagster plots over time. None if unknown or undefined."""
    counts, usage, score = findings.counts(), findings.usage, findings.mean_score
    return {
        "share_accepted": round(counts["accepted"] / counts["items"], 4) if counts["items"] else None,
        "cost_usd": usage.cost_usd,
        "tokens": usage.total_tokens,
        "judge_score_mean": None if score is None else round(score, 1),
    }


def _headline(findings: Findings, spent: str) -> dict[str, str]:
    """The key numbers. The total spent includes failed attempts."""
    counts, usage, score = findings.counts(), findings.usage, findings.mean_score
    headline = {
        "Accepted": f"{counts['accepted']:,}",
        "Failed": f"{counts['failed']:,}",
        "Not attempted": f"{counts['missing']:,}",
        "Cost of accepted outputs": format_cost(usage.cost_usd).removeprefix("cost "),
        "Total spent": spent.removeprefix("cost "),
        "Tokens": f"{usage.total_tokens:,}",
    }
    return headline if score is None else headline | {"Mean judge score": f"{score:.1f}"}


def _usage_facts(findings: Findings) -> dict[str, str]:
    usage = findings.usage
    return {
        "Requests": f"{usage.requests:,}",
        "Input tokens (cached)": f"{usage.input_tokens:,} ({usage.cached_input_tokens:,})",
        "Output tokens (reasoning)": f"{usage.output_tokens:,} ({usage.reasoning_tokens:,})",
        "Cost of accepted outputs": format_cost(usage.cost_usd),
    }


def _column_counts(counter: ColumnCounter) -> ColumnCounts:
    values = counter.values.top(MOST_VALUES, lambda value: -value.total)
    return ColumnCounts(counter.column.name, counter.column.part == "input", values)


def _top(texts: TextCounter) -> TopReasons:
    return TopReasons(texts.top(MOST_REASONS), max(0, texts.n_texts - MOST_REASONS))
