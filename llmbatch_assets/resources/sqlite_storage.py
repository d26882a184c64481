"""Dagster's SQLite storage with connections that stay open and events that are written in batches.

Files and tables are Dagster's own (the same folder, the same schema), so that an instance can change between this
storage and the default one at any time. It leans on private parts of Dagster; the contract test names each of them.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any, Self

from dagster import AssetKey, DagsterEventType
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.event_log.schema import DynamicPartitionsTable, SqlEventLogStorageTable
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage, _event_logs_directory
from dagster._serdes import ConfigurableClassData
from filelock import FileLock
from sqlalchemy.engine import Connection

from llmbatch_assets.resources.sqlite_engines import SqliteEngines

WRITTEN_IN_BATCHES = frozenset(
    {
        DagsterEventType.ASSET_MATERIALIZATION,
        DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
        DagsterEventType.ASSET_OBSERVATION,
    }
)
# Held while a process opens the storage and makes what is not there yet.
MAKING_LOCK = ".opening.lock"
# SQLite limits the variables of a statement; older ones to 999.
KEYS_AT_ONCE = 900


class BatchingEventLogStorage(SqliteEventLogStorage):
    """The event log: one database per run, and one, the index, of what concerns assets in all runs."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        self._engines = SqliteEngines(self._initdb)
        self._tables = set[str]()
        self._asset_columns = set[str]()
        super().__init__(base_dir, inst_data)

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:
        return cls(inst_data=inst_data, **config_value)

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        with self._engines.transaction(Path(self.path_for_shard(shard))) as connection:
            yield connection

    def has_table(self, table_name: str) -> bool:
        # Asked for every event with tags, on a connection of its own. Tables are only ever added.
        if table_name not in self._tables and super().has_table(table_name):
            self._tables.add(table_name)
        return table_name in self._tables

    def _has_asset_key_col_on_connection(self, conn: Connection, column_name: str) -> bool:
        # Asked for every event of an asset. Columns are only ever added.
        if column_name not in self._asset_columns and super()._has_asset_key_col_on_connection(conn, column_name):
            self._asset_columns.add(column_name)
        return column_name in self._asset_columns

    def store_event(self, event: EventLogEntry) -> None:
        super().store_event(event)
        self._tell_watchers(event.run_id)

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Store events in their order; neighbours that concern assets in one go."""
        for in_one_go, neighbours in groupby(events, _is_written_in_batches):
            if in_one_go:
                self._store_asset_events(list(neighbours))
            else:
                for event in neighbours:
                    self.store_event(event)

    def _store_asset_events(self, events: Sequence[EventLogEntry]) -> None:
        rows = [self._event_to_row(event) for event in events]
        of_run: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            of_run.setdefault(row["run_id"], []).append(row)
        for run_id, own in of_run.items():
            with self.run_connection(run_id) as connection:
                connection.execute(SqlEventLogStorageTable.insert(), own)
        with self.index_transaction() as connection:
            ids = _inserted(connection, rows)
            self._store_asset_event_tags(connection, events, ids)
            for event, event_id in _last_of_each_kind(events, ids):
                self._store_asset_event(connection, event, event_id)
        for run_id in of_run:
            self._tell_watchers(run_id)

    def _tell_watchers(self, run_id: str) -> None:
        # Who follows a run live waits for its file to change. A connection that stays open writes beside it, to the log.
        os.utime(self.path_for_shard(run_id))

    def add_dynamic_partitions(self, partitions_def_name: str, partition_keys: Sequence[str]) -> None:
        """Register partition keys, also those that another run registers meanwhile; Dagster's own way looks first."""
        self._check_partitions_table()
        rows = [{"partitions_def_name": partitions_def_name, "partition": key} for key in partition_keys]
        if rows:
            with self.index_connection() as connection:
                connection.execute(DynamicPartitionsTable.insert().prefix_with("OR IGNORE"), rows)

    def delete_dynamic_partitions(self, partitions_def_name: str, partition_keys: Sequence[str]) -> None:
        """Remove partition keys, all or none of them; Dagster's own way is a transaction for each."""
        self._check_partitions_table()
        table = DynamicPartitionsTable
        with self.index_connection() as connection:
            for start in range(0, len(partition_keys), KEYS_AT_ONCE):
                gone = table.c.partition.in_(partition_keys[start : start + KEYS_AT_ONCE])
                connection.execute(table.delete().where(table.c.partitions_def_name == partitions_def_name, gone))

    def dispose(self) -> None:
        super().dispose()
        self._engines.close()


class BatchingSqliteStorage(DagsterSqliteStorage):
    """What ``dagster.yaml`` names: runs and schedules as Dagster keeps them, events in batches."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        # Two processes that make the same databases at once leave them with two versions, which Dagster never opens again.
        with FileLock(Path(base_dir, MAKING_LOCK)):
            super().__init__(base_dir, inst_data)
            self._event_log_storage = BatchingEventLogStorage(_event_logs_directory(base_dir))

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:
        return cls.from_local(inst_data=inst_data, **config_value)


def _is_written_in_batches(event: EventLogEntry) -> bool:
    happened = event.dagster_event
    return happened is not None and happened.event_type in WRITTEN_IN_BATCHES and happened.asset_key is not None


def _inserted(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """Insert rows; gives their ids."""
    table = SqlEventLogStorageTable
    statement = table.insert().returning(table.c.id, sort_by_parameter_order=True)
    return list(connection.execute(statement, rows).scalars())


def _last_of_each_kind(events: Sequence[EventLogEntry], ids: Sequence[int]) -> list[tuple[EventLogEntry, int]]:
    """The last event of each asset and type: an asset's own row keeps no other."""
    last: dict[tuple[AssetKey | None, DagsterEventType], tuple[EventLogEntry, int]] = {}
    for event, event_id in zip(events, ids, strict=True):
        happened = event.get_dagster_event()
        last[happened.asset_key, happened.event_type] = (event, event_id)
    return sorted(last.values(), key=lambda pair: pair[1])
