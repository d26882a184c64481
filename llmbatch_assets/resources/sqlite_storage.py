"""Dagster's SQLite storage with pooled connections and batched writes of events.

Files and tables are Dagster's own (same folder, same schema), so an instance can switch between this storage and the
default one at any time. It depends on private parts of Dagster; the contract test names each of them.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, Self

import sqlalchemy
from dagster import AssetKey, DagsterEventType
from dagster._core.definitions.data_version import DATA_VERSION_TAG
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.event_log.schema import (
    AssetEventTagsTable,
    DynamicPartitionsTable,
    SqlEventLogStorageTable,
)
from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME, SqliteEventLogStorage
from dagster._core.storage.runs import SqliteRunStorage
from dagster._core.storage.runs.schema import InstanceInfo
from dagster._core.storage.schedules import SqliteScheduleStorage
from dagster._core.storage.sqlite import create_db_conn_string
from dagster._core.storage.sqlite_storage import (
    DagsterSqliteStorage,
    _event_logs_directory,
    _runs_directory,
    _schedule_directory,
)
from dagster._serdes import ConfigurableClassData
from filelock import FileLock
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.pool import NullPool

from llmbatch_assets.resources.materialization_json import MaterializationJson, MaterializedPartition
from llmbatch_assets.resources.sqlite_engines import SqliteEngines, set_pragmas
from llmbatch_assets.resources.sqlite_files import EmptyFile, is_initialized

BATCHED_EVENTS = frozenset(
    {
        DagsterEventType.ASSET_MATERIALIZATION,
        DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
        DagsterEventType.ASSET_OBSERVATION,
    }
)
# Held while a process opens the storage and creates missing databases.
OPENING_LOCK = ".opening.lock"
# SQLite limits the variables of a statement; older versions to 999.
KEYS_AT_ONCE = 900
# Beside the databases: a file per batch, which is removed when another process than a run of its own writes events.
MARKS = ".llmbatch_marks"
# Set in the processes of a run from the command line, which notes its own events.
OWN_RUN_ENV = "LLMBATCH_OWN_RUN"


class BatchingSqliteStorage(DagsterSqliteStorage):
    """The storage that ``dagster.yaml`` names: Dagster's own runs and schedules, with batched events."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        # Not that of DagsterSqliteStorage, which opens each file with its migrations.
        super(DagsterSqliteStorage, self).__init__()  # type: ignore[no-untyped-call]
        self.base_dir, self._inst_data = base_dir, inst_data
        # Two processes that create the same database at once leave it with two versions, and Dagster cannot open it.
        with FileLock(Path(base_dir, OPENING_LOCK)):
            self._run_storage = KeptRunStorage.opened(_runs_directory(base_dir))
            self._schedule_storage = _schedule_storage(_schedule_directory(base_dir))
            self._event_log_storage = BatchingEventLogStorage(_event_logs_directory(base_dir))

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:
        return cls.from_local(inst_data=inst_data, **config_value)


class KeptRunStorage(SqliteRunStorage):
    """The runs. Dagster's version makes a new engine for each query, which takes longer than the query."""

    @classmethod
    def opened(cls, folder: str) -> Self:
        if is_initialized(Path(folder, "runs.db"), [InstanceInfo.name]):
            return cls(create_db_conn_string(folder, "runs"))
        return cls.from_local(folder)

    @cached_property
    def _engine(self) -> Engine:
        # It keeps no connections, so it is safe to use after a fork.
        engine = sqlalchemy.create_engine(self._conn_string, poolclass=NullPool)
        sqlalchemy.event.listen(engine, "connect", set_pragmas)
        return engine

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        with self._engine.begin() as connection:
            yield connection


def _schedule_storage(folder: str) -> SqliteScheduleStorage:
    if is_initialized(Path(folder, "schedules.db")):
        return SqliteScheduleStorage(create_db_conn_string(folder, "schedules"))
    return SqliteScheduleStorage.from_local(folder)


