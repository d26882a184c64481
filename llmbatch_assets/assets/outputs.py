"""``llm_outputs``: one partition per work item, any number of them in one run."""

from collections.abc import Iterator
from typing import Literal

import dagster as dg
from pydantic import Field

from llmbatch_assets.adapters.project import BatchFile
from llmbatch_assets.assets.keys import Names
from llmbatch_assets.domain.plan import Selection
from llmbatch_assets.domain.work import GroupContext, WorkItems
from llmbatch_assets.errors import RunInterruptedError
from llmbatch_assets.resources.generation import Generation, LogReporter, Outcome, ReporterFactory
from llmbatch_assets.resources.interruption import cancel
from llmbatch_assets.resources.llm import LlmResource
from llmbatch_assets.resources.partition_events import PartitionEvents


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


def llm_outputs_asset(batch_file: BatchFile, names: Names, reporter: ReporterFactory | None) -> dg.AssetsDefinition:
    """The asset that holds the outputs of a batch."""

    @dg.asset(
        key=names.key("llm_outputs"),
        group_name=names.group,
        ins={
            "work_items": dg.AssetIn(key=names.key("work_items")),
            "group_contexts": dg.AssetIn(key=names.key("group_contexts")),
        },
        deps=[names.key("llm_schema_txt"), names.key("prompts"), names.key("parameters")],
        partitions_def=names.partitions,
        backfill_policy=dg.BackfillPolicy.single_run(),
        io_manager_key=names.io_manager,
        output_required=False,
        pool="llm",
        kinds={"llm", "json"},
        description="The answers: one partition per work item. An item whose accepted output is on disk costs nothing.",
    )
    def llm_outputs(
        context: dg.AssetExecutionContext,
        config: GenerateConfig,
        work_items: WorkItems,
        group_contexts: list[GroupContext],
        llm: dg.ResourceParam[LlmResource],
    ) -> Iterator[dg.Output[None]]:
        batch = batch_file.load()
        watcher = (
            reporter(context, batch) if reporter else LogReporter(context.log.info, batch.parameters.cache.verbose)
        )
        generation = Generation(batch, work_items.items, group_contexts, llm, watcher, context.run.run_id)
        by_key = context.has_partition_key or context.has_partition_key_range
        selection = Selection(select="keys", keys=context.partition_keys) if by_key else _selection(config)
        choice = generation.choose(selection, force=config.force)
        with PartitionEvents(context, names.partitions, batch.layout.llm_outputs) as events:
            for item in choice.hits if by_key else events.lagging(generation.accepted_items):
                events.materialized(item, generation.output(item), hit=True)
            events.flush()
            outcome = generation.run(choice, lambda item, output, found: events.materialized(item, output, hit=found))
            events.failed(item.partition_key for item in outcome.failed)
            if by_key and outcome.fault is not None:
                cancel(context)
            for item in outcome.standing if by_key else ():
                events.materialized(item, generation.output(item), hit=True)
        if outcome.manifest["usage"]["requests"]:
            context.log_event(dg.AssetObservation(context.asset_key, metadata=_facts(outcome)))
        _raise_for(context, outcome)
        # A generator that yields nothing materializes nothing by itself: the events were logged one by one.
        yield from ()

    return llm_outputs


def _selection(config: GenerateConfig) -> Selection:
    return Selection(config.select, config.keys, config.limit, config.sample, config.retry_failed)


def _facts(outcome: Outcome) -> dict[str, int | float | str]:
    """What a run did and what it cost, as numbers that Dagster can plot. An unknown cost is no number."""
    usage = outcome.manifest["usage"]
    counts = {"accepted": outcome.tally.accepted, "failed": outcome.tally.failed}
    return counts | {name: value for name, value in usage.items() if value is not None}


def _raise_for(context: dg.AssetExecutionContext, outcome: Outcome) -> None:
    if isinstance(outcome.fault, RunInterruptedError):
        cancel(context)
    causes = ", ".join(f"{count} {cause}" for cause, count in sorted(outcome.tally.causes.items()))
    metadata = {**_facts(outcome), "causes": causes or "none"}
    if outcome.fault is not None:
        raise dg.Failure(f"stopped: {outcome.fault}", metadata=metadata, allow_retries=False)
    if outcome.tally.failed:
        total = outcome.tally.total
        raise dg.Failure(f"{outcome.tally.failed} of {total} items failed: {causes}", metadata, allow_retries=False)
