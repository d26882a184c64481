"""Our storage against Dagster's default one: the same calls, the same records back, the same files."""

from __future__ import annotations

import ast
import hashlib
import inspect
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pytest
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage
from dagster._core.storage.runs import SqliteRunStorage
from dagster._core.storage.schedules import SqliteScheduleStorage
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage

from llmbatch_assets.resources.materialization_json import MaterializedPartition
from llmbatch_assets.resources.partitions import BulkPartitionStorage
from llmbatch_assets.resources.sqlite_engines import MOST_OPEN
from llmbatch_assets.resources.sqlite_storage import KEYS_AT_ONCE, BatchingEventLogStorage
from llmbatch_assets_tests.event_history import (
    DEFAULT,
    ENGINE,
    ITEMS,
    KEYS,
    MATERIALIZATION,
    OURS,
    PARTITIONS,
    PLANNED,
    RUNS,
    add_runs,
    event,
    history,
    in_batches,
    picture,
    write_settings,
)
from llmbatch_assets_tests.resources.storage_process import BATCH, RACED

InstanceAt = Callable[..., dg.DagsterInstance]
ONE_RUN = next(iter(RUNS))
# `llmbatch init` has written this file since the first version. Projects keep it, so its dotted path must stay valid.
OLDER_SETTINGS = """\
storage:
  custom:
    module: llmbatch_assets.resources.sqlite_storage
    class: BatchingSqliteStorage
    config:
      base_dir:
        env: DAGSTER_HOME

concurrency:
  pools:
    granularity: run
    default_limit: 1

run_queue:
  dequeue_interval_seconds: 1

telemetry:
  enabled: false

nux:
  enabled: false
"""


@pytest.fixture
def instance_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[InstanceAt]:
    """Opens the instance in a folder of this name, with this storage."""
    with ExitStack() as stack:

        def at(name: str, storage: dict[str, Any]) -> dg.DagsterInstance:
            home = tmp_path / name
            write_settings(home, storage)
            monkeypatch.setenv("DAGSTER_HOME", str(home))
            return stack.enter_context(dg.DagsterInstance.from_config(str(home)))

        yield at


@pytest.fixture
def ours(instance_at: InstanceAt) -> dg.DagsterInstance:
    return instance_at("ours", OURS)


def made_in(instance: dg.DagsterInstance) -> set[str]:
    return instance.event_log_storage.get_materialized_partitions(ITEMS)


# The same records back.


def test_events_one_by_one_and_in_batches_are_read_back_as_from_the_default_storage(instance_at: InstanceAt) -> None:
    events = history(seed=2, count=60)
    default, single, batched = (
        instance_at(name, storage) for name, storage in {"default": DEFAULT, "single": OURS, "batched": OURS}.items()
    )
    assert isinstance(batched.event_log_storage, BatchingEventLogStorage)
    for instance in (default, single, batched):
        add_runs(instance)
    for one in events:
        default.event_log_storage.store_event(one)
        single.event_log_storage.store_event(one)
    for batch in in_batches(events, seed=2):
        batched.event_log_storage.store_event_batch(batch)

    expected = picture(default)
    assert len(set(expected["statuses, first"].values())) >= 3
    assert picture(single) == expected
    assert picture(batched) == expected


def test_what_is_deleted_is_gone_as_from_the_default_storage(instance_at: InstanceAt) -> None:
    default, batched = instance_at("default", DEFAULT), instance_at("batched", OURS)
    for instance in (default, batched):
        add_runs(instance)
        instance.event_log_storage.store_event_batch(history(seed=2, count=60))
    expected = picture(default)
    assert picture(batched) == expected
    for instance in (default, batched):
        instance.delete_run(ONE_RUN)
    assert picture(batched) == picture(default) != expected
    for instance in (default, batched):
        instance.wipe_assets([ITEMS])
        for one in history(seed=3, count=5):
            instance.event_log_storage.store_event(one)
    # Not the records of the assets, which hold when they were wiped.
    for question in ("assets", "materialized", "event tags"):
        assert picture(batched)[question] == picture(default)[question]
    for instance in (default, batched):
        instance.event_log_storage.wipe()
    assert picture(batched) == picture(default)


