"""Plan of a run: the items that it would generate, why, and an estimate. Makes no calls and writes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from llmbatch_assets.adapters.providers.prices import cost_function
from llmbatch_assets.adapters.store.index import CacheIndex
from llmbatch_assets.domain.item_state import ItemState
from llmbatch_assets.domain.items.work import WorkItem, WorkPlan
from llmbatch_assets.domain.plan.difference import Differences
from llmbatch_assets.domain.plan.report import Counts, PlanReport, check_budget, format_cost_range
from llmbatch_assets.domain.plan.rerun_reasons import (
    LABELS,
    RerunReason,
    RerunReasons,
    RowMatch,
    changes_between,
    in_order,
    match_rows,
    reasons_from_artifacts,
)
from llmbatch_assets.domain.plan.selection import Choice, Selection, choose
from llmbatch_assets.domain.run.quality import CheckFinding, assess_age
from llmbatch_assets.domain.text import counted
from llmbatch_assets.domain.usage import TokenUsage, format_cost
from llmbatch_assets.stages.artifacts import (
    cache_index,
    current_work,
    require_schema,
    stored_work,
)
from llmbatch_assets.stages.compare import differences_since
from llmbatch_assets.stages.estimate import Estimator
from llmbatch_assets.stages.previous_outputs import PreviousOutputs
from llmbatch_assets.stages.project import Batch
from llmbatch_assets.stages.write_schema import reason_to_write

_SAMPLE_CALL = TokenUsage(requests=1, input_tokens=1_000, output_tokens=1_000)


@dataclass(frozen=True)
class Planner:
    """Plans one run."""

    batch: Batch
    work: WorkPlan
    selection: Selection = field(default_factory=Selection)
    force: bool = False

    def report(self) -> PlanReport:
        """The plan. Raises ``InputError`` if prompts or schema cannot be used."""
        to_run, budget = self.choice.to_run, self.batch.parameters.budget
        in_budget = to_run[: budget.max_items or None]
        judged_only = {item.work_id for item in in_budget if self._needs_verdict_only(item)}
        estimate = Estimator(self.batch, self.work, self.previous, in_budget, judged_only).estimate()
        return PlanReport(
            title=self.batch.title,
            identity=self.batch.source.identity.sha,
            counts=self._counts(),
            items=to_run,
            reasons=self.reasons,
            differences=self._differences(),
            estimate=estimate,
            budget=check_budget(estimate.cost_usd, len(to_run), budget),
            warnings=[],
        )

    def up_to_date(self) -> CheckFinding:
        """The finding of the check ``up_to_date``. Raises ``InputError`` if prompts or schema cannot be used."""
        return up_to_date(self.previous, [key for key, state in self.states.items() if state == "accepted"])

    @cached_property
    def cache(self) -> CacheIndex:
        return cache_index(self.batch)

    @cached_property
    def previous(self) -> PreviousOutputs:
        return PreviousOutputs(self.batch, self.work.items, self.cache)

    @cached_property
    def states(self) -> dict[str, ItemState]:
        """The state of every item, by partition key."""
        current = self.previous.current
        return {item.partition_key: self.cache.state(current[item.work_id]) for item in self.work.items}

    @cached_property
    def choice(self) -> Choice:
        if not (self.force or self.batch.parameters.cache.force):
            return choose(self.work.items, self.states, self.selection, self._is_forced)
        everything = self.selection._replace(select="all")
        return choose(self.work.items, self.states, everything, lambda item: True)

    def _is_forced(self, item: WorkItem) -> bool:
        return not self.batch.parameters.cache.enabled or self.previous.current[item.work_id] in self.cache.forced

    @cached_property
    def reasons(self) -> dict[str, RerunReasons]:
        """The reasons to run each item, by partition key."""
        return {
            item.partition_key: self._artifact_reasons[item.work_id] or self._change_reasons(item)
            for item in self.choice.to_run
        }

    @cached_property
    def _artifact_reasons(self) -> dict[str, RerunReasons]:
        cache, current = self.cache, self.previous.current
        ids_by_reason: dict[RerunReason, Collection[str]] = {
            # A file set aside as broken no longer counts once the item was tried again.
            "artifact_broken": (cache.accepted & set(current.values())) | (cache.quarantined - cache.failed.keys()),
            "artifact_missing": cache.once_accepted,
            "verdict_missing": cache.awaiting,
            "failed_before": cache.failed,
            "forced": cache.forced,
        }
        return {
            item.work_id: reasons_from_artifacts(current[item.work_id], self.states[item.partition_key], ids_by_reason)
            for item in self.choice.to_run
        }

    def _change_reasons(self, item: WorkItem) -> RerunReasons:
        """Compare the item with its latest artifact, or with that of the row before it was edited if that is later."""
        now = self.batch.source.identity
        if match := self._matches.get(item.work_id):
            return in_order(match.reason, *changes_between(match.previous.identity, now))
        artifacts = self.previous.by_item.get(item.work_id)
        return changes_between(artifacts[0].identity, now) if artifacts else ("new_row",)

    @cached_property
    def _matches(self) -> dict[str, RowMatch]:
        """The previous items that the items without an artifact under the current identity replace."""
        untried = self._untried()
        gone = self.previous.gone_items if untried else []
        if not gone:
            return {}
        by_label = bool(self.batch.parameters.work_items.label_column)
        found = match_rows(self.work.items, untried, gone, self.previous.kept_items(), by_label=by_label)
        return {item: match for item, match in found.items() if self.previous.is_latest(match.previous, item)}

    def _untried(self) -> list[WorkItem]:
        """Items to run that have no artifact under the current identity."""
        return [item for item in self.choice.to_run if not self._artifact_reasons[item.work_id]]

    def _counts(self) -> Counts:
        idle = Counter(state for key, state in self.states.items() if key not in self.reasons)
        new = sum(reasons == ("new_row",) for reasons in self.reasons.values())
        return Counts(
            total=len(self.states),
            cached=idle["accepted"],
            new=new,
            again=len(self.reasons) - new,
            held_back=idle["failed_permanently"],
            not_selected=idle["failed"] + idle["missing"],
        )

    def _needs_verdict_only(self, item: WorkItem) -> bool:
        """Return whether the item has an answer that only lacks a verdict, or no longer needs one."""
        if reasons := self._artifact_reasons[item.work_id]:
            return reasons == ("verdict_missing",)
        artifacts, now = self.previous.by_item.get(item.work_id, ()), self.batch.source.identity
        return any(one.is_output and one.identity.differs_only_in_judge(now) for one in artifacts)

    def _differences(self) -> Differences | None:
        """The changes since the identity that most of the items to run have artifacts of."""
        by_item, matches = self.previous.by_item if self.choice.to_run else {}, self._matches
        untried = [item.work_id for item in self._untried()]
        identities = [by_item[item][0].identity for item in untried if item in by_item and item not in matches]
        identities += [match.previous.identity for match in matches.values()]
        shas = Counter(identity.sha for identity in identities)
        most = next((one for one in identities if one.sha == shas.most_common(1)[0][0]), None)
        return differences_since(most, self.batch, self.previous) if most else None


def plan_run(
    batch: Batch,
    selection: Selection | None = None,
    work: WorkPlan | None = None,
    warnings: Sequence[str] = (),
    *,
    force: bool = False,
) -> PlanReport:
    """Plan a run with the current prompts and schema, and with ``work`` or else the current table.

    The report has these ``warnings``, and one if the model will write the schema first. Raises ``InputError``.
    """
    require_schema(batch)
    schema_is_due = reason_to_write(batch)
    _ = batch.conversations
    report = Planner(batch, work or current_work(batch), selection or Selection(), force).report()
    if schema_is_due:
        due = (
            f"{batch.layout.schema_py} will be regenerated before the run, which costs calls ({schema_is_due}); this plan is "
            "for the current schema, and a different one would make every item run"
        )
        return report._replace(warnings=[due, *warnings])
    return report._replace(warnings=[*warnings])


def up_to_date(previous: PreviousOutputs, accepted: Collection[str]) -> CheckFinding:
    """Find the items without an output, or with one that was made with earlier settings.

    ``accepted`` are the partition keys of the items that have an output with the current ones.
    """
    items, current = previous.items, set(accepted)
    n_outdated, changes = 0, set[RerunReason]()
    pending = [item for item in items if item.partition_key not in current]
    by_item = previous.by_item if pending else {}
    for item in pending:
        older = next((one for one in by_item.get(item.work_id, ()) if one.is_output), None)
        if older is not None:
            n_outdated += 1
            changes.update(changes_between(older.identity, previous.batch.source.identity))
    return assess_age(len(items), len(items) - len(pending), n_outdated, [LABELS[one] for one in in_order(*changes)])


def stored_outputs_up_to_date(batch: Batch) -> CheckFinding:
    """As ``up_to_date``, from the files that the last runs have left. Raises ``LlmBatchError``."""
    return Planner(batch, stored_work(batch)).up_to_date()


def plan_next_run(batch: Batch, selection: Selection, *, force: bool, makes_items: bool) -> PlanReport:
    """Plan a run that is about to start. ``makes_items``: it makes the work items first."""
    work = current_work(batch) if makes_items else stored_work(batch)
    return Planner(batch, work, selection, force).report()


def budget_question(batch: Batch, selection: Selection, *, force: bool, makes_items: bool) -> str | None:
    """The question before a run whose estimate exceeds ``budget.max_cost_usd`` or whose price is unknown; else None."""
    parameters = batch.parameters
    models = [parameters.llm, *([parameters.judge_llm()] if parameters.prompts.judge.enabled else [])]
    prices = [cost_function(llm, parameters.budget.prices)(_SAMPLE_CALL) for llm in models]
    unpriced = [llm.model_name for llm, price in zip(models, prices, strict=True) if price is None]
    if not (unpriced or (any(prices) and parameters.budget.max_cost_usd)):
        return None
    # Without a schema, the run has it written first, so the number of calls is not known.
    has_schema = batch.path(batch.layout.schema_py).is_file()
    report = plan_next_run(batch, selection, force=force, makes_items=makes_items) if has_schema else None
    if report and not report.estimate.calls.high:
        return None
    if unpriced:
        n_calls = (
            f"about {counted(round(report.estimate.calls.likely), 'call')}" if report else "an unknown number of calls"
        )
        return (
            f"The price of {unpriced[0]} is unknown (set it in budget.prices), and the run will make {n_calls}. "
            "Start anyway?"
        )
    if report is None or report.budget.verdict not in ("exceeds", "may_exceed"):
        return None
    estimate, budget = report.estimate, report.budget
    stops = "will" if budget.verdict == "exceeds" else "may"
    return (
        f"Estimated cost of {counted(estimate.n_items, 'item')}: {format_cost_range(estimate.cost_usd)}. The budget is "
        f"{format_cost(budget.max_cost_usd)} (budget.max_cost_usd), so the run {stops} stop early. Start anyway?"
    )
