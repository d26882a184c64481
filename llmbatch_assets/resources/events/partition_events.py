"""Dagster events about the work items of a run, one partition each, stored in groups."""

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import PurePosixPath
from types import TracebackType
from typing import Generic, Self, TypeVar

import dagster as dg
from dagster._core.definitions.data_version import DATA_VERSION_TAG
from dagster._core.storage.event_log.base import EventLogStorage
from dagster._core.storage.partition_status_cache import AssetPartitionStatus

from llmbatch_assets.domain.items.work import WorkItem
from llmbatch_assets.domain.outcome import AcceptedOutput
from llmbatch_assets.domain.usage import TokenUsage
from llmbatch_assets.errors import LlmBatchError
from llmbatch_assets.resources.events.event_process import EventProcess, store_events
from llmbatch_assets.resources.events.item_events import (
    EventOrigin,
    FailedEvent,
    ItemEvent,
    MaterializedEvent,
    PlannedEvent,
    RetiredEvent,
)
from llmbatch_assets.resources.instance import translating_storage_errors
from llmbatch_assets.resources.sqlite_storage import BatchingEventLogStorage
from llmbatch_assets.resources.versions import versions_sha
from llmbatch_assets.stages.runtime import holding_interrupts

# Larger groups are hardly cheaper and block the event loop for longer.
EVENTS_PER_GROUP = 50
WITHDRAWN_AT_ONCE = 500
# Maximum delay of an event, as long as the event loop runs.
MAX_DELAY_SEC = 0.5
# An event process costs about a second of processor time to start; it pays off from this many events.
MIN_EVENTS_FOR_PROCESS = 1_000
# Passing an event to another process would take almost as long as storing it here.
FAST_STORAGES: tuple[type[EventLogStorage], ...] = (BatchingEventLogStorage,)

Event = TypeVar("Event")


