"""What Dagster is told about single work items: one partition each."""

import logging
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from types import TracebackType
from typing import Any, Self

import dagster as dg
from dagster._core.definitions.data_version import DATA_VERSION_TAG
from dagster._core.events import AssetMaterializationPlannedData, DagsterEvent, StepMaterializationData
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.partition_status_cache import AssetPartitionStatus

from llmbatch_assets.domain.canonical import readable_json
from llmbatch_assets.domain.outcome import AcceptedOutput
from llmbatch_assets.domain.work import WorkItem
from llmbatch_assets.resources.event_groups import EventGroups
from llmbatch_assets.resources.versions import Mark, output_version, versions_sha

PREVIEW_CHARS = 2000


class PartitionEvents:
    """Events of one run of ``llm_outputs``, stored in groups. An event follows its file and never goes ahead of it.

    Leaving the ``with`` block stores the last group. Past ``context.log_event`` since that stores, prints and keeps in
    memory each event by itself.
    """

    def __init__(
        self,
        context: dg.OpExecutionContext,
        asset_key: dg.AssetKey,
        partitions: dg.DynamicPartitionsDefinition,
        folder: PurePosixPath,
        versions: Mapping[str, str],
    ) -> None:
        """``versions`` are the tags that all outputs of the run have in common."""
        self._asset_key = asset_key
        self._instance = context.instance
        self._partitions = partitions
        self._folder = folder
        self._versions = versions
        self._wanted = versions_sha(versions)
        self._mark = Mark(self._instance, f"llmbatch/versions/{asset_key.to_user_string()}")
        self._step = context.get_step_execution_context()
        self._tags = self._step.event_tags
        self._groups = EventGroups(self._instance.event_log_storage.store_event_batch)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.flush()

    def flush(self) -> None:
        """Store the events that wait for their group to be full."""
        self._groups.flush()

    def materialized(self, item: WorkItem, output: AcceptedOutput, *, hit: bool) -> None:
        """The item has an accepted output, made now or found."""
        made = dg.AssetMaterialization(
            asset_key=self._asset_key,
            partition=item.partition_key,
            metadata=_metadata(item, output, str(self._folder / f"{output.meta['cache_id']}.json"), hit),
            tags={**self._versions, DATA_VERSION_TAG: output_version(output)},
        )
        # As Dagster says it.
        message = f"Materialized value {made.label}."
        self._groups.add(self._entry(self._materialization(made, message), message))

    def lagging(self, items: Sequence[WorkItem]) -> list[WorkItem]:
        """Those of the items with an output of which Dagster shows something else.

        After a crash or a deleted run it shows none, after a change of versions it shows the former ones.
        """
        if self._mark.value() != self._wanted:
            return list(items)
        keys = [item.partition_key for item in items]
        status = self._instance.get_status_by_partition(self._asset_key, keys, self._partitions) or {}
        # A status outlives the events of a run that was deleted.
        with_event = self._instance.get_materialized_partitions(self._asset_key)
        shown = {key for key in keys if status.get(key) is AssetPartitionStatus.MATERIALIZED} & with_event
        return [item for item in items if item.partition_key not in shown]

    def told(self, *, all_items: bool) -> None:
        """Store what is waiting; ``all_items`` says that every item with an output now shows this run's versions."""
        self.flush()
        if all_items:
            self._mark.set(self._wanted)
        elif self._mark.value() != self._wanted:
            # Some have these versions and some others: the next run that looks at all of them puts it right.
            self._mark.set("")

    def output_versions(self) -> Mapping[str, str]:
        """The data version of each partition's latest output, by key."""
        self.flush()
        tags = self._instance.event_log_storage.get_latest_tags_by_partition(
            self._asset_key, dg.DagsterEventType.ASSET_MATERIALIZATION, [DATA_VERSION_TAG]
        )
        return {key: one[DATA_VERSION_TAG] for key, one in tags.items()}

    def failed(self, keys: Iterable[str]) -> None:
        """Show the keys as failed once the run has ended in failure.

        Dagster paints a partition FAILED that was planned by a failed run and not materialized since. A run that
        chose its items itself has planned none, and one of a range perhaps the range alone.
        """
        # Events of one kind are written faster than mixed ones.
        self.flush()
        for key in keys:
            planned = AssetMaterializationPlannedData(self._asset_key, partition=key, partitions_subset=None)
            event = DagsterEvent.build_asset_materialization_planned_event(
                self._step.job_name, self._step.step.key, planned
            )
            self._groups.add(self._entry(event, ""))
        self.flush()

    def _materialization(self, made: dg.AssetMaterialization, message: str) -> DagsterEvent:
        step = self._step.step
        return DagsterEvent(
            event_type_value=dg.DagsterEventType.ASSET_MATERIALIZATION.value,
            job_name=self._step.job_name,
            step_handle=step.handle,
            node_handle=step.node_handle,
            step_kind_value=step.kind.value,
            logging_tags=self._tags,
            event_specific_data=StepMaterializationData(made),
            message=message,
            pid=os.getpid(),
        )

    def _entry(self, event: DagsterEvent, message: str) -> EventLogEntry:
        return EventLogEntry(  # type: ignore[no-untyped-call]
            error_info=None,
            level=logging.DEBUG,
            user_message=message,
            run_id=self._step.run_id,
            timestamp=time.time(),
            step_key=self._step.step.key,
            job_name=self._step.job_name,
            dagster_event=event,
        )


def _metadata(item: WorkItem, output: AcceptedOutput, path: str, hit: bool) -> dict[str, Any]:
    judge = output.judge or {}
    facts = {
        "path": dg.MetadataValue.path(path),
        "cache_id": output.meta["cache_id"],
        "row_index": item.row_index,
        "group_key": item.group_key,
        "attempt": output.meta["attempt_outer"],
        "model": output.meta["model"],
        "verdict": judge.get("verdict"),
        "judge_score": judge.get("score"),
        "input_tokens": output.usage.input_tokens,
        "cached_input_tokens": output.usage.cached_input_tokens,
        "output_tokens": output.usage.output_tokens,
        "cost_usd": output.usage.cost_usd,
        "latency_sec": output.latency_sec,
        "source": "cache" if hit else "fresh",
        "preview": dg.MetadataValue.md(_preview(output.parsed)),
    }
    return {name: value for name, value in facts.items() if value is not None}


def _preview(parsed: dict[str, Any]) -> str:
    # A text with a fence in it must not close ours.
    text = readable_json(parsed)[:PREVIEW_CHARS]
    fence = "`" * 12 if "```" in text else "```"
    return f"{fence}json\n{text}\n{fence}"
