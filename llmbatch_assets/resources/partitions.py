"""The partition keys of a batch in Dagster, one per work item.

Dagster checks at each tick that all keys of a backfill still exist, and ends the backfill if one does not. Keys whose item
is gone therefore stay registered, as *retired* keys, as long as an unfinished backfill or run targets keys of the batch.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import dagster as dg
import sqlalchemy
from dagster._core.definitions.data_version import DATA_VERSION_TAG
from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus, PartitionBackfill
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES
from dagster._core.storage.event_log.schema import AssetEventTagsTable, SqlEventLogStorageTable
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_START_TAG,
    BACKFILL_ID_TAG,
    PARTITION_NAME_TAG,
)

# Databases limit the variables of a statement, so keys are added in chunks.
KEYS_AT_ONCE = 10_000
IDS_AT_ONCE = 900
# The data version of a retired key's event, by which the event is found again.
RETIRED_VERSION = "retired"
_ACTIVE = [BulkActionStatus.REQUESTED, BulkActionStatus.CANCELING, BulkActionStatus.FAILING]


@runtime_checkable
class BulkPartitionStorage(Protocol):
    """An event log storage that removes many partition keys at once. Dagster's own remove one at a time."""

    def delete_dynamic_partitions(self, partitions_def_name: str, partition_keys: Sequence[str]) -> None: ...


class SyncedPartitions(NamedTuple):
    """Numbers of registered, removed and retired keys. Retired ones are removed later."""

    added: int
    removed: int
    retired: int


@dataclass(frozen=True)
class ItemPartitions:
    """The registered keys of one batch: of the partitions ``name`` of ``llm_outputs``, made from ``work_items``."""

    instance: dg.DagsterInstance
    llm_outputs: dg.AssetKey
    work_items: dg.AssetKey
    name: str

    def sync(self, keys: Sequence[str]) -> SyncedPartitions:
        """Register ``keys``, and remove all others or, while a backfill or run targets partitions, retire them.

        Dagster keeps the events of removed keys, so a key that is registered again has its previous state.
        """
        wanted, present = set(keys), set(self.instance.get_dynamic_partitions(self.name))
        if wanted - present:
            self._note_backfills_of_all(present)
        added = [key for key in keys if key not in present]
        gone = sorted(present - wanted)
        for start in range(0, len(added), KEYS_AT_ONCE):
            self.instance.add_dynamic_partitions(self.name, added[start : start + KEYS_AT_ONCE])
        if not gone and not self.has_retired:
            return SyncedPartitions(len(added), 0, 0)
        if self.is_targeted():
            self.note_retired()
            return SyncedPartitions(len(added), 0, len(gone))
        self._remove(gone)
        if self.has_retired:
            self._delete_retired_events()
            self._set(self._retired_cursor, "")
        return SyncedPartitions(len(added), len(gone), 0)

    def is_targeted(self) -> bool:
        """Return whether an unfinished backfill or run targets registered keys, for ``llm_outputs`` or another asset."""
        keys = set(self.instance.get_dynamic_partitions(self.name))
        runs = self.instance.get_runs(filters=dg.RunsFilter(statuses=NOT_FINISHED_STATUSES))
        tags = (PARTITION_NAME_TAG, ASSET_PARTITION_RANGE_START_TAG)
        return any(run.tags.get(tag) in keys for run in runs for tag in tags) or any(
            not keys.isdisjoint(subset.get_partition_keys())
            for backfill in self.instance.get_backfills(filters=BulkActionsFilter(statuses=_ACTIVE))
            if (data := backfill.asset_backfill_data)
            for subset in data.target_subset.partitions_subsets_by_asset_key.values()
        )

    @property
    def has_retired(self) -> bool:
        """Whether keys or events wait to be removed."""
        return bool(self._get(self._retired_cursor))

    def note_retired(self) -> None:
        """Remember that keys or events wait to be removed."""
        self._set(self._retired_cursor, "1")

    def new_keys_of_backfill(self, run: dg.DagsterRun, keys: Collection[str]) -> list[str]:
        """Return those of ``keys`` that were added since the backfill of this run was launched, if it targets all items.

        A backfill of all partitions and of ``work_items`` also covers items that are added later, but Dagster fixes the
        targets of a backfill when it is launched.
        """
        backfill_id = run.tags.get(BACKFILL_ID_TAG)
        if not backfill_id or backfill_id not in self._get(self._all_cursor).split():
            return []
        backfill = self.instance.get_backfill(backfill_id)
        targets = self._targets(backfill) if backfill else set(keys)
        return [key for key in keys if key not in targets]

    def _active_backfills(self) -> list[PartitionBackfill]:
        """The unfinished backfills of ``llm_outputs``."""
        active = self.instance.get_backfills(filters=BulkActionsFilter(statuses=_ACTIVE))
        return [backfill for backfill in active if self.llm_outputs in (backfill.asset_selection or ())]

    def _note_backfills_of_all(self, present: set[str]) -> None:
        """Before keys are added: remember which unfinished backfills target ``work_items`` and every present key."""
        of_all = [
            backfill.backfill_id
            for backfill in self._active_backfills()
            if self.work_items in (backfill.asset_selection or ()) and present <= self._targets(backfill)
        ]
        if of_all:
            self._set(self._all_cursor, " ".join(of_all))

    def _targets(self, backfill: PartitionBackfill) -> set[str]:
        data = backfill.asset_backfill_data
        subset = data.target_subset.partitions_subsets_by_asset_key.get(self.llm_outputs) if data else None
        return set(subset.get_partition_keys()) if subset is not None else set()

    def _remove(self, keys: Sequence[str]) -> None:
        storage = self.instance.event_log_storage
        if isinstance(storage, BulkPartitionStorage):
            storage.delete_dynamic_partitions(self.name, keys)
        else:
            for key in keys:
                self.instance.delete_dynamic_partition(self.name, key)

    def _delete_retired_events(self) -> None:
        """Delete the events of retired keys; otherwise their items, if they came back, would be shown as made.

        Dagster has a method for it, which none of its own storages implements.
        """
        storage = self.instance.event_log_storage
        if not isinstance(storage, SqlEventLogStorage):
            return
        tags, events = AssetEventTagsTable, SqlEventLogStorageTable
        retired = sqlalchemy.select(tags.c.event_id).where(
            tags.c.asset_key == self.llm_outputs.to_string(),
            tags.c.key == DATA_VERSION_TAG,
            tags.c.value == RETIRED_VERSION,
        )
        with storage.index_connection() as connection:
            ids = list(connection.execute(retired).scalars())
            for start in range(0, len(ids), IDS_AT_ONCE):
                chunk = ids[start : start + IDS_AT_ONCE]
                connection.execute(events.delete().where(events.c.id.in_(chunk)))
                connection.execute(tags.delete().where(tags.c.event_id.in_(chunk)))
        self.instance.wipe_asset_cached_status([self.llm_outputs])

    @property
    def _retired_cursor(self) -> str:
        return f"llmbatch/retired/{self.name}"

    @property
    def _all_cursor(self) -> str:
        return f"llmbatch/backfill_of_all/{self.name}"

    def _get(self, name: str) -> str:
        # The instance stores these values beside the cursors of its daemons.
        return self.instance.daemon_cursor_storage.get_cursor_values({name}).get(name, "")

    def _set(self, name: str, value: str) -> None:
        self.instance.daemon_cursor_storage.set_cursor_values({name: value})
