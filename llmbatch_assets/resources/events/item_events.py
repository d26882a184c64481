"""Events about single work items: plain values, and the Dagster events made from them."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, NamedTuple, Protocol, Self

import dagster as dg
from dagster._core.definitions.data_version import DATA_VERSION_TAG
from dagster._core.definitions.dependency import NodeHandle
from dagster._core.events import AssetMaterializationPlannedData, DagsterEvent, StepMaterializationData
from dagster._core.events.log import EventLogEntry
from dagster._core.execution.plan.handle import StepHandle
from dagster._core.instance import RUNLESS_RUN_ID

from llmbatch_assets.domain.canonical import readable_json, sha1_named
from llmbatch_assets.domain.outcome import AcceptedOutput
from llmbatch_assets.resources.partitions import RETIRED_VERSION

PREVIEW_CHARS = 2000


@dataclass(frozen=True)
class EventOrigin:
    """The step of a run that events come from, and the asset that they are about.

    ``folder`` holds the outputs; ``versions`` are the tags that all outputs of the run share.
    """

    run_id: str
    job_name: str
    step_key: str
    step_handle: StepHandle
    node_handle: NodeHandle
    step_kind: str
    step_tags: Mapping[str, str]
    pid: int
    asset_key: dg.AssetKey
    folder: PurePosixPath
    versions: Mapping[str, str]

    @classmethod
    def of(
        cls, context: dg.OpExecutionContext, asset_key: dg.AssetKey, folder: PurePosixPath, versions: Mapping[str, str]
    ) -> Self:
        """Return the step of this context, in this process."""
        step_context = context.get_step_execution_context()
        step = step_context.step
        assert isinstance(step.handle, StepHandle)
        return cls(
            run_id=step_context.run_id,
            job_name=step_context.job_name,
            step_key=step.key,
            step_handle=step.handle,
            node_handle=step.node_handle,
            step_kind=step.kind.value,
            step_tags=step_context.event_tags,
            pid=os.getpid(),
            asset_key=asset_key,
            folder=folder,
            versions=versions,
        )

    def materialization(self, made: dg.AssetMaterialization, at: float) -> EventLogEntry:
        """Return a materialization, exactly as Dagster logs one."""
        message = f"Materialized value {made.label}."
        event = DagsterEvent(
            event_type_value=dg.DagsterEventType.ASSET_MATERIALIZATION.value,
            job_name=self.job_name,
            step_handle=self.step_handle,
            node_handle=self.node_handle,
            step_kind_value=self.step_kind,
            logging_tags=self.step_tags,
            event_specific_data=StepMaterializationData(made),
            message=message,
            pid=self.pid,
        )
        return self.entry(event, message, at, self.run_id)

    def entry(self, event: DagsterEvent, message: str, at: float, run_id: str) -> EventLogEntry:
        """Return an event as Dagster stores it."""
        return EventLogEntry(  # type: ignore[no-untyped-call]
            error_info=None,
            level=logging.DEBUG,
            user_message=message,
            run_id=run_id,
            timestamp=at,
            step_key=self.step_key,
            job_name=self.job_name,
            dagster_event=event,
        )


class ItemEvent(Protocol):
    """An event about an item; cheap to create and to pass to another process."""

    def entry(self, origin: EventOrigin) -> EventLogEntry:
        """Return the event as Dagster stores it."""


class MaterializedEvent(NamedTuple):
    """The item has an accepted output, generated now or found in the cache (a ``hit``). ``at`` is a Unix timestamp."""

    partition_key: str
    row_index: int | None
    group_key: str | None
    output: AcceptedOutput
    hit: bool
    at: float

    def entry(self, origin: EventOrigin) -> EventLogEntry:
        """Return the materialization of the item's partition."""
        made = dg.AssetMaterialization(
            asset_key=origin.asset_key,
            partition=self.partition_key,
            metadata=self._metadata(origin.folder),
            tags={**origin.versions, DATA_VERSION_TAG: sha1_named(parsed=self.output.parsed)},
        )
        return origin.materialization(made, self.at)

    def _metadata(self, folder: PurePosixPath) -> dict[str, Any]:
        output, judge = self.output, self.output.judge or {}
        facts = {
            "path": dg.MetadataValue.path(str(folder / f"{output.meta['cache_id']}.json")),
            "cache_id": output.meta["cache_id"],
            "row_index": self.row_index,
            "group_key": self.group_key,
            "attempt": output.meta["attempt_outer"],
            "model": output.meta["model"],
            "verdict": judge.get("verdict"),
            "judge_score": judge.get("score"),
            "input_tokens": output.usage.input_tokens,
            "cached_input_tokens": output.usage.cached_input_tokens,
            "output_tokens": output.usage.output_tokens,
            "cost_usd": output.usage.cost_usd,
            "latency_sec": round(output.latency_sec, 3),
            "source": "cache" if self.hit else "generated",
            "preview": dg.MetadataValue.md(_preview(output.parsed)),
        }
        return {name: value for name, value in facts.items() if value is not None}


class RetiredEvent(NamedTuple):
    """A key that a run targets, but that is no item of the table: there is nothing to generate for it.

    Without a materialization, Dagster would count it as failed in its backfill and skip what follows.
    """

    partition_key: str
    at: float

    def entry(self, origin: EventOrigin) -> EventLogEntry:
        """Return a materialization that says so. It is deleted together with the key."""
        made = dg.AssetMaterialization(
            asset_key=origin.asset_key,
            partition=self.partition_key,
            metadata={"state": "not an item of the current table; nothing was generated"},
            tags={DATA_VERSION_TAG: RETIRED_VERSION},
        )
        return origin.materialization(made, self.at)


class PlannedEvent(NamedTuple):
    """The run planned to generate the item. If the run fails without materializing it, Dagster shows it as FAILED.

    A ``withdrawn`` one supersedes an earlier one: since it belongs to no run, Dagster shows the state from before.
    """

    partition_key: str
    at: float
    withdrawn: bool = False

    def entry(self, origin: EventOrigin) -> EventLogEntry:
        """Return a planned materialization, exactly as Dagster logs one."""
        planned = AssetMaterializationPlannedData(
            origin.asset_key, partition=self.partition_key, partitions_subset=None
        )
        event = DagsterEvent.build_asset_materialization_planned_event(origin.job_name, origin.step_key, planned)
        return origin.entry(event, "", self.at, run_id=RUNLESS_RUN_ID if self.withdrawn else origin.run_id)


def _preview(parsed: dict[str, Any]) -> str:
    # A code fence in the text must not close ours.
    text = readable_json(parsed)[:PREVIEW_CHARS]
    fence = "`" * 12 if "```" in text else "```"
    return f"{fence}json\n{text}\n{fence}"
