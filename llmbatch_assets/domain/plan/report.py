"""The report of ``llmbatch plan``: the items that a run would process, the reasons, and the estimated cost and time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from llmbatch_assets.domain.configuration.model_blocks import Budget
from llmbatch_assets.domain.items.work import WorkItem
from llmbatch_assets.domain.plan.difference import Differences
from llmbatch_assets.domain.plan.estimate import Estimate, Range
from llmbatch_assets.domain.plan.rerun_reasons import RerunReasons, count_reasons
from llmbatch_assets.domain.text import counted
from llmbatch_assets.domain.usage import format_cost

BudgetVerdict = Literal["no_limit", "within", "may_exceed", "exceeds", "price_unknown"]

_CENT = 0.01


class Counts(NamedTuple):
    """Items before a run, which processes ``new`` and ``again``. ``held_back`` items are permanently failed."""

    total: int
    cached: int
    new: int
    again: int
    held_back: int
    not_selected: int


class BudgetCheck(NamedTuple):
    """An estimate compared with the budget of one run. ``left_over`` items exceed ``max_items``."""

    max_cost_usd: float
    max_items: int
    verdict: BudgetVerdict
    left_over: int


class PlanReport(NamedTuple):
    """The whole report. ``reasons`` has the partition keys of ``items``, in the same order."""

    title: str
    identity: str
    counts: Counts
    items: Sequence[WorkItem]
    reasons: Mapping[str, RerunReasons]
    differences: Differences | None
    estimate: Estimate
    budget: BudgetCheck
    warnings: Sequence[str]

    @property
    def headline(self) -> str:
        counts, estimate = self.counts, self.estimate
        time = " to ".join(format_duration(end) for end in (estimate.seconds.low, estimate.seconds.high))
        return (
            f"{counted(counts.total, 'item')}: {counts.cached:,} cached, {counts.new:,} new, {counts.again:,} to rerun"
            + (f", {counts.held_back:,} permanently failed" if counts.held_back else "")
            + (f", {counts.not_selected:,} not selected" if counts.not_selected else "")
            + (
                f"; {format_cost_range(estimate.cost_usd)}, about {format_duration(estimate.seconds.likely)} ({time})"
                if estimate.n_items
                else "; nothing to pay for"
            )
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "batch": self.title,
            "identity": self.identity,
            "headline": self.headline,
            "counts": self.counts._asdict(),
            "reasons": [{"reasons": list(one), "items": count} for one, count in count_reasons(self.reasons)],
            "differences": self.differences.as_json() if self.differences else None,
            "estimate": self.estimate.as_json(),
            "budget": self.budget._asdict(),
            "warnings": list(self.warnings),
            "items": [
                {
                    **{name: getattr(item, name) for name in ("partition_key", "work_id", "group_key", "row_index")},
                    "reasons": list(self.reasons[item.partition_key]),
                }
                for item in self.items
            ],
        }


def check_budget(cost: Range | None, n_to_run: int, budget: Budget) -> BudgetCheck:
    """Compare the estimated cost and size of a run with its budget."""
    limit, left = budget.max_cost_usd, max(0, n_to_run - budget.max_items) if budget.max_items else 0
    verdict: BudgetVerdict = "within"
    if cost is None:
        verdict = "price_unknown"
    elif not limit:
        verdict = "no_limit"
    elif cost.high > limit:
        verdict = "exceeds" if cost.likely > limit else "may_exceed"
    return BudgetCheck(limit, budget.max_items, verdict, left)


def format_cost_range(cost: Range | None) -> str:
    if cost is None:
        return "cost unknown"
    if not cost.high:
        return format_cost(0.0)
    # A low end below one cent is shown with as few digits as the others.
    low, likely, high = (format_cost(round(end, 2) or end if cost.likely >= _CENT else end) for end in cost)
    return f"{likely} ({low} to {high})"


def format_duration(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min" if seconds >= 90 else f"{seconds:.0f} s"
