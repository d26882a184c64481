"""The asset ``llm_outputs``: one partition per work item, any number of them in one run."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import dagster as dg
from pydantic import Field

from llmbatch_assets.assets.checks import check_fields, output_check_specs
from llmbatch_assets.assets.names import Names
from llmbatch_assets.assets.sensors import use_sources
from llmbatch_assets.domain.items.work import GroupContext, WorkItem, WorkItems
from llmbatch_assets.domain.plan.selection import Selection
from llmbatch_assets.domain.run.progress import format_causes
from llmbatch_assets.domain.run.quality import CheckFinding, OutputQuality, assess
from llmbatch_assets.domain.text import counted
from llmbatch_assets.errors import LlmBatchError, RunInterruptedError
from llmbatch_assets.resources.events.partition_events import PartitionEvents
from llmbatch_assets.resources.llm import LlmResource
from llmbatch_assets.resources.runs import ReporterFactory, cancel, close_orphans, dagster_reporter, process_tags
from llmbatch_assets.resources.versions import run_tags
from llmbatch_assets.stages.artifacts import load_artifact
from llmbatch_assets.stages.generate.choice import BatchItems
from llmbatch_assets.stages.generate.progress import GenerateResult
from llmbatch_assets.stages.generate.run import GenerateRun
from llmbatch_assets.stages.project import Batch, BatchFile


class GenerateConfig(dg.Config):
    """The items that a run without partitions selects. A run of chosen partitions ignores this selection."""

    select: Literal["pending", "failed", "missing", "all", "keys"] = Field(
        default="pending",
        description="pending: items without an output, except those that the provider permanently refused; failed: all "
        "failed items; missing: items that were never attempted; all: every item; keys: the items listed in keys.",
    )
    keys: list[str] = Field(default=[], description="Partition keys, for select: keys.")
    limit: int = Field(default=0, ge=0, description="Generate at most this many items; 0: no limit.")
    sample: int = Field(
        default=0,
        ge=0,
        description="Generate this many items spread over all groups, the same ones every time; 0: all items.",
    )
    retry_failed: bool = Field(default=False, description="Also retry items the provider permanently refused.")
    force: bool = Field(
        default=False, description="Regenerate existing outputs; each is kept until its replacement is accepted."
    )

    def selection(self) -> Selection:
        return Selection(self.select, self.keys, self.limit, self.sample, self.retry_failed)


UPSTREAM = ("work_items", "group_contexts", "llm_schema_txt", "prompts")


@dataclass(frozen=True)
class GenerateStep:
    """A run of the generate stage within Dagster, as the asset or as the job without partitions."""

    context: dg.OpExecutionContext
    names: Names
    batch: Batch
    run: GenerateRun

    @property
    def key(self) -> dg.AssetKey:
        return self.names.key("llm_outputs")

    def generate(self, config: GenerateConfig) -> Iterator[CheckFinding]:
        """Generate, then yield the findings of the checks. Raises ``Failure`` if items failed or the run was stopped."""
        run_id = self.context.run.run_id
        self.context.instance.add_run_tags(run_id, process_tags(run_id))
        close_orphans(self.context.instance)
        use_sources(self.context, self.batch, self.names, "prompts")
        by_key = has_chosen_partitions(self.context)
        selection = Selection(select="keys", keys=self.context.partition_keys) if by_key else config.selection()
        choice = self.run.choose(selection, force=config.force)
        with self._partition_events() as events:
            for item in choice.hits if by_key else events.not_shown(self.run.items.accepted):
                self._add_hit(events, item)
            events.record_versions(all_items=not by_key)
            with events.in_child_process(len(choice.to_run)):
                result = self.run.generate(
                    choice, lambda item, output, found: events.add_materialized(item, output, hit=found)
                )
            # Dagster ignores failures planned by a canceled run, but they would hide the failure of an earlier run.
            if isinstance(result.error, RunInterruptedError):
                cancel(self.context)
            if by_key and result.error is not None:
                raise result.error
            # Another run may have generated and materialized some of them in the meantime.
            events.add_failed(item.partition_key for item in result.failed if not self.run.items.has_output(item))
            for item in result.kept if by_key else ():
                self._add_hit(events, item)
            quality = self._quality(events, result)
        yield from assess(quality, self.batch.parameters.checks)
        self._end(result, quality)

    def _partition_events(self) -> PartitionEvents:
        inputs = [self.names.key(name) for name in UPSTREAM]
        versions = run_tags(self.context.instance, self.batch.source.identity.sha, inputs)
        folder = self.batch.layout.llm_outputs
        return PartitionEvents(self.context, self.key, self.names.partitions, folder, versions)

    def _add_hit(self, events: PartitionEvents, item: WorkItem) -> None:
        events.add_materialized(item, self.run.items.output(item), hit=True)

    def _quality(self, events: PartitionEvents, result: GenerateResult) -> OutputQuality:
        counts, causes = result.manifest.counts, result.manifest.failures_by_cause
        # By now Dagster has an event for every accepted output, and none of another identity.
        known = events.output_versions()
        versions = [known[key] for key in result.accepted if key in known]
        scores = self.run.items.judge_scores(result.accepted)
        return OutputQuality(counts.n_success, counts.n_fail, causes, versions, scores)

    def _end(self, result: GenerateResult, quality: OutputQuality) -> None:
        metrics: dict[str, int | float] = {**result.metrics(), "acceptance_rate": quality.acceptance_rate}
        if quality.mean_score is not None:
            metrics["judge_score_mean"] = quality.mean_score
        if result.tally.done:
            self.context.log_event(dg.AssetObservation(self.key, metadata=metrics))
        causes = format_causes(result.tally.causes)
        metadata = {**metrics, "causes": causes or "none"}
        if result.error is not None:
            raise dg.Failure(f"Run stopped: {result.error}", metadata=metadata, allow_retries=False)
        if result.tally.failed:
            message = f"{result.tally.failed} of {counted(result.tally.total, 'item')} failed: {causes}"
            raise dg.Failure(message, metadata, allow_retries=False)


def has_chosen_partitions(context: dg.OpExecutionContext | dg.AssetExecutionContext) -> bool:
    """Return whether the run was launched for partitions rather than for the items that its configuration selects."""
    return context.has_partition_key or context.has_partition_key_range


def llm_outputs_asset(batch_file: BatchFile, names: Names, reporter: ReporterFactory | None) -> dg.AssetsDefinition:
    @dg.asset(
        key=names.key("llm_outputs"),
        group_name=names.group,
        ins={name: dg.AssetIn(key=names.key(name)) for name in ("work_items", "group_contexts")},
        deps=[names.key("llm_schema_txt"), names.key("prompts")],
        partitions_def=names.partitions,
        backfill_policy=dg.BackfillPolicy.single_run(),
        io_manager_key=names.io_manager,
        output_required=False,
        pool="llm",
        code_version=_code_version(batch_file),
        check_specs=output_check_specs(names),
        kinds={"llm", "json"},
        description="The accepted model outputs, one partition per work item. Items that already have an accepted output are "
        "not sent to the model again. To run everything pending, use the job generate_pending.",
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
            observer = (reporter or dagster_reporter)(context, batch)
            items = BatchItems(batch, work_items.items)
            run = GenerateRun(items, group_contexts, llm.client, observer, context.run.run_id)
            step = GenerateStep(context.op_execution_context, names, batch, run)
            # Yielding an output would mark every partition as materialized; events are logged per item instead.
            for finding in step.generate(config):
                yield dg.AssetCheckResult(**check_fields(finding))
        except LlmBatchError as error:
            if not has_chosen_partitions(context):
                raise
            # A failed run would show all its partitions as failed, including those with an output.
            message = f"Run stopped; no partition was marked as failed. {error}"
            context.log.error(message)  # noqa: TRY400  # users need the message, not a traceback
            cancel(context)

    return llm_outputs


def generate_pending_job(batch_file: BatchFile, names: Names, tags: dict[str, str]) -> dg.JobDefinition:
    """Return the generate stage as a job without partitions: to run the asset, the UI demands a partition."""

    @dg.op(name=names.own("generate_items"), pool="llm")
    def generate_items(
        context: dg.OpExecutionContext, config: GenerateConfig, llm: dg.ResourceParam[LlmResource]
    ) -> None:
        batch = batch_file.load()
        items = BatchItems(batch, load_artifact(batch, "work_items", WorkItems).items)
        contexts = load_artifact(batch, "group_contexts", list[GroupContext])
        run = GenerateRun(items, contexts, llm.client, dagster_reporter(context, batch), context.run.run_id)
        step = GenerateStep(context, names, batch, run)
        for finding in step.generate(config):
            # Dagster accepts it, although its annotation does not say so.
            context.log_event(dg.AssetCheckEvaluation(step.key, **check_fields(finding)))  # type: ignore[arg-type]

    @dg.job(
        name=names.own("generate_pending"),
        tags=tags,
        executor_def=dg.in_process_executor,
        description="Generates all pending items in one run. Open the Launchpad tab and click Launch Run.",
    )
    def generate_pending() -> None:
        generate_items()

    return generate_pending


def _code_version(batch_file: BatchFile) -> str | None:
    """Return the sha of the batch's identity; None if it cannot be computed yet, e.g. without a schema."""
    try:
        return batch_file.load().source.identity.sha
    except LlmBatchError:
        return None
