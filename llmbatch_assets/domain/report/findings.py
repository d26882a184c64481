"""Everything that one pass over the items of a batch finds out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from llmbatch_assets.domain.items.table import Row
from llmbatch_assets.domain.items.work import WorkItem
from llmbatch_assets.domain.outcome import AcceptedOutput, FailedAttempt
from llmbatch_assets.domain.parameters import Report
from llmbatch_assets.domain.report.counted import ColumnCounts, Counted, row_indices
from llmbatch_assets.domain.report.item import group_name, reasons_of, score_of
from llmbatch_assets.domain.report.rows import ItemRow, accepted_row, failed_row, failure_file, missing_row
from llmbatch_assets.domain.report.samples import SampleChooser
from llmbatch_assets.domain.report.tallies import ENDS, End, EndCounts, TextCounts
from llmbatch_assets.domain.text import cut
from llmbatch_assets.domain.usage import UsageTotal
from llmbatch_assets.errors import FailureCause

MESSAGE_CHARS = 1_000


class FailureExample(NamedTuple):
    """One failed item, its row if it is about one, and the file to open."""

    partition_key: str
    row_index: int | None
    message: str
    artifact: str


class CauseSummary(NamedTuple):
    """What a cause has done: items that have no output because of it, and attempts that it ended, with or without."""

    cause: str
    n_items: int
    n_attempts: int
    examples: list[FailureExample]


@dataclass
class Findings:
    """What is gathered. ``rows`` is the input table, which ``columns`` of it are counted from."""

    settings: Report
    columns: Sequence[Counted] = ()
    rows: Sequence[Row] = ()
    groups: EndCounts = field(default_factory=EndCounts)
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
        self.counted = [ColumnCounts(column) for column in self.columns]
        self.samples = SampleChooser(self.settings.sample_per_group)
        self.approvals = TextCounts(self.settings.max_reason_examples)
        self.rejections = TextCounts(self.settings.max_reason_examples)

    def add(self, item: WorkItem, output: AcceptedOutput | None, failures: Sequence[FailedAttempt]) -> ItemRow:
        """Count an item with its output, if it has one, and its failed attempts; gives its line of the table."""
        end: End = "accepted" if output is not None else "failed" if failures else "missing"
        self.groups.add(group_name(item), end)
        for column in self.counted:
            column.add(item, end, output, self.rows)
        self.n_cut_contexts += bool({"truncated_fields", "context_truncated"} & item.meta.keys())
        self.n_sharing_rows += max(0, len(row_indices(item)) - 1) if item.row_index is not None else 0
        self._add_failures(item, failures)
        if output is not None:
            self._add_output(item, output)
            return accepted_row(item, output)
        if failures:
            self._add_failed(item, failures[-1])
            return failed_row(item, failures[-1])
        return missing_row(item)

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

    def _add_failures(self, item: WorkItem, failures: Sequence[FailedAttempt]) -> None:
        for failure in failures:
            self.failed_attempts[failure.cause] += 1
            if failure.cause == FailureCause.JUDGE_REJECTED:
                self.rejections.add(reasons_of(failure.judge), item.partition_key)

    def _add_failed(self, item: WorkItem, last: FailedAttempt) -> None:
        self.failed_items[last.cause] += 1
        shown = self.examples.setdefault(last.cause, [])
        if len(shown) < self.settings.max_reason_examples:
            message = cut(last.error["message"], MESSAGE_CHARS)[0]
            shown.append(FailureExample(item.partition_key, item.row_index, message, failure_file(last)))

    def counts(self) -> dict[str, int]:
        """Accepted, failed, missing, and their sum."""
        sums: dict[str, int] = {end: self.groups.total(end) for end in ENDS}
        return {"items": sum(sums.values()), **sums}

    def causes(self) -> list[CauseSummary]:
        """Causes of failure, those that cost most items first."""
        ordered = sorted(
            self.failed_attempts, key=lambda name: (-self.failed_items[name], -self.failed_attempts[name], name)
        )
        return [
            CauseSummary(name, self.failed_items[name], self.failed_attempts[name], self.examples.get(name, []))
            for name in ordered
        ]


def gather(
    findings: Findings,
    items: Iterable[WorkItem],
    output_of: Callable[[WorkItem], AcceptedOutput | None],
    failures_of: Callable[[WorkItem], Sequence[FailedAttempt]],
    on_row: Callable[[ItemRow], None] = lambda _: None,
) -> Findings:
    """Go over all items once. Every item is counted in exactly one state, and ``on_row`` is given its line."""
    for item in items:
        on_row(findings.add(item, output_of(item), failures_of(item)))
    return findings