class EventGroups(Generic[Event]):
    """Collects events and stores them in groups, since storing a group takes Dagster little longer than one event.

    Events that could not be stored are kept, and ``flush`` tries again.
    """

    def __init__(self, store: Callable[[Sequence[Event]], None]) -> None:
        self._store_group = store
        self._waiting: list[Event] = []
        self._timer: asyncio.TimerHandle | None = None
        self._error: LlmBatchError | None = None

    def add(self, event: Event) -> None:
        """Store an event with the next group. Raises an error of the storage; the event is kept even then."""
        self._waiting.append(event)
        # An unreachable storage takes long to fail, and calls are in flight: try only once.
        if self._error is None and len(self._waiting) >= EVENTS_PER_GROUP:
            self._try_flush()
        elif self._error is None and self._timer is None and (loop := _running_loop()) is not None:
            self._timer = loop.call_later(MAX_DELAY_SEC, self._try_flush)
        if self._error is not None:
            raise self._error

    def _try_flush(self) -> None:
        try:
            self.flush()
        except LlmBatchError as error:
            self._error = error

    def flush(self) -> None:
        """Store the waiting events. Signals are handled afterwards."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._error = None
        if not self._waiting:
            return
        if _running_loop() is not None:
            # The event loop already defers signals to the end of the current step.
            self._store()
        else:
            with holding_interrupts():
                self._store()

    def _store(self) -> None:
        self._store_group(self._waiting)
        self._waiting = []


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


class PartitionEvents:
    """Events of one run of ``llm_outputs``, stored in groups. Each event is added after its file is on disk.

    Leaving the ``with`` block stores the last group. This bypasses ``context.log_event``, which stores and prints each
    event separately and keeps all of them in memory.
    """

    def __init__(
        self,
        context: dg.OpExecutionContext,
        asset_key: dg.AssetKey,
        partitions: dg.DynamicPartitionsDefinition,
        folder: PurePosixPath,
        versions: Mapping[str, str],
        report: str = "",
    ) -> None:
        """``versions`` are the tags that all outputs of the run share; ``report`` is the address of the report."""
        self._asset_key = asset_key
        self._instance = context.instance
        self._partitions = partitions
        self._versions_sha = versions_sha(versions)
        # The instance stores the sha beside the cursors of its daemons.
        self._cursor = f"llmbatch/versions/{asset_key.to_user_string()}"
        self._origin = EventOrigin.of(context, asset_key, folder, versions, report)
        self._store_here = partial(store_events, self._instance, self._origin)
        self._store: Callable[[Sequence[ItemEvent]], None] = self._store_here
        # Groups of one kind of event are stored faster than mixed ones.
        self._groups, self._failures = (
            EventGroups[ItemEvent](translating_storage_errors()(lambda group: self._store(group))) for _ in range(2)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.flush()

    def flush(self) -> None:
        """Store the events that wait for their group to fill up."""
        self._groups.flush()
        self._failures.flush()

    @contextmanager
    def in_child_process(self, expected: int) -> Iterator[None]:
        """Let a child process store the events of this block, if their number and the storage justify one.

        All of them are stored at the end of the block.
        """
        if not self._needs_process(expected):
            yield
            return
        process = EventProcess(self._instance.get_ref(), self._origin, self._store_here)
        self._store = process.store
        try:
            yield
        finally:
            try:
                self.flush()
            finally:
                self._store = self._store_here
                with holding_interrupts(), translating_storage_errors():
                    process.close()

    def _needs_process(self, expected: int) -> bool:
        is_fast = isinstance(self._instance.event_log_storage, FAST_STORAGES)
        return expected >= MIN_EVENTS_FOR_PROCESS and self._instance.is_persistent and not is_fast

    def add_materialized(
        self, item: WorkItem, output: AcceptedOutput, *, hit: bool, usage: TokenUsage | None = None
    ) -> None:
        """Record that the item has an accepted output, generated now or found in the cache (a ``hit``).

        ``usage`` is that of all its attempts, by default that of the accepted one.
        """
        self._groups.add(MaterializedEvent(item, output, usage or output.usage, hit, at=time.time()))

    def add_failure(self, event: FailedEvent) -> None:
        """Record why an item failed, for the page of its partition."""
        self._failures.add(event)

    def not_shown(self, items: Sequence[WorkItem]) -> list[WorkItem]:
        """Return those of the accepted items that Dagster does not show with this run's versions.

        After a crash or a deleted run it shows no output, after a change of versions the previous ones.
        """
        if self._recorded_sha() != self._versions_sha:
            return list(items)
        keys = [item.partition_key for item in items]
        status = self._instance.get_status_by_partition(self._asset_key, keys, self._partitions) or {}
        # A status outlives the events of a deleted run.
        with_event = self._instance.get_materialized_partitions(self._asset_key)
        shown = {key for key in keys if status.get(key) is AssetPartitionStatus.MATERIALIZED} & with_event
        return [item for item in items if item.partition_key not in shown]

    def record_versions(self, *, all_items: bool) -> None:
        """Store the waiting events. ``all_items``: every item with an output now shows this run's versions."""
        self.flush()
        if all_items:
            self._record_sha(self._versions_sha)
        elif self._recorded_sha() != self._versions_sha:
            # Some items show these versions and some others: the next run that checks all items repairs it.
            self._record_sha("")

    def _recorded_sha(self) -> str:
        return self._instance.daemon_cursor_storage.get_cursor_values({self._cursor}).get(self._cursor, "")

    def _record_sha(self, sha: str) -> None:
        self._instance.daemon_cursor_storage.set_cursor_values({self._cursor: sha})

    def output_versions(self) -> Mapping[str, str]:
        """Return the data version of each partition's latest output, by key."""
        self.flush()
        tags = self._instance.event_log_storage.get_latest_tags_by_partition(
            self._asset_key, dg.DagsterEventType.ASSET_MATERIALIZATION, [DATA_VERSION_TAG]
        )
        return {key: one[DATA_VERSION_TAG] for key, one in tags.items()}

    def add_failed(self, keys: Iterable[str]) -> None:
        """Make Dagster show the keys as failed once the run has ended in failure.

        Dagster shows a partition as FAILED if a failed run had planned it and it was not materialized since. A run that
        chose its own items has planned none, and a run of a range perhaps only the range as a whole.
        """
        self._add_all(PlannedEvent(key, at=time.time()) for key in keys)

    def add_retired(self, keys: Iterable[str]) -> None:
        """Record that there is nothing to generate for keys that are not items."""
        self._add_all(RetiredEvent(key, at=time.time()) for key in keys)

    def _add_all(self, events: Iterable[ItemEvent]) -> None:
        # Groups of one kind of event are stored faster than mixed ones.
        self.flush()
        for event in events:
            self._groups.add(event)
        self.flush()


def has_chosen_partitions(context: dg.OpExecutionContext | dg.AssetExecutionContext) -> bool:
    """Return whether the run was launched for partitions rather than for the items that its configuration selects."""
    return context.has_partition_key or context.has_partition_key_range


def withdraw_planned(context: dg.OpExecutionContext, asset_key: dg.AssetKey, keep: Collection[str] = ()) -> None:
    """Before a run of chosen partitions fails: let Dagster show only ``keep`` as failed.

    Dagster shows all partitions that a failed run had planned as failed, even those with an output from before. The others
    keep their state; those that were shown as failed become missing.
    """
    storage = context.instance.event_log_storage
    # Where Dagster plans a range in one event, that event does not affect the state of the keys.
    if not has_chosen_partitions(context) or storage.supports_partition_subset_in_asset_materialization_planned_events:
        return
    origin = EventOrigin.of(context, asset_key, PurePosixPath(), {})
    withdrawn = [PlannedEvent(key, time.time(), withdrawn=True) for key in context.partition_keys if key not in keep]
    # If the storage is down, the run fails for that reason, which users should read.
    with suppress(LlmBatchError), translating_storage_errors():
        for start in range(0, len(withdrawn), WITHDRAWN_AT_ONCE):
            store_events(context.instance, origin, withdrawn[start : start + WITHDRAWN_AT_ONCE])
