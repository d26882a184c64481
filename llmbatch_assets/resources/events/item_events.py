"""Events about single work items: plain values, and the Dagster events made from them."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, NamedTuple, Protocol, Self
from urllib.parse import quote

import dagster as dg
from dagster._core.definitions.data_version import DATA_VERSION_TAG
from dagster._core.definitions.dependency import NodeHandle
from dagster._core.events import (
    AssetMaterializationPlannedData,
    AssetObservationData,
    DagsterEvent,
    StepMaterializationData,
)
from dagster._core.events.log import EventLogEntry
from dagster._core.execution.plan.handle import StepHandle
from dagster._core.instance import RUNLESS_RUN_ID

from llmbatch_assets.domain.canonical import sha1_named
from llmbatch_assets.domain.items.work import WorkItem
from llmbatch_assets.domain.outcome import AcceptedOutput, FailedAttempt
from llmbatch_assets.domain.report.item_facts import (
    ANSWER_CHARS,
    answer_beginning,
    failure_line,
    failure_table,
    input_table,
    item_table,
    output_table,
)
from llmbatch_assets.domain.text import visible
from llmbatch_assets.domain.usage import TokenUsage
from llmbatch_assets.resources.materialization_json import MaterializedPartition
from llmbatch_assets.resources.partitions import RETIRED_VERSION


@dataclass(frozen=True)
class EventOrigin:
    """The step of a run that events come from, and the asset that they are about.

    ``folder`` holds the outputs; ``versions`` are the tags that all outputs of the run share; ``report`` is the
    address of the report.
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
    report: str = ""

    @classmethod
    def of(
        cls,
        context: dg.OpExecutionContext,
        asset_key: dg.AssetKey,
        folder: PurePosixPath,
        versions: Mapping[str, str],
        report: str = "",
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
            report=report,
        )

    def report_of(self, item: WorkItem) -> str:
        """Return the address of the item in the report; empty without a report."""
        return f"{self.report}#item={quote(item.partition_key)}" if self.report else ""

    def report_text(self, item: WorkItem) -> str:
        """Return the address for a table, where Markdown would break a link; empty if it is metadata of its own."""
        return "" if self.has_report_link else self.report_of(item)

    @property
    def has_report_link(self) -> bool:
        """Whether the address is metadata. Browsers follow no link from a server's page to a file, so files have none."""
        return bool(self.report) and not self.report.startswith("file:")

    def materialization(self, made: dg.AssetMaterialization, at: float) -> EventLogEntry:
        """Return a materialization, exactly as Dagster logs one."""
        kind, data = dg.DagsterEventType.ASSET_MATERIALIZATION, StepMaterializationData(made)
        return self.step_entry(kind, data, f"Materialized value {made.label}.", at)

    def step_entry(
        self, kind: dg.DagsterEventType, data: Any, message: str, at: float, level: int = logging.DEBUG
    ) -> EventLogEntry:
        """Return an event of the step as Dagster stores it."""
        event = DagsterEvent(
            event_type_value=kind.value,
            job_name=self.job_name,
            step_handle=self.step_handle,
            node_handle=self.node_handle,
            step_kind_value=self.step_kind,
            logging_tags=self.step_tags,
            event_specific_data=data,
            message=message,
            pid=self.pid,
        )
        return self.entry(event, message, at, self.run_id, level)

    def entry(
        self, event: DagsterEvent, message: str, at: float, run_id: str, level: int = logging.DEBUG
    ) -> EventLogEntry:
        """Return an event as Dagster stores it."""
        return EventLogEntry(  # type: ignore[no-untyped-call]
            error_info=None,
            level=level,
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
    """The item has an accepted output, generated now or found in the cache (a ``hit``).

    ``usage`` is that of all its attempts. ``at`` is a Unix timestamp.
    """

    item: WorkItem
    output: AcceptedOutput
    usage: TokenUsage
    hit: bool
    at: float

    def entry(self, origin: EventOrigin) -> EventLogEntry:
        """Return the materialization of the item's partition."""
        values = self.values(origin)
        made = dg.AssetMaterialization(
            asset_key=origin.asset_key,
            partition=values.partition,
            metadata={name: _METADATA[name](text) for name, text in values.metadata.items()},
            tags={**origin.versions, DATA_VERSION_TAG: values.data_version},
        )
        return origin.materialization(made, values.at)

    def values(self, origin: EventOrigin) -> MaterializedPartition:
        """Return what differs between the materializations of a run."""
        version = sha1_named(parsed=self.output.parsed)
        return MaterializedPartition(self.item.partition_key, self.at, self._metadata(origin), version)

    def _metadata(self, origin: EventOrigin) -> dict[str, str]:
        # The page of a run loads all entries of all items, and takes longer for an entry than for a kilobyte of text.
        tables = (
            item_table(self.item, self.output, self.usage, hit=self.hit, report=origin.report_text(self.item)),
            input_table(self.item.context),
            output_table(self.output.parsed),
        )
        path = visible(f"{origin.folder}/{self.output.meta['cache_id']}.json")
        report = {"report": origin.report_of(self.item)} if origin.has_report_link else {}
        return {"item": "\n\n".join(tables), "path": path, **report}


_METADATA = {"item": dg.MetadataValue.md, "path": dg.MetadataValue.path, "report": dg.MetadataValue.url}


class FailedEvent(NamedTuple):
    """The item failed; ``file`` holds its last attempt.

    ``older`` describes the output that Dagster shows for the item, if there is one.
    """

    item: WorkItem
    failure: FailedAttempt
    file: str
    older: str
    usage: TokenUsage
    at: float

    @classmethod
    def of(cls, item: WorkItem, failure: FailedAttempt, file: str, older: str, usage: TokenUsage) -> Self:
        """Return the event of a failure at this moment. Only the beginning of the answer is kept."""
        beginning = failure.raw_text and failure.raw_text[: ANSWER_CHARS + 1]
        return cls(item, failure.model_copy(update={"raw_text": beginning}), file, older, usage, time.time())

    def entry(self, origin: EventOrigin) -> EventLogEntry:
        """Return an observation of the item's partition."""
        seen = dg.AssetObservation(
            asset_key=origin.asset_key,
            partition=self.item.partition_key,
            description=f"Failed: {self.failure.cause}",
            metadata=self._metadata(origin),
        )
        kind, data = dg.DagsterEventType.ASSET_OBSERVATION, AssetObservationData(seen)
        message = failure_line(self.item, self.failure)
        return origin.step_entry(kind, data, message, self.at, logging.INFO)

    def _metadata(self, origin: EventOrigin) -> dict[str, Any]:
        facts = {
            "failure": dg.MetadataValue.md(
                failure_table(self.failure, self.older, self.usage, report=origin.report_text(self.item))
            ),
            "answer": dg.MetadataValue.md(answer) if (answer := answer_beginning(self.failure)) else None,
            # An older output, shown beside the failure, has the same input and report.
            "input": None if self.older else dg.MetadataValue.md(input_table(self.item.context)),
            "file": dg.MetadataValue.path(visible(self.file)) if self.file else None,
            "run": dg.MetadataValue.url(f"/runs/{origin.run_id}"),
        }
        known = {name: value for name, value in facts.items() if value is not None}
        if self.older or not origin.has_report_link:
            return known
        return known | {"report": dg.MetadataValue.url(origin.report_of(self.item))}


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
