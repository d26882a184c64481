"""The asset ``llm_outputs``: one partition per work item, any number of them in one run."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn, Self

import dagster as dg
from pydantic import Field

from llmbatch_assets.assets.checks import MAX_NAMED, check_evaluation, check_fields, output_check_specs, report_check
from llmbatch_assets.assets.descriptions import description
from llmbatch_assets.assets.names import Names
from llmbatch_assets.assets.sensors import use_sources
from llmbatch_assets.domain.items.work import GroupContext, WorkItem, WorkItems
from llmbatch_assets.domain.plan.selection import Selection
from llmbatch_assets.domain.run.progress import format_causes
from llmbatch_assets.domain.run.quality import CheckFinding, OutputQuality, assess
from llmbatch_assets.domain.text import counted
from llmbatch_assets.errors import RunInterruptedError
from llmbatch_assets.resources.events.item_results import ItemResults
from llmbatch_assets.resources.events.partition_events import PartitionEvents, has_chosen_partitions, withdraw_planned
from llmbatch_assets.resources.instance import translating_storage_errors
from llmbatch_assets.resources.llm import LlmResource, llm_resource
from llmbatch_assets.resources.runs import (
    ReporterFactory,
    cancel,
    close_orphans,
    dagster_reporter,
    failing_with_message,
    forwarding_warnings,
    process_tags,
)
from llmbatch_assets.resources.versions import run_tags
from llmbatch_assets.stages.artifacts import cache_index, load_artifact, require_columns
from llmbatch_assets.stages.generate.choice import BatchItems
from llmbatch_assets.stages.generate.progress import GenerateResult, end_line
from llmbatch_assets.stages.generate.run import GenerateRun
from llmbatch_assets.stages.plan import up_to_date
from llmbatch_assets.stages.previous_outputs import PreviousOutputs
from llmbatch_assets.stages.project import Batch, BatchFile
from llmbatch_assets.stages.publish.report import report_address
from llmbatch_assets.stages.runtime import holding_interrupts


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


UPSTREAM = ("work_items", "group_contexts", "llm_schema_txt", "prompts", "model_settings")


@dataclass(frozen=True)
class GenerateStep:
    """A run of the generate stage within Dagster, as the asset or as the job without partitions."""

    context: dg.OpExecutionContext
    names: Names
    batch: Batch
    run: GenerateRun
    # What the overview of the asset shows of this run; empty until its end, and after a run that had nothing to do.
    totals: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        context: dg.OpExecutionContext | dg.AssetExecutionContext,
        batch_file: BatchFile,
        names: Names,
        llm: LlmResource,
        reporter: ReporterFactory | None,
    ) -> Self:
        """Load the batch and its items. Raises ``LlmBatchError``."""
        batch = batch_file.load()
        items = BatchItems(batch, load_artifact(batch, "work_items", WorkItems).items)
        require_columns(batch, items.items)
        contexts = load_artifact(batch, "group_contexts", list[GroupContext])
        observer = (reporter or dagster_reporter)(context, batch)
        run = GenerateRun(items, contexts, llm.client, observer, context.run.run_id)
        of_op = context.op_execution_context if isinstance(context, dg.AssetExecutionContext) else context
        return cls(of_op, names, batch, run)

    @property
    def yields_output(self) -> bool:
        """Whether the run, if it succeeds, has an output of its own, with the totals, which lets the export follow.

        In a run of partitions, an output would mark each of them as materialized.
        """
        return self.context.has_assets_def and not has_chosen_partitions(self.context)

    @property
    def key(self) -> dg.AssetKey:
        return self.names.key("llm_outputs")

    def generate(self, config: GenerateConfig) -> Iterator[CheckFinding]:
        """Generate, then yield the findings of the checks. Raises ``Failure`` if items failed or the run was stopped."""
        run_id = self.context.run.run_id
        self.context.instance.add_run_tags(run_id, process_tags(run_id))
        close_orphans(self.context.instance)
        use_sources(self.context, self.batch, self.names, "prompts", "model_settings")
        result, quality, has_events = self._run_items(config)
        if has_events:
            self.totals.update(result.totals(quality))
            self._report_totals(result)
        # After the totals: Dagster does not show checks that are older than the latest materialization.
        yield from assess(quality, self.batch.parameters.checks)
        yield self._up_to_date(result)
        self._require_success(result)

    def _run_items(self, config: GenerateConfig) -> tuple[GenerateResult, OutputQuality, bool]:
        """Generate, and record what Dagster shows per item. The last value is False if there was nothing."""
        by_key = has_chosen_partitions(self.context)
        with forwarding_warnings(self.context), self._partition_events() as events:
            selection = self._chosen_keys(events) if by_key else config.selection()
            choice = self.run.choose(selection, force=config.force)
            hits = choice.hits if by_key else events.not_shown(self.run.items.accepted)
            for item in hits:
                self._add_hit(events, item)
            is_whole_batch = len(choice.hits) + len(choice.to_run) == len(self.run.items.items)
            events.record_versions(all_items=not by_key or is_whole_batch)
            with events.in_child_process(len(choice.to_run)):
                results = ItemResults(events, self.run.items, translating_storage_errors()(self.context.log.error))
                result = self.run.generate(choice, results.add)
                results.end()
            # Dagster ignores failures planned by a canceled run, but they would hide the failure of an earlier run.
            if isinstance(result.error, RunInterruptedError):
                self._report_interruption(result, self._quality(events, result))
            # Another run may have generated and materialized some of them in the meantime.
            failed = [item.partition_key for item in result.failed if not self.run.items.has_output(item)]
            events.add_failed(failed)
            for item in result.kept if by_key else ():
                self._add_hit(events, item)
            if result.error is not None:
                withdraw_planned(self.context, self.key, keep=self._still_failed(failed))
            # Partitions without an item have an event, too.
            has_events = bool(hits or result.tally.done or by_key)
            return result, self._quality(events, result), has_events

    def _report_interruption(self, result: GenerateResult, quality: OutputQuality) -> NoReturn:
        """End the run as canceled. Its checks cannot be evaluated, but what is out of date can be shown."""
        with holding_interrupts():
            if result.tally.done:
                self.totals.update(result.totals(quality))
                self._report_totals(result)
            report_check(self.context.instance, self.key, self._up_to_date(result))
        cancel(self.context, end_line(result))

    def _up_to_date(self, result: GenerateResult) -> CheckFinding:
        previous = PreviousOutputs(self.batch, self.run.items.items, cache_index(self.batch))
        return up_to_date(previous, result.accepted)

    def _chosen_keys(self, events: PartitionEvents) -> Selection:
        """Select the items of the partitions that the run was launched for, and mark partitions without an item."""
        items = {item.partition_key for item in self.run.items.items}
        chosen, partitions = list(self.context.partition_keys), self.names.registered(self.context.instance)
        if unknown := [key for key in chosen if key not in items]:
            events.add_retired(unknown)
            partitions.note_retired()
            shown = f"{', '.join(unknown[:MAX_NAMED])}{', ...' if len(unknown) > MAX_NAMED else ''}"
            self.context.log.warning(
                f"{counted(len(unknown), 'partition')} without an item in the table, nothing to generate: {shown}. "
                "To add an item, add a row to the table."
            )
        new = partitions.new_keys_of_backfill(self.context.run, items)
        return Selection("keys", [*(key for key in chosen if key in items), *new])

    def _still_failed(self, failed: Sequence[str]) -> set[str]:
        """The failed items of a run that was stopped, and those that failed before and were not reached."""
        return {*failed, *(key for key, state in self.run.items.states.items() if state.startswith("failed"))}

    def _partition_events(self) -> PartitionEvents:
        inputs = [self.names.key(name) for name in UPSTREAM]
        versions = run_tags(self.context.instance, self.batch.source.identity.sha, inputs)
        folder = self.batch.layout.llm_outputs
        return PartitionEvents(
            self.context, self.key, self.names.partitions, folder, versions, report=report_address(self.batch)
        )

    def _add_hit(self, events: PartitionEvents, item: WorkItem) -> None:
        items, output = self.run.items, self.run.items.output(item)
        events.add_materialized(item, output, hit=True, usage=items.usage_of_hit(item, output))

    def _quality(self, events: PartitionEvents, result: GenerateResult) -> OutputQuality:
        counts, causes = result.manifest.counts, result.manifest.failures_by_cause
        # By now Dagster has an event for every accepted output, and none of another identity.
        known = events.output_versions()
        versions = [known[key] for key in result.accepted if key in known]
        scores = self.run.items.judge_scores(result.accepted)
        return OutputQuality(counts.n_success, counts.n_fail, causes, versions, scores)

    def _report_totals(self, result: GenerateResult) -> None:
        """Let the overview of the asset, which shows its latest event, show the totals instead of the last item."""
        if self.yields_output and not (result.error or result.tally.failed):
            return
        # Dagster ends a backfill if one of its runs logs a materialization without a partition; this one has no run.
        self.context.instance.report_runless_asset_event(dg.AssetMaterialization(self.key, metadata=self.totals))

    def _require_success(self, result: GenerateResult) -> None:
        if result.error is not None:
            raise dg.Failure(f"Run stopped: {result.error}", metadata=self.totals, allow_retries=False)
        if result.tally.failed:
            causes = format_causes(result.tally.causes)
            message = (
                f"{result.tally.failed} of {counted(result.tally.total, 'item')} failed: {causes}. "
                "This run's log says why, and so do the events of each failed partition."
            )
            raise dg.Failure(message, self.totals, allow_retries=False)


def llm_outputs_asset(batch_file: BatchFile, names: Names, reporter: ReporterFactory | None) -> dg.AssetsDefinition:
    key = names.key("llm_outputs")

    @dg.asset(
        key=key,
        group_name=names.group,
        deps=[names.key(name) for name in UPSTREAM],
        partitions_def=names.partitions,
        backfill_policy=dg.BackfillPolicy.single_run(),
        io_manager_key=names.io_manager,
        output_required=False,
        required_resource_keys={names.llm},
        pool="llm",
        check_specs=output_check_specs(names),
        kinds={"llm", "json"},
        description=description("llm_outputs"),
    )
    def llm_outputs(
        context: dg.AssetExecutionContext, config: GenerateConfig
    ) -> Iterator[dg.AssetCheckResult | dg.Output[None]]:
        with failing_with_message(), _marking_nothing_as_failed(context.op_execution_context, key):
            step = GenerateStep.of(context, batch_file, names, llm_resource(context, names.llm), reporter)
            for finding in step.generate(config):
                yield dg.AssetCheckResult(**check_fields(finding))
        if step.yields_output:
            yield dg.Output(None, metadata=step.totals)

    return llm_outputs


@contextmanager
def _marking_nothing_as_failed(context: dg.OpExecutionContext, key: dg.AssetKey) -> Iterator[None]:
    """Keep the states of the partitions of a run that fails before, or outside of, its work on items."""
    try:
        yield
    except dg.Failure:
        # The run has marked its own failed items.
        raise
    except Exception:
        withdraw_planned(context, key)
        raise


def generate_pending_job(
    batch_file: BatchFile, names: Names, tags: dict[str, str], reporter: ReporterFactory | None
) -> dg.JobDefinition:
    """Return the generate stage as a job without partitions: to run the asset, the UI demands a partition."""

    @dg.op(name=names.own("generate_items"), pool="llm", required_resource_keys={names.llm})
    def generate_items(context: dg.OpExecutionContext, config: GenerateConfig) -> None:
        with failing_with_message():
            step = GenerateStep.of(context, batch_file, names, llm_resource(context, names.llm), reporter)
            for finding in step.generate(config):
                # Dagster accepts it, although its annotation does not say so.
                evaluation = check_evaluation(context.instance, step.key, finding)
                context.log_event(evaluation)  # type: ignore[arg-type]

    @dg.job(
        name=names.own("generate_pending"),
        tags=tags,
        executor_def=dg.in_process_executor,
        description="Generates all pending items in one run. Open the Launchpad tab and click Launch Run.",
    )
    def generate_pending() -> None:
        generate_items()

    return generate_pending
