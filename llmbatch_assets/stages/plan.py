"""What a run of the generate stage would do and take: looked up and computed, without a call, a write or Dagster."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from llmbatch_assets.adapters.store.index import CacheIndex
from llmbatch_assets.domain.items.grouping import plan_work
from llmbatch_assets.domain.items.identity import BatchIdentity
from llmbatch_assets.domain.items.work import GroupContext, WorkItem, WorkItems, WorkPlan
from llmbatch_assets.domain.plan.difference import Changed, Differences, changed_values, prompt_lines, schema_fields
from llmbatch_assets.domain.plan.report import Counts, PlanReport, judged_spending
from llmbatch_assets.domain.plan.rerun_reasons import Reasons, Traces, changes_between, together, trace_of
from llmbatch_assets.domain.plan.row_matching import Match, match_rows
from llmbatch_assets.domain.plan.selection import Choice, Selection, State, choose
from llmbatch_assets.domain.schema.contract import JUDGE_MODEL
from llmbatch_assets.errors import MissingArtifactError
from llmbatch_assets.stages.artifacts import cache_ids, cache_index, load_artifact
from llmbatch_assets.stages.earlier_outputs import EarlierOutputs
from llmbatch_assets.stages.estimate import Estimator, Work
from llmbatch_assets.stages.project import Batch
from llmbatch_assets.stages.write_schema import reason_to_write


@dataclass(frozen=True)
class Planner:
    """Plans one run. ``trusting`` takes files for whole outputs by their names, which spares reading all of them."""

    batch: Batch
    work: WorkPlan
    selection: Selection = field(default_factory=Selection)
    force: bool = False
    trusting: bool = False

    def report(self) -> PlanReport:
        """The plan. Raises ``InputError`` where prompts or schema cannot be used."""
        estimate = Estimator(self.batch, self.work, self.earlier, self._work()).estimate()
        n_to_run = len(self.choice.to_run)
        return PlanReport(
            title=self.batch.title,
            identity=self.identity.sha,
            counts=self._counts(),
            items=self.choice.to_run,
            reasons=self.reasons,
            differences=self._differences(),
            estimate=estimate,
            spending=judged_spending(estimate.cost_usd, n_to_run, self.batch.parameters.budget),
            warnings=self.work.warnings,
        )

    @cached_property
    def identity(self) -> BatchIdentity:
        require_schema(self.batch)
        return self.batch.source.identity

    @cached_property
    def survey(self) -> CacheIndex:
        return cache_index(self.batch)

    @cached_property
    def current(self) -> dict[str, str]:
        """The cache id of each item under the identity in force, by work id."""
        ids = [item.work_id for item in self.work.items]
        return dict(zip(ids, cache_ids(self.identity, ids), strict=True))

    @cached_property
    def earlier(self) -> EarlierOutputs:
        return EarlierOutputs(self.batch, self.survey, self.work.items, self.current)

    @cached_property
    def states(self) -> dict[str, State]:
        """How every item stands, by partition key."""
        return {
            item.partition_key: self.survey.state(self.current[item.work_id], trusting=self.trusting)
            for item in self.work.items
        }

    @cached_property
    def choice(self) -> Choice:
        """The items that the run would work on."""
        if not (self.force or self.batch.parameters.cache.force):
            return choose(self.work.items, self.states, self.selection, self._is_forced)
        everything = self.selection._replace(select="all")
        return choose(self.work.items, self.states, everything, lambda item: True)

    def _is_forced(self, item: WorkItem) -> bool:
        return not self.batch.parameters.cache.enabled or self.current[item.work_id] in self.survey.forced

    @cached_property
    def reasons(self) -> dict[str, Reasons]:
        """Why each item runs, by partition key."""
        return {item.partition_key: self._reasons(item) for item in self.choice.to_run}

    def _reasons(self, item: WorkItem) -> Reasons:
        if item.work_id not in self._untraced:
            return self._traces[item.work_id]
        before = self._asked_before(item)
        if before is not None:
            return changes_between(before, self.identity)
        match = self._matches.get(item.work_id)
        if match is None:
            return ("new_row",)
        return together(match.reason, *changes_between(match.former.identity, self.identity))

    def _asked_before(self, item: WorkItem) -> BatchIdentity | None:
        """What was last asked of the item, of all that left an artifact."""
        asked = self.earlier.by_item.get(item.work_id)
        stray = None if asked else self.earlier.strays.get(item.work_id)
        return asked[0].identity if asked else stray.identity if stray else None

    @cached_property
    def _traces(self) -> dict[str, Reasons]:
        survey = self.survey
        # Set aside and tried again since: then that is what counts.
        broken = (survey.accepted & set(self.current.values())) | (survey.quarantined - survey.failed.keys())
        traces = Traces(survey.forced, broken, survey.failed, survey.awaiting, survey.once_accepted)
        return {
            item.work_id: trace_of(self.current[item.work_id], self.states[item.partition_key], traces)
            for item in self.choice.to_run
        }

    @cached_property
    def _untraced(self) -> set[str]:
        """Items that run and of whose question there is no trace."""
        return {work_id for work_id, reasons in self._traces.items() if not reasons}

    @cached_property
    def _matches(self) -> dict[str, Match]:
        unmatched = [
            item for item in self.work.items if item.work_id in self._untraced and self._asked_before(item) is None
        ]
        former = self.earlier.former if unmatched else []
        if not former:
            return {}
        by_label = bool(self.batch.parameters.work_items.label_column)
        return match_rows(self.work.items, unmatched, former, self.earlier.standing(), by_label=by_label)

    def _counts(self) -> Counts:
        states, running = self.states, self.reasons.keys()
        idle = Counter(state for key, state in states.items() if key not in running)
        new = sum(reasons == ("new_row",) for reasons in self.reasons.values())
        return Counts(
            total=len(states),
            cached=idle["accepted"],
            new=new,
            again=len(self.reasons) - new,
            held_back=idle["failed_permanently"],
            not_selected=idle["failed"] + idle["missing"],
        )

    def _work(self) -> Work:
        most = self.batch.parameters.budget.max_items
        items = self.choice.to_run[: most or None]
        only = {item.work_id for item in items if self._is_only_judged(item)}
        return Work(
            [item for item in items if item.work_id not in only], [item for item in items if item.work_id in only]
        )

    def _is_only_judged(self, item: WorkItem) -> bool:
        """Whether the item has an answer that only lacks its verdict, or needs none any more."""
        if self.reasons[item.partition_key] == ("verdict_missing",):
            return True
        asked = self.earlier.by_item.get(item.work_id, ()) if item.work_id in self._untraced else ()
        return any(one.is_output and one.identity.differs_only_in_judge(self.identity) for one in asked)

    def _differences(self) -> Differences | None:
        """What changed since the identity that most of the items to run have artifacts of."""
        asked = (self._asked_before(item) for item in self.choice.to_run if item.work_id in self._untraced)
        identities = [identity for identity in asked if identity is not None]
        identities += [match.former.identity for match in self._matches.values()]
        if not identities:
            return None
        shas = Counter(identity.sha for identity in identities)
        most = max(shas.values())
        before = next(identity for identity in identities if shas[identity.sha] == most)
        return differences_between(self.batch, self.earlier, before)


def plan_of(batch: Batch, selection: Selection | None = None, *, force: bool = False) -> PlanReport:
    """What a run would do with the table, prompts and schema as they are now. Raises ``InputError``."""
    require_schema(batch)
    schema_is_due = reason_to_write(batch)
    _ = batch.conversations
    snapshot = batch.read_snapshot()
    work = plan_work(snapshot, batch.parameters)
    report = Planner(batch, work, selection or Selection(), force).report()
    told = (
        []
        if not schema_is_due
        else [
            f"{batch.layout.schema_py} is written anew before the run, which costs calls ({schema_is_due}); what follows is for the schema that there is, and another one makes every item run"
        ]
    )
    return report._replace(warnings=[*told, *snapshot.meta["warnings"], *report.warnings])


def plan_of_run(batch: Batch, selection: Selection, *, force: bool, plans: bool) -> PlanReport:
    """What a run that begins now would do. ``plans``: it makes the work items anew. Files are taken by their names."""
    if plans:
        work = plan_work(batch.read_snapshot(), batch.parameters)
    else:
        items = load_artifact(batch, "work_items", WorkItems).items
        work = WorkPlan(items, load_artifact(batch, "group_contexts", list[GroupContext]), [])
    return Planner(batch, work, selection, force, trusting=True).report()


def require_schema(batch: Batch) -> None:
    """Raise ``MissingArtifactError`` where there is no schema to ask for."""
    if not batch.path(batch.layout.schema_py).is_file():
        force = "" if batch.parameters.llm_schema.auto_generate else " --force"
        raise MissingArtifactError(
            f"{batch.layout.schema_py} does not exist, so nothing is known of what will be asked; write it, or have it "
            f"written with: {batch.command} --select llm_schema_py{force}"
        )


def differences_between(batch: Batch, earlier: EarlierOutputs, before: BatchIdentity) -> Differences:
    """What differs between an earlier identity and the one in force."""
    now, use = batch.source.identity, earlier.last_use(before)
    judge = batch.judge_prompt.model_dump(mode="json") if batch.judge_prompt else None
    return Differences(
        against=before.sha,
        used_at_utc=use.at_utc if use else None,
        prompt=[]
        if before.prompt_sha == now.prompt_sha
        else prompt_lines(earlier.text(before.prompt_sha) or {}, batch.generation_prompt.model_dump(mode="json")),
        judge_prompt=[]
        if before.judge_prompt_sha == now.judge_prompt_sha
        else prompt_lines(earlier.text(before.judge_prompt_sha) or ({} if before.judge_prompt_sha else None), judge),
        schema=_schema_changes(batch, earlier, before),
        config=changed_values(
            _settings(before, earlier.item_settings(use) if use else None),
            _settings(now, earlier.item_settings(None) if use else None),
        ),
    )


def _schema_changes(batch: Batch, earlier: EarlierOutputs, before: BatchIdentity) -> list[Changed]:
    """The fields that differ in what an output must be, and in what a verdict must be."""
    judge = batch.schema.judge() if batch.judge_prompt else None
    pairs = [(before.schema_sha, batch.schema.output(), "")]
    pairs += [(str(before.judge.get("schema_sha")), judge, JUDGE_MODEL)] if judge and before.judge else []
    changes: list[Changed] = []
    for sha, contract, name in pairs:
        kept = None if sha == contract.sha else earlier.text(sha)
        if kept is not None:
            then, now = schema_fields(kept), schema_fields(contract.json_schema)
            changes += changed_values({name: then} if name else then, {name: now} if name else now)
    return changes


def _settings(identity: BatchIdentity, item_settings: dict[str, Any] | None) -> dict[str, Any]:
    """What is configured of an identity, under the keys of the configuration."""
    own = {"model_name": identity.model_name, "temperature": identity.temperature}
    # An identity names only another provider than this one.
    llm = {"provider": "openai", **own, **identity.settings}
    judge = {name: value for name, value in (identity.judge or {}).items() if name != "schema_sha"}
    # As in the configuration: a judge has what llm says where it has nothing of its own.
    judge = {name: value for name, value in judge.items() if name not in llm or value != llm[name]}
    return {
        "llm": llm,
        "prompts": {"judge": {"enabled": identity.judge_enabled}},
        "judge": judge,
        **(item_settings or {}),
    }
