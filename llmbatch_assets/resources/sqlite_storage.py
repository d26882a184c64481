"""Dagster's SQLite storage with pooled connections and batched writes of events.

Files and tables are Dagster's own (same folder, same schema), so an instance can switch between this storage and the
default one at any time. It depends on private parts of Dagster; the contract test names each of them.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, Self

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
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS, create_db_conn_string
from dagster._core.storage.sqlite_storage import (
    DagsterSqliteStorage,
    _event_logs_directory,
    _runs_directory,
    _schedule_directory,
)
from dagster._serdes import ConfigurableClassData
from filelock import FileLock
from sqlalchemy.engine import URL, Connection, Engine
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry, NullPool, QueuePool

from llmbatch_assets.resources.materialization_json import MaterializationJson, MaterializedPartition
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
MOST_OPEN = 16


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
        sqlalchemy.event.listen(engine, "connect", _set_pragmas)
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

    def store_event(self, event: EventLogEntry) -> None:
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
        self._check_partitions_table()
        table = DynamicPartitionsTable
        with self.index_connection() as connection:
            for start in range(0, len(partition_keys), KEYS_AT_ONCE):
                chunk = table.c.partition.in_(partition_keys[start : start + KEYS_AT_ONCE])
                connection.execute(table.delete().where(table.c.partitions_def_name == partitions_def_name, chunk))

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


class _Open(NamedTuple):
    engine: Engine
    inode: int | None


# Engines inherited through a fork. SQLite forbids a child process even to close them, so they are kept here forever.
_INHERITED: list[OrderedDict[Path, _Open]] = []


class SqliteEngines:
    """Engines of open databases, one per file. The least recently used are closed first.

    Opening a connection costs several times as much as a small write, so connections are kept. Engines are never used
    after a fork or after their file was replaced. ``prepare`` creates the tables of a newly opened file; it gets a
    temporary engine.
    """

    def __init__(self, prepare: Callable[[Engine], None]) -> None:
        self._prepare = prepare
        self._reset()

    def _reset(self) -> None:
        self._open: OrderedDict[Path, _Open] = OrderedDict()
        self._lock = threading.Lock()
        self._pid = os.getpid()

    @contextmanager
    def transaction(self, path: Path) -> Iterator[Connection]:
        """A transaction on a database, committed at the end of the block. One at a time in this process."""
        if self._pid != os.getpid():
            _INHERITED.append(self._open)
            self._reset()
        with self._lock, self._engine(path).begin() as connection:
            yield connection

    def _engine(self, path: Path) -> Engine:
        found = self._open.get(path)
        if found is None or found.inode != _inode(path):
            self._close(path)
            self._open[path] = found = self._open_database(path)
            # The most recently used come last.
            for unused in list(self._open)[:-MOST_OPEN]:
                self._close(unused)
        self._open.move_to_end(path)
        return found.engine

    def _open_database(self, path: Path) -> _Open:
        url = URL.create("sqlite", database=str(path))
        timeout = {"timeout": SQLITE_BUSY_TIMEOUT_SECONDS}
        temporary = sqlalchemy.create_engine(url, poolclass=NullPool, connect_args=timeout)
        # Each table and index is a commit of its own, so the pragmas matter here too.
        sqlalchemy.event.listen(temporary, "connect", _set_pragmas)
        self._prepare(temporary)
        engine = sqlalchemy.create_engine(
            url,
            poolclass=QueuePool,
            # One connection is enough, since transactions take turns. There is no upper limit, because a connection
            # lost to an interrupt would block all later transactions.
            pool_size=1,
            max_overflow=-1,
            connect_args={**timeout, "check_same_thread": False},
        )
        sqlalchemy.event.listen(engine, "connect", _set_pragmas)
        return _Open(engine, _inode(path))

    def _close(self, path: Path) -> None:
        found = self._open.pop(path, None)
        if found is not None:
            found.engine.dispose()

    def close(self) -> None:
        """Close all databases. The next transaction opens its own again."""
        if self._pid == os.getpid():
            for path in list(self._open):
                self._close(path)


def _inode(path: Path) -> int | None:
    """Identifies a file, to notice that it was replaced; None if it does not exist."""
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def _set_pragmas(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    # With a write-ahead log, a commit need not wait for the disk: a killed process loses nothing, a power cut at most
    # the last commits, and the database stays consistent.
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.close()