def test_a_batch_leaves_of_an_asset_what_its_last_event_would(instance_at: InstanceAt) -> None:
    first, last = [ONE_RUN, *RUNS][0], [*RUNS][-1]
    batch = [
        event(MATERIALIZATION, first, 1, KEYS[0]),
        event(PLANNED, last, 2, KEYS[1]),
        event(MATERIALIZATION, first, 3, KEYS[2]),
    ]
    entries = []
    for name, storage in {"default": DEFAULT, "ours": OURS}.items():
        instance = instance_at(name, storage)
        instance.event_log_storage.store_event_batch(batch)
        (record,) = instance.get_asset_records([ITEMS])
        entries.append(record.asset_entry)
    assert entries[0] == entries[1]
    assert entries[1].last_run_id == first
    assert entries[1].last_materialization_storage_id == 3


def test_materializations_given_as_values_leave_the_same_records(instance_at: InstanceAt) -> None:
    entries = [event(MATERIALIZATION, ONE_RUN, at, key) for at, key in enumerate([*KEYS, KEYS[0]])]
    values = [
        MaterializedPartition(one.dagster_event.partition, one.timestamp, {"at": at, "text": "*ü*"}, f"v{at}")
        for at, one in enumerate(entries)
    ]
    default, ours = instance_at("default", DEFAULT), instance_at("ours", OURS)
    for instance in (default, ours):
        add_runs(instance)
    default.event_log_storage.store_event_batch(entries)
    storage = ours.event_log_storage
    assert isinstance(storage, BatchingEventLogStorage)
    storage.store_materializations(entries[4], values[:5])
    storage.store_materializations(entries[-1], values[5:])
    assert picture(ours) == picture(default)


# The same files.


def test_an_instance_goes_from_the_default_storage_to_ours_and_back(instance_at: InstanceAt) -> None:
    events = history(seed=4, count=60)
    default = instance_at("home", DEFAULT)
    add_runs(default)
    for one in events[:20]:
        default.event_log_storage.store_event(one)
    before = picture(default)

    changed = instance_at("home", OURS)
    assert picture(changed) == before
    changed.event_log_storage.store_event_batch(events[20:40])
    between = picture(changed)
    assert between != before

    back = instance_at("home", DEFAULT)
    assert picture(back) == between
    for one in events[40:]:
        back.event_log_storage.store_event(one)
    # An instance that was open all the time sees it, too.
    assert picture(changed) == picture(back) != between


def test_storage_that_is_removed_while_open_is_made_anew(ours: dg.DagsterInstance, tmp_path: Path) -> None:
    ours.event_log_storage.store_event(event(MATERIALIZATION, ONE_RUN, 1, "old"))
    shutil.rmtree(tmp_path / "ours/history/runs")
    (tmp_path / "ours/history/runs").mkdir()
    ours.event_log_storage.store_event_batch([event(MATERIALIZATION, ONE_RUN, at, f"new-{at}") for at in (2, 3)])
    assert made_in(ours) == {"new-2", "new-3"}
    assert len(ours.all_logs(ONE_RUN)) == 2


def test_a_run_is_followed_live(instance_at: InstanceAt) -> None:
    writer, reader = instance_at("home", OURS), instance_at("home", OURS)
    writer.event_log_storage.store_event(event(ENGINE, ONE_RUN, 0))
    seen, all_seen = list[str](), threading.Event()

    def on_event(entry: dg.EventLogEntry, cursor: str) -> None:
        seen.append(str(entry.timestamp))
        if len(seen) == 5:
            all_seen.set()

    reader.event_log_storage.watch(ONE_RUN, None, on_event)
    writer.event_log_storage.store_event_batch([event(MATERIALIZATION, ONE_RUN, at, str(at)) for at in (1, 2, 3)])
    writer.event_log_storage.store_event(event(ENGINE, ONE_RUN, 4))
    assert all_seen.wait(20), seen
    reader.event_log_storage.end_watch(ONE_RUN, on_event)


