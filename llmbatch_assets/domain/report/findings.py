"""Statistics for the report, collected in a single pass over the items of a batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import NamedTuple

from llmbatch_assets.domain.configuration.output_blocks import Report
from llmbatch_assets.domain.items.table import Row
from llmbatch_assets.domain.items.work import WorkItem
from llmbatch_assets.domain.outcome import AcceptedOutput, FailedAttempt
from llmbatch_assets.domain.report.items import (
    ItemRow,
    SampleChooser,
    artifact_file,
    item_row,
    reasons_of,
    score_of,
)
from llmbatch_assets.domain.report.value_counts import (
    ITEM_ENDS,
    ColumnCounter,
    CountedColumn,
    TextCounter,
    ValueCounter,
    row_indices,
)
from llmbatch_assets.domain.text import cut
from llmbatch_assets.domain.usage import UsageTotal
from llmbatch_assets.errors import FailureCause

MESSAGE_CHARS = 1_000


class FailureExample(NamedTuple):
    """A failed item, its row if it has one, and the file of its last attempt."""

    partition_key: str
    row_index: int | None
    message: str
    artifact: str


class CauseSummary(NamedTuple):
    """The failed items of a cause, and its failed attempts, including those of items that succeeded later."""

    cause: str
    n_items: int
    n_attempts: int
    examples: list[FailureExample]


@dataclass
class Findings:
    """The statistics. ``columns`` are those of ``report.count_by``; ``rows`` is the input table."""

    settings: Report
    columns: Sequence[CountedColumn] = ()
    rows: Sequence[Row] = ()
    groups: ValueCounter = field(default_factory=ValueCounter)
    attempts: Counter[int] = field(default_factory=Counter)
    usage: UsageTotal = field(default_factory=UsageTotal)
    scores: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)
    failed_items: Counter[str] = field(default_factory=Counter)
    failed_attempts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[FailureExample]] = field(default_factory=dict)
    n_cut_contexts: int = 0
    n_sharing_rows: int = 0

    def __post_init__(self) -> None:
        self.counted = [ColumnCounter(column) for column in self.columns]
        self.samples = SampleChooser(self.settings.sample_per_group)
        self.approvals = TextCounter(self.settings.max_reason_examples)
        self.rejections = TextCounter(self.settings.max_reason_examples)

    def add(self, item: WorkItem, output: AcceptedOutput | None, failures: Sequence[FailedAttempt]) -> ItemRow:
        """Count an item with its output, if any, and its failed attempts. Returns its row of the item table."""
        last_failure = None if output or not failures else failures[-1]
        row = item_row(item, output, last_failure)
        self.groups.add(row.group, row.end)
        for column in self.counted:
            column.add(item, row.end, output, self.rows)
        self.n_cut_contexts += bool({"truncated_fields", "context_truncated"} & item.meta.keys())
        self.n_sharing_rows += max(0, len(row_indices(item)) - 1) if item.row_index is not None else 0
        for failure in failures:
            self.failed_attempts[failure.cause] += 1
            if failure.cause == FailureCause.JUDGE_REJECTED:
                self.rejections.add(reasons_of(failure.judge), item.partition_key)
        if output:
            self._add_output(item, output)
        elif last_failure:
            self._add_failed(item, last_failure)
        return row

    def _add_output(self, item: WorkItem, output: AcceptedOutput) -> None:
        usage, score = output.usage, score_of(output.judge)
        self.attempts[output.meta["attempt_outer"]] += 1
        self.usage.add(usage)
        self.tokens.append(usage.total_tokens)
        self.latencies.append(output.latency_sec)
        if usage.cost_usd is not None:
            self.costs.append(usage.cost_usd)
        if score is not None:
            self.scores.append(score)
        self.approvals.add(reasons_of(output.judge), item.partition_key)
        self.samples.add(item)

    def _add_failed(self, item: WorkItem, last: FailedAttempt) -> None:
        self.failed_items[last.cause] += 1
        shown = self.examples.setdefault(last.cause, [])
        if len(shown) < self.settings.max_reason_examples:
            message = cut(last.error["message"], MESSAGE_CHARS)[0]
            shown.append(FailureExample(item.partition_key, item.row_index, message, artifact_file(last)))

    @property
    def mean_score(self) -> float | None:
        return fmean(self.scores) if self.scores else None

    def counts(self) -> dict[str, int]:
        """The number of items, in total and by how they ended."""
        sums: dict[str, int] = {end: self.groups.total(end) for end in ITEM_ENDS}
        return {"items": sum(sums.values()), **sums}

    def causes(self) -> list[CauseSummary]:
        """The causes of failure, most failed items first."""
        found = [
            CauseSummary(cause, self.failed_items[cause], n_attempts, self.examples.get(cause, []))
            for cause, n_attempts in self.failed_attempts.items()
        ]
        return sorted(found, key=lambda one: (-one.n_items, -one.n_attempts, one.cause))
