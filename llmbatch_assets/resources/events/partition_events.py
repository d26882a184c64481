"""What Dagster is told about the work items of a run: one partition each."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import PurePosixPath
from types import TracebackType
from typing import Self

import dagster as dg
from dagster._core.definitions.data_version import DATA_VERSION_TAG
from dagster._core.storage.partition_status_cache import AssetPartitionStatus

from llmbatch_assets.domain.items.work import WorkItem
from llmbatch_assets.domain.outcome import AcceptedOutput
from llmbatch_assets.resources.events.event_groups import EventGroups
from llmbatch_assets.resources.events.event_process import EventProcess, store_events
from llmbatch_assets.resources.events.item_events import ItemEvent, Materialized, Planned, Teller
from llmbatch_assets.resources.storage_faults import telling_storage_faults
from llmbatch_assets.resources.versions import StoredCursor, versions_sha
from llmbatch_assets.stages.interruption import holding_interrupts

# A process that stores events is worth its start, about a second of a processor, from so many events on.
WORTH_A_PROCESS = 1_000


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
        self._wanted = versions_sha(versions)
        self._mark = StoredCursor(self._instance, f"llmbatch/versions/{asset_key.to_user_string()}")
        self._teller = Teller.of(context, asset_key, folder, versions)
        self._store_here = partial(store_events, self._instance, self._teller)
        self._store: Callable[[Sequence[ItemEvent]], None] = self._store_here
        self._groups = EventGroups[ItemEvent](telling_storage_faults()(lambda group: self._store(group)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.flush()

    def flush(self) -> None:
        """Store the events that wait for their group to be full."""
        self._groups.flush()

    @contextmanager
    def apart(self, expected: int) -> Iterator[None]:
        """Have the events of this block, about so many, stored by a process of their own, where it is worth it.

        All of them are stored at the end of the block.
        """
        if expected < WORTH_A_PROCESS or not self._instance.is_persistent:
            yield
            return
        process = EventProcess(self._instance.get_ref(), self._teller, self._store_here)
        self._store = process.store
        try:
            yield
        finally:
            try:
                self.flush()
            finally:
                self._store = self._store_here
                with holding_interrupts(), telling_storage_faults():
                    process.close()

    def materialized(self, item: WorkItem, output: AcceptedOutput, *, hit: bool) -> None:
        """The item has an accepted output, made now or found."""
        self._groups.add(Materialized(item.partition_key, item.row_index, item.group_key, output, hit, at=time.time()))

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
            self._groups.add(Planned(key, at=time.time()))
        self.flush()