def test_an_instance_opens_with_the_dagster_yaml_of_older_projects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dagster.yaml").write_text(OLDER_SETTINGS, encoding="utf-8")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with dg.DagsterInstance.get() as instance:
        assert isinstance(instance.event_log_storage, BatchingEventLogStorage)
        add_runs(instance)
        instance.event_log_storage.store_event_batch([event(MATERIALIZATION, ONE_RUN, 1.0, "item-1")])
        assert made_in(instance) == {"item-1"}


# Many at once.


def test_threads_lose_nothing(ours: dg.DagsterInstance) -> None:
    def write(thread: int) -> None:
        for number in range(10):
            name = f"{thread}-{number}"
            ours.event_log_storage.store_event(event(MATERIALIZATION, f"run-{thread % 3}", 1, name))
            batch = [event(MATERIALIZATION, f"run-{thread % 3}", at, f"{name}-{at}") for at in range(5)]
            ours.event_log_storage.store_event_batch(batch)
            assert name in made_in(ours)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    assert len(made_in(ours)) == 8 * 10 * 6
    assert sum(len(ours.all_logs(f"run-{number}")) for number in range(3)) == 8 * 10 * 6


def test_of_many_runs_only_some_stay_open(ours: dg.DagsterInstance, tmp_path: Path) -> None:
    for number in range(MOST_OPEN + 2):
        ours.event_log_storage.store_event(event(MATERIALIZATION, f"run-{number}", number, str(number)))
    files = {Path(file.path).name for file in psutil.Process().open_files() if file.path.startswith(str(tmp_path))}
    open_now = {name for name in files if name.endswith(".db")}
    assert len(open_now) == MOST_OPEN
    assert {"index.db", f"run-{MOST_OPEN + 1}.db"} <= open_now
    assert len(ours.all_logs("run-0")) == 1
    ours.dispose()
    assert not any(str(tmp_path) in file.path for file in psutil.Process().open_files())


