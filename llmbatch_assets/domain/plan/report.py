"""What ``llmbatch plan`` says: what a run would do, why, and what it would take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from llmbatch_assets.domain.cost import shown
from llmbatch_assets.domain.items.work import WorkItem
from llmbatch_assets.domain.parameters import Budget
from llmbatch_assets.domain.plan.difference import Differences
from llmbatch_assets.domain.plan.estimate import Estimate, Range
from llmbatch_assets.domain.plan.rerun_reasons import LABELS, Reasons, count_reasons
from llmbatch_assets.domain.text import counted

Verdict = Literal["no_limit", "within", "may_exceed", "exceeds", "price_unknown"]


class Counts(NamedTuple):
    """How the items of a batch stand before a run. ``new`` and ``again`` are what it would work on.

    ``held_back`` are those that the provider refused for good, ``not_selected`` those that this run leaves out.
    """

    total: int
    cached: int
    new: int
    again: int
    held_back: int
    not_selected: int


class Spending(NamedTuple):
    """What the budget says to an estimate. ``left_over`` items are more than it allows for one run."""

    max_cost_usd: float
    max_items: int
    verdict: Verdict
    left_over: int


class PlanReport(NamedTuple):
    """All of it. ``reasons`` are by partition key, in the order of the items."""

    title: str
    identity: str
    counts: Counts
    items: Sequence[WorkItem]
    reasons: Mapping[str, Reasons]
    differences: Differences | None
    estimate: Estimate
    spending: Spending
    warnings: Sequence[str]

    @property
    def headline(self) -> str:
        """The report in one line."""
        counts, taking = self.counts, self.estimate
        return (
            f"{counted(counts.total, 'item')}: {counts.cached:,} cached, {counts.new:,} new, {counts.again:,} to run again"
            + (f", {counts.held_back:,} refused for good" if counts.held_back else "")
            + (f", {counts.not_selected:,} not selected" if counts.not_selected else "")
            + (f"; {shown_cost(taking)}, {shown_time(taking.seconds)}" if taking.n_items else "; nothing to pay for")
        )

    def as_json(self) -> dict[str, Any]:
        """The report as ``--json`` tells it."""
        return {
            "batch": self.title,
            "identity": self.identity,
            "headline": self.headline,
            "counts": self.counts._asdict(),
            "reasons": [{"reasons": list(one), "items": count} for one, count in count_reasons(self.reasons)],
            "differences": self.differences.as_json() if self.differences else None,
            "estimate": self.estimate.as_json(),
            "budget": self.spending._asdict(),
            "warnings": list(self.warnings),
            "items": [
                {
                    "partition_key": item.partition_key,
                    "work_id": item.work_id,
                    "group_key": item.group_key,
                    "row_index": item.row_index,
                    "reasons": list(self.reasons[item.partition_key]),
                }
                for item in self.items
            ],
        }


def judged_spending(cost: Range | None, n_to_run: int, budget: Budget) -> Spending:
    """Whether a run's cost is within what one run may spend."""
    most, left = budget.max_cost_usd, max(0, n_to_run - budget.max_items) if budget.max_items else 0
    verdict: Verdict = "within"
    if cost is None:
        verdict = "price_unknown"
    elif not most:
        verdict = "no_limit"
    elif cost.likely > most:
        verdict = "exceeds"
    elif cost.high > most:
        verdict = "may_exceed"
    return Spending(most, budget.max_items, verdict, left)


def shown_cost(estimate: Estimate) -> str:
    """The cost of an estimate for people."""
    cost = estimate.cost_usd
    if cost is None:
        return "cost unknown"
    if not cost.high:
        return shown(0.0)
    return f"{shown(cost.likely)} ({shown(cost.low)} to {shown(cost.high)})"


def shown_time(seconds: Range) -> str:
    """A time for people."""
    return f"about {shown_duration(seconds.likely)} ({shown_duration(seconds.low)} to {shown_duration(seconds.high)})"


def shown_duration(seconds: float) -> str:
    """So many seconds for people."""
    hours, minutes = divmod(round(seconds / 60), 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min" if seconds >= 90 else f"{seconds:.0f} s"


def reason_lines(reasons: Mapping[str, Reasons]) -> list[tuple[str, int]]:
    """Each set of reasons in words, and how many items run for it."""
    return [(", ".join(LABELS[one] for one in several), count) for several, count in count_reasons(reasons)]
