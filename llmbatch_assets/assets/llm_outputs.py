"""``llm_outputs``: one partition per work item, any number of them in one run."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import dagster as dg
from pydantic import Field

from llmbatch_assets.assets.checks import check_results, evaluation, output_check_specs
from llmbatch_assets.assets.names import Names
from llmbatch_assets.assets.sources import use_sources
from llmbatch_assets.domain.items.work import GroupContext, WorkItem, WorkItems
from llmbatch_assets.domain.plan.selection import Selection
from llmbatch_assets.domain.quality import CheckFinding, OutputQuality, assess
from llmbatch_assets.domain.text import counted
from llmbatch_assets.errors import LlmBatchError, RunInterruptedError
from llmbatch_assets.resources.events.partition_events import PartitionEvents
from llmbatch_assets.resources.llm import LlmResource
from llmbatch_assets.resources.reporter import ReporterFactory, dagster_reporter
from llmbatch_assets.resources.runs import cancel, close_orphans, sign_run
from llmbatch_assets.resources.versions import run_tags
from llmbatch_assets.stages.artifacts import load_artifact
from llmbatch_assets.stages.generate import Generation, Outcome, Reporter
from llmbatch_assets.stages.project import Batch, BatchFile


class GenerateConfig(dg.Config):
    """What a run without partitions works on. A run of chosen partitions takes those, whatever is said here."""

    select: Literal["pending", "failed", "missing", "all", "keys"] = Field(
        default="pending",
        description="pending: what has no output yet (but for items that the provider refused for good); failed: all "
        "failed ones; missing: never attempted; all; keys: those named in keys.",
    )
    keys: list[str] = Field(default=[], description="Partition keys, for select: keys.")
    limit: int = Field(default=0, ge=0, description="At most so many items; 0: all.")
    sample: int = Field(default=0, ge=0, description="So many items, spread over the groups; 0: all.")
    retry_failed: bool = Field(default=False, description="Also try again what the provider refused for good.")
    force: bool = Field(default=False, description="Generate again what has an output; it stays until replaced.")

    def selection(self) -> Selection:
        """The items that are meant."""
        return Selection(self.select, self.keys, self.limit, self.sample, self.retry_failed)


UPSTREAM = ("work_items", "group_contexts", "llm_schema_txt", "prompts")


@dataclass(frozen=True)
class GenerateStage:
    """A run of the generate stage, as the asset's own and as that of the job that needs no partition."""

    context: dg.OpExecutionContext
    names: Names
    batch: Batch
    generation: Generation

    @property
    def key(self) -> dg.AssetKey:
        return self.names.key("llm_outputs")

    def run(self, config: GenerateConfig) -> Iterator[CheckFinding]:
        """Generate; then what the checks find. Raises ``Failure`` where items failed or the run was stopped."""
        sign_run(self.context)
        close_orphans(self.context.instance)
        use_sources(self.context, self.batch, self.names, "prompts")
        by_key = has_chosen_partitions(self.context)
        chosen = Selection(select="keys", keys=self.context.partition_keys) if by_key else config.selection()
        choice = self.generation.choose(chosen, force=config.force)
        with self._events() as events:
            for item in choice.hits if by_key else events.lagging(self.generation.accepted_items):
                self._hit(events, item)
            events.told(all_items=not by_key)
            with events.apart(len(choice.to_run)):
                outcome = self.generation.run(
                    choice, lambda item, out, found: events.materialized(item, out, hit=found)
                )
            # A failure planned by a canceled run is not shown, and would hide the one of an earlier run.
            if isinstance(outcome.fault, RunInterruptedError):
                cancel(self.context)
            if by_key and outcome.fault is not None:
                raise outcome.fault
            # Another run may have made one of them in the meantime, and shown it.
            events.failed(item.partition_key for item in outcome.failed if not self.generation.is_made(item))
            for item in outcome.standing if by_key else ():
                self._hit(events, item)
            quality = self._quality(events, outcome)
        yield from assess(quality, self.batch.parameters.checks)
        self._end(outcome, quality)

    def _events(self) -> PartitionEvents:
        inputs = [self.names.key(name) for name in UPSTREAM]
        versions = run_tags(self.context.instance, self.batch.source.identity.sha, inputs)
        folder = self.batch.layout.llm_outputs
        return PartitionEvents(self.context, self.key, self.names.partitions, folder, versions)

    def _hit(self, events: PartitionEvents, item: WorkItem) -> None:
        events.materialized(item, self.generation.output(item), hit=True)

    def _quality(self, events: PartitionEvents, outcome: Outcome) -> OutputQuality:
        counts, causes = outcome.manifest["counts"], outcome.manifest["failures_by_cause"]
        # Dagster has been told of every accepted output by now, and of none that is not of this identity.
        told = events.output_versions()
        versions = [told[key] for key in outcome.accepted if key in told]
        scores = self.generation.scores(outcome.accepted)
        return OutputQuality(counts["n_success"], counts["n_fail"], causes, versions, scores)

    def _end(self, outcome: Outcome, quality: OutputQuality) -> None:
        facts: dict[str, int | float] = {**outcome.facts(), "acceptance_rate": quality.acceptance_rate}
        if quality.mean_score is not None:
            facts["judge_score_mean"] = quality.mean_score
        if outcome.tally.done:
            self.context.log_event(dg.AssetObservation(self.key, metadata=facts))
        causes = ", ".join(f"{count} {cause}" for cause, count in sorted(outcome.tally.causes.items()))
        metadata = {**facts, "causes": causes or "none"}
        if outcome.fault is not None:
            raise dg.Failure(f"stopped: {outcome.fault}", metadata=metadata, allow_retries=False)
        if outcome.tally.failed:
            told = f"{outcome.tally.failed} of {counted(outcome.tally.total, 'item')} failed: {causes}"
            raise dg.Failure(told, metadata, allow_retries=False)