class BatchingEventLogStorage(SqliteEventLogStorage):
    """The event log: one database per run, and one, the index, for asset events of all runs."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        self._engines = SqliteEngines(self._initdb)
        self._empty = EmptyFile(Path(base_dir), super()._initdb)
        self._tables = set[str]()
        self._asset_columns = set[str]()
        # The files in it show that the records are as a run from the command line has left them.
        self.marks = Path(base_dir, MARKS)
        super().__init__(base_dir, inst_data)

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:
        return cls(inst_data=inst_data, **config_value)

    def _initdb(self, engine: Engine, for_index_shard: bool = False) -> None:
        path = Path(str(engine.url.database))
        # The index also holds the events of earlier runs, so it is left to Dagster.
        if path.stem != INDEX_SHARD_NAME and not path.exists():
            self._empty.copy_to(path)
        if not is_initialized(path):
            super()._initdb(engine, for_index_shard)

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        with self._engines.transaction(Path(self.path_for_shard(shard))) as connection:
            yield connection

    def has_table(self, table_name: str) -> bool:
        # Dagster asks for every event with tags, each time on a new connection. Tables are only ever added.
        if table_name not in self._tables and super().has_table(table_name):
            self._tables.add(table_name)
        return table_name in self._tables

    def _has_asset_key_col_on_connection(self, conn: Connection, column_name: str) -> bool:
        # Dagster asks for every event of an asset. Columns are only ever added.
        if column_name not in self._asset_columns and super()._has_asset_key_col_on_connection(conn, column_name):
            self._asset_columns.add(column_name)
        return column_name in self._asset_columns

    def _drop_marks(self) -> None:
        if OWN_RUN_ENV not in os.environ:
            with suppress(FileNotFoundError):
                for name in os.listdir(self.marks):  # noqa: PTH208  # called for every event
                    (self.marks / name).unlink(missing_ok=True)

    def store_event(self, event: EventLogEntry) -> None:
        self._drop_marks()
        super().store_event(event)
        self._notify_watchers(event.run_id)

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Store events in their order; consecutive asset events in one transaction per database."""
        for is_batched, neighbours in groupby(events, _is_batched):
            if is_batched:
                self._store_asset_events(list(neighbours))
            else:
                for event in neighbours:
                    self.store_event(event)

    def _store_asset_events(self, events: Sequence[EventLogEntry]) -> None:
        with self._storing_rows([self._event_to_row(event) for event in events]) as (connection, ids):
            self._store_asset_event_tags(connection, events, ids)
            for event, event_id in _last_of_each_kind(events, ids):
                self._store_asset_event(connection, event, event_id)

    def store_materializations(self, last: EventLogEntry, made: Sequence[MaterializedPartition]) -> None:
        """Store materializations of one asset by one step, the ``last`` of which is also given as Dagster's own value.

        The rows are those of ``store_event_batch``, at a third of the time: Dagster serializes only the last one.
        """
        common = self._event_to_row(last)
        as_json, own_tags = MaterializationJson(common["event"]), self._tags_for_asset_event(last)
        at = [datetime.fromtimestamp(one.at, UTC).replace(tzinfo=None) for one in made]
        rows = [
            common | {"event": as_json.of(one), "timestamp": when, "partition": one.partition}
            for one, when in zip(made, at, strict=True)
        ]
        with self._storing_rows(rows) as (connection, ids):
            tags = [
                {
                    "event_id": event_id,
                    "asset_key": common["asset_key"],
                    "key": key,
                    "value": value,
                    "event_timestamp": when,
                }
                for one, when, event_id in zip(made, at, ids, strict=True)
                for key, value in {**own_tags, DATA_VERSION_TAG: one.data_version}.items()
            ]
            if self.has_table(AssetEventTagsTable.name):
                connection.execute(AssetEventTagsTable.insert(), tags)
            self._store_asset_event(connection, last, ids[-1])

    @contextmanager
    def _storing_rows(self, rows: Sequence[dict[str, Any]]) -> Iterator[tuple[Connection, list[int]]]:
        """Insert rows of asset events; gives the transaction of the index, and the ids of the rows there."""
        self._drop_marks()
        by_run: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            by_run.setdefault(row["run_id"], []).append(row)
        for run_id, rows_of_run in by_run.items():
            with self.run_connection(run_id) as connection:
                connection.execute(SqlEventLogStorageTable.insert(), rows_of_run)
        with self.index_transaction() as connection:
            yield connection, _insert(connection, rows)
        for run_id in by_run:
            self._notify_watchers(run_id)

    def _notify_watchers(self, run_id: str) -> None:
        # Dagster's live view of a run watches its file for changes. A pooled connection writes to the log beside it.
        os.utime(self.path_for_shard(run_id))

    def add_dynamic_partitions(self, partitions_def_name: str, partition_keys: Sequence[str]) -> None:
        """Register partition keys. Unlike Dagster's version, this is safe if another run registers the same keys."""
        self._check_partitions_table()
        rows = [{"partitions_def_name": partitions_def_name, "partition": key} for key in partition_keys]
        if rows:
            with self.index_connection() as connection:
                connection.execute(DynamicPartitionsTable.insert().prefix_with("OR IGNORE"), rows)

    def delete_dynamic_partitions(self, partitions_def_name: str, partition_keys: Sequence[str]) -> None:
        """Remove partition keys, all or none. Dagster's version removes one key per transaction."""
        self._drop_marks()
        self._check_partitions_table()
        table = DynamicPartitionsTable
        with self.index_connection() as connection:
            for start in range(0, len(partition_keys), KEYS_AT_ONCE):
                chunk = table.c.partition.in_(partition_keys[start : start + KEYS_AT_ONCE])
                connection.execute(table.delete().where(table.c.partitions_def_name == partitions_def_name, chunk))

    def delete_dynamic_partition(self, partitions_def_name: str, partition_key: str) -> None:
        self._drop_marks()
        super().delete_dynamic_partition(partitions_def_name, partition_key)

    def delete_events(self, run_id: str) -> None:
        self._drop_marks()
        super().delete_events(run_id)

    def wipe(self) -> None:
        self._drop_marks()
        super().wipe()

    def wipe_asset(self, asset_key: AssetKey) -> None:
        self._drop_marks()
        super().wipe_asset(asset_key)

    def dispose(self) -> None:
        super().dispose()
        self._engines.close()


def _is_batched(event: EventLogEntry) -> bool:
    dagster_event = event.dagster_event
    return (
        dagster_event is not None and dagster_event.event_type in BATCHED_EVENTS and dagster_event.asset_key is not None
    )


def _insert(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """Insert rows into the event log and return their ids."""
    table = SqlEventLogStorageTable
    statement = table.insert().returning(table.c.id, sort_by_parameter_order=True)
    return list(connection.execute(statement, rows).scalars())


def _last_of_each_kind(events: Sequence[EventLogEntry], ids: Sequence[int]) -> list[tuple[EventLogEntry, int]]:
    """The last event of each asset and type, the only ones that the asset's row keeps."""
    last: dict[tuple[AssetKey | None, DagsterEventType], tuple[EventLogEntry, int]] = {}
    for event, event_id in zip(events, ids, strict=True):
        dagster_event = event.get_dagster_event()
        last[dagster_event.asset_key, dagster_event.event_type] = (event, event_id)
    return sorted(last.values(), key=lambda pair: pair[1])