def writing(home: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "llmbatch_assets_tests.resources.storage_process", *arguments]
    environment = os.environ | {"DAGSTER_HOME": str(home)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def sound(home: Path) -> bool:
    """Whether SQLite finds nothing wrong in any database of the instance."""
    files = list((home / "history").rglob("*.db"))
    assert files
    for file in files:
        with sqlite3.connect(file) as connection:
            answer = connection.execute("PRAGMA integrity_check").fetchone()
        connection.close()
        if answer != ("ok",):
            return False
    return True


def test_two_processes_write_at_once(ours: dg.DagsterInstance, tmp_path: Path) -> None:
    home = tmp_path / "ours"
    for process in [writing(home, name, "10") for name in ("one", "two")]:
        process.communicate(timeout=60)
        assert process.returncode == 0
    assert made_in(ours) == {f"{name}-{number}" for name in ("one", "two") for number in range(10 * BATCH)}
    assert sound(home)


def test_processes_that_make_it_at_once_leave_it_whole(instance_at: InstanceAt, tmp_path: Path) -> None:
    home = tmp_path / "home"
    write_settings(home, OURS)
    with writing(home, "race", str(home)) as racers:
        assert racers.wait(60) == 0
    assert instance_at("home", OURS).get_dynamic_partitions("work_items") == RACED


def test_a_process_killed_in_the_middle_leaves_whole_batches(instance_at: InstanceAt, tmp_path: Path) -> None:
    home = tmp_path / "home"
    write_settings(home, OURS)
    with writing(home, "killed", "0") as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= 3:
                process.send_signal(signal.SIGKILL)
                break
    assert sound(home)
    # Dagster's default storage reads it, too.
    made = made_in(instance_at("home", DEFAULT))
    assert len(made) >= 4 * BATCH
    assert len(made) % BATCH == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_fork_shares_no_connection(ours: dg.DagsterInstance, tmp_path: Path) -> None:
    process = writing(tmp_path / "ours", "fork")
    process.communicate(timeout=60)
    assert process.returncode == 0
    batches = {"before": 1, "child": 2, "parent": 2, "after": 1}
    assert made_in(ours) == {f"{name}-{n}" for name, count in batches.items() for n in range(count * BATCH)}
    assert sound(tmp_path / "ours")


# Partition keys.


def test_many_partition_keys_go_at_once_and_no_others(ours: dg.DagsterInstance) -> None:
    storage = ours.event_log_storage
    assert isinstance(storage, BulkPartitionStorage)
    keys = [f"it's {number} %" for number in range(2 * KEYS_AT_ONCE + 1)]
    ours.add_dynamic_partitions("work_items", ["stays", *keys])
    ours.add_dynamic_partitions("second__work_items", keys[:2])
    storage.delete_dynamic_partitions("work_items", [*keys, "never there"])
    assert ours.get_dynamic_partitions("work_items") == ["stays"]
    assert ours.get_dynamic_partitions("second__work_items") == keys[:2]
    storage.delete_dynamic_partitions("work_items", [])
    assert ours.get_dynamic_partitions("work_items") == ["stays"]
    assert PARTITIONS.get_partition_keys(dynamic_partitions_store=ours) == ["stays"]


# Private parts of Dagster that the storage leans on. A failure here says: read Dagster's new code before you go on.

SIGNATURES = {
    SqliteEventLogStorage._connect: "(self, shard)",
    SqliteEventLogStorage._initdb: "(self, engine, for_index_shard)",
    SqliteEventLogStorage.path_for_shard: "(self, run_id)",
    SqliteEventLogStorage.has_table: "(self, table_name)",
    SqliteEventLogStorage.store_event: "(self, event)",
    SqlEventLogStorage.store_event_batch: "(self, events)",
    SqlEventLogStorage.index_transaction: "(self)",
    SqlEventLogStorage._event_to_row: "(self, event)",
    SqlEventLogStorage._has_asset_key_col_on_connection: "(self, conn, column_name)",
    SqlEventLogStorage._store_asset_event: "(self, conn, event, event_id)",
    SqlEventLogStorage._store_asset_event_tags: "(self, conn, events, event_ids)",
    SqlEventLogStorage._tags_for_asset_event: "(self, event)",
    SqlEventLogStorage._check_partitions_table: "(self)",
    SqlEventLogStorage.add_dynamic_partitions: "(self, partitions_def_name, partition_keys)",
    SqlEventLogStorage.delete_dynamic_partition: "(self, partitions_def_name, partition_key)",
    DagsterSqliteStorage.__init__: "(self, base_dir, inst_data)",
    SqliteRunStorage.__init__: "(self, conn_string, inst_data)",
    SqliteRunStorage.from_local: "(base_dir, inst_data)",
    SqliteRunStorage.connect: "(self)",
    SqliteScheduleStorage.__init__: "(self, conn_string, inst_data)",
    SqliteScheduleStorage.from_local: "(base_dir, inst_data)",
}
# Of what the storage does in its own way, a digest of the code that it was made after.
REPLACED: dict[Callable[..., Any], str] = {
    DagsterSqliteStorage.__init__: "e5e3766fcdc6",
    SqliteEventLogStorage._connect: "ce1472f28f00",
    SqliteEventLogStorage._initdb: "1e5ea18cef47",
    SqliteEventLogStorage.store_event: "413366401ed4",
    SqliteRunStorage.connect: "30468c0fbf8c",
    SqliteRunStorage.from_local: "5e071ee87cec",
    SqliteScheduleStorage.from_local: "5d74bbb294b7",
}


@pytest.mark.parametrize("method", SIGNATURES, ids=lambda method: method.__qualname__)
def test_the_storage_finds_the_methods_that_it_leans_on(method: Callable[..., Any]) -> None:
    found = f"({', '.join(inspect.signature(method).parameters)})"
    assert found == SIGNATURES[method], (
        f"Dagster {dg.__version__} has {method.__qualname__}{found}, and resources/sqlite_storage.py was written for "
        f"{SIGNATURES[method]}: read what has changed, adapt the storage, then this table"
    )


@pytest.mark.parametrize("method", REPLACED, ids=lambda method: method.__qualname__)
def test_what_the_storage_replaces_is_what_it_was(method: Callable[..., Any]) -> None:
    found = digest(method)
    assert found == REPLACED[method], (
        f"Dagster {dg.__version__} does something else in {method.__qualname__}, which resources/sqlite_storage.py does "
        f"in its own way: compare the two, adapt ours where needed, then put the digest {found} here"
    )


def digest(method: Callable[..., Any]) -> str:
    """What identifies a method's code: its statements, without comments and layout."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(method))))
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()[:12]