def has_chosen_partitions(context: dg.OpExecutionContext | dg.AssetExecutionContext) -> bool:
    """Whether the run is one of partitions, which Dagster has planned, and not of what its configuration selects."""
    return context.has_partition_key or context.has_partition_key_range


def llm_outputs_asset(batch_file: BatchFile, names: Names, reporter: ReporterFactory | None) -> dg.AssetsDefinition:
    """The asset that holds the outputs of a batch."""

    @dg.asset(
        key=names.key("llm_outputs"),
        group_name=names.group,
        ins={
            "work_items": dg.AssetIn(key=names.key("work_items")),
            "group_contexts": dg.AssetIn(key=names.key("group_contexts")),
        },
        deps=[names.key("llm_schema_txt"), names.key("prompts")],
        partitions_def=names.partitions,
        backfill_policy=dg.BackfillPolicy.single_run(),
        io_manager_key=names.io_manager,
        output_required=False,
        pool="llm",
        code_version=_code_version(batch_file),
        check_specs=output_check_specs(names),
        kinds={"llm", "json"},
        description="The answers: one partition per work item. An item whose accepted output is on disk costs nothing.",
    )
    def llm_outputs(
        context: dg.AssetExecutionContext,
        config: GenerateConfig,
        work_items: WorkItems,
        group_contexts: list[GroupContext],
        llm: dg.ResourceParam[LlmResource],
    ) -> Iterator[dg.AssetCheckResult]:
        try:
            batch = batch_file.load()
            watcher = reporter(context, batch) if reporter else _log_reporter(context, batch)
            generation = Generation(batch, work_items.items, group_contexts, llm.client, watcher, context.run.run_id)
            stage = GenerateStage(context.op_execution_context, names, batch, generation)
            # No output is yielded, or Dagster would call every partition materialized: events were logged one by one.
            yield from check_results(stage.run(config))
        except LlmBatchError as mistake:
            if not has_chosen_partitions(context):
                raise
            # A failed run would show all its partitions as failed, those that have an output, too.
            told = f"the run could not go on, and nothing is shown as failed: {mistake}"
            context.log.error(told)  # noqa: TRY400  # somebody's mistake is a message, not a traceback
            cancel(context)

    return llm_outputs


def generate_pending_job(batch_file: BatchFile, names: Names, tags: dict[str, str]) -> dg.JobDefinition:
    """The generate stage as a job without partitions: one click in the UI, where the asset's own wants a partition."""

    @dg.op(name=names.own("generate_items"), pool="llm")
    def generate_items(
        context: dg.OpExecutionContext, config: GenerateConfig, llm: dg.ResourceParam[LlmResource]
    ) -> None:
        batch = batch_file.load()
        items = load_artifact(batch, "work_items", WorkItems).items
        contexts = load_artifact(batch, "group_contexts", list[GroupContext])
        generation = Generation(batch, items, contexts, llm.client, _log_reporter(context, batch), context.run.run_id)
        for result in check_results(GenerateStage(context, names, batch, generation).run(config)):
            # Dagster logs it, though its annotation does not say so.
            context.log_event(evaluation(names.key("llm_outputs"), result))  # type: ignore[arg-type]

    @dg.job(
        name=names.own("generate_pending"),
        tags=tags,
        executor_def=dg.in_process_executor,
        description="Generate what has no output yet, all of it in one run: Launchpad, then Launch Run.",
    )
    def generate_pending() -> None:
        generate_items()

    return generate_pending


def _log_reporter(context: dg.OpExecutionContext | dg.AssetExecutionContext, batch: Batch) -> Reporter:
    return dagster_reporter(context.log.info, batch.parameters.cache.verbose)


def _code_version(batch_file: BatchFile) -> str | None:
    """Fingerprint of all that is asked about an item, None as long as it is not known, e.g. before there is a schema."""
    try:
        return batch_file.load().source.identity.sha
    except LlmBatchError:
        return None
