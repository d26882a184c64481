"""The project's Dagster instance: made, found, changed to another storage, and never lost."""

from __future__ import annotations

import os
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.partition_status_cache import AssetPartitionStatus
from dagster_postgres.event_log import PostgresEventLogStorage
from dagster_postgres.utils import DagsterPostgresException
from sqlalchemy.exc import OperationalError

from llmbatch_assets.assets.batch import build_batch
from llmbatch_assets.cli.session import use_project_instance
from llmbatch_assets.errors import RunPermanentError
from llmbatch_assets.resources.instance import translating_storage_errors
from llmbatch_assets.resources.sqlite_storage import BatchingEventLogStorage
from llmbatch_assets_tests.chat_server import ChatServer, says
from llmbatch_assets_tests.event_history import DEFAULT, OURS, PLANNED, POSTGRES, write_settings
from llmbatch_assets_tests.postgres_server import new_database
from llmbatch_assets_tests.project import ROWS, Project, make_project, partition_states

MATERIALIZED, FAILED = AssetPartitionStatus.MATERIALIZED, AssetPartitionStatus.FAILED
HARBOUR = ROWS[2][2]
MADE = "input_snapshot,work_items,llm_outputs"
WRONG = says("no JSON at all")
OUTPUTS = dg.AssetKey("llm_outputs")
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
ROOT = Path(__file__).parents[2]


@pytest.fixture
def disk_project(tmp_path: Path, server: ChatServer) -> Project:
    """A project whose instance is on disk, and whose model is the scripted server."""
    return make_project(tmp_path / "project", server.base_url, llm={"max_retries": 1})


@contextmanager
def instance_of(project: Project) -> Iterator[dg.DagsterInstance]:
    """The project's Dagster instance, as another process has it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", str(project.path("dagster_home")))
        with dg.DagsterInstance.get() as instance:
            yield instance


def runs_of(project: Project) -> dict[str, str]:
    """Job names and states, the latest run of each."""
    with instance_of(project) as instance:
        return {run.job_name: run.status.value for run in reversed(instance.get_runs())}


def test_a_new_project_is_given_the_instance_of_the_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", "7")
    home = use_project_instance(tmp_path)
    packaged = resources.files("llmbatch_assets.cli").joinpath("dagster.yaml").read_bytes()
    assert (home / "dagster.yaml").read_bytes() == packaged == (ROOT / "dagster_home/dagster.yaml").read_bytes()
    # What the environment says stays.
    assert os.environ["DAGSTER_EVENT_BATCH_SIZE"] == "7"
    with dg.DagsterInstance.get() as instance:
        assert type(instance.event_log_storage) is BatchingEventLogStorage
        assert not instance.telemetry_enabled
        assert not instance.nux_enabled
    assert (home / "history/runs/index.db").is_file()


@pytest.mark.parametrize(
    ("storage", "made"), [("sqlite", SqliteEventLogStorage), ("postgres", PostgresEventLogStorage)]
)
def test_the_blocks_that_the_settings_tell_to_change_to_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, postgres_url: str, storage: str, made: type
) -> None:
    lines = (ROOT / "dagster_home/dagster.yaml").read_text().splitlines()
    told = "\n".join(line.removeprefix("#   ") for line in lines if line.startswith("#   "))
    (block,) = (one for text in told.split("storage:\n") if (one := yaml.safe_load(text)) and storage in one)
    write_settings(tmp_path, block)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", postgres_url)
    with dg.DagsterInstance.get() as instance:
        assert type(instance.event_log_storage) is made


def test_a_project_goes_on_after_its_storage_was_changed_and_changed_back(
    disk_project: Project, server: ChatServer
) -> None:
    home = disk_project.path("dagster_home")
    write_settings(home, DEFAULT)
    server.script(HARBOUR, WRONG)
    assert disk_project.llmbatch_here("run", "--select", MADE).returncode == 3
    keys = disk_project.partition_keys()
    before = disk_project.partition_states()
    assert before == dict.fromkeys(keys, MATERIALIZED) | {keys[2]: FAILED}
    assert runs_of(disk_project) == {"prepare": "SUCCESS", "generate_pending": "FAILURE"}

    write_settings(home, OURS)
    assert disk_project.partition_states() == before
    assert runs_of(disk_project)["generate_pending"] == "FAILURE"
    assert disk_project.llmbatch_here("run", "--select", "llm_outputs").returncode == 0
    assert server.count() == 5 + 1
    done = dict.fromkeys(keys, MATERIALIZED)
    assert disk_project.partition_states() == done

    write_settings(home, DEFAULT)
    assert disk_project.partition_states() == done
    assert runs_of(disk_project)["generate_pending"] == "SUCCESS"
    assert server.count() == 5 + 1


def test_a_deleted_run_is_made_good_by_the_next_one_without_a_call(disk_project: Project, server: ChatServer) -> None:
    assert disk_project.llmbatch_here("run", "--select", MADE).returncode == 0
    calls, keys, asset = server.count(), set(disk_project.partition_keys()), dg.AssetKey("llm_outputs")
    with instance_of(disk_project) as instance:
        assert set(disk_project.partition_states().values()) == {MATERIALIZED}
        (run,) = instance.get_runs(dg.RunsFilter(job_name="generate_pending"))
        instance.delete_run(run.run_id)
        # The statuses are still those of before, and nothing is behind them.
        assert set(disk_project.partition_states().values()) == {MATERIALIZED}
        assert instance.get_materialized_partitions(asset) == set()
    assert disk_project.llmbatch_here("run", "--select", "llm_outputs").returncode == 0
    with instance_of(disk_project) as instance:
        assert instance.get_materialized_partitions(asset) == keys
    assert server.count() == calls


@pytest.mark.parametrize("launched_by_us", [True, False])
def test_a_range_is_planned_in_batches_by_what_we_launch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, launched_by_us: bool
) -> None:
    project = make_project(tmp_path / "project")
    monkeypatch.setenv("DAGSTER_HOME", str(project.path("dagster_home")))
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", "0")
    if launched_by_us:
        monkeypatch.delenv("DAGSTER_EVENT_BATCH_SIZE")
    use_project_instance(project.root)
    definitions, planned = build_batch(project.config).definitions(), list[int]()
    with dg.DagsterInstance.get() as instance:
        definitions.resolve_job_def("prepare").execute_in_process(instance=instance, run_config=QUIET)
        keys = project.partition_keys()
        store = instance.event_log_storage.store_event_batch

        def counted(events: Any) -> None:
            planned.append(sum(event.dagster_event_type is PLANNED for event in events))
            store(events)

        monkeypatch.setattr(instance.event_log_storage, "store_event_batch", counted)
        tags = {"dagster/asset_partition_range_start": keys[0], "dagster/asset_partition_range_end": keys[-1]}
        job = definitions.resolve_implicit_global_asset_job_def()
        assert job.execute_in_process(instance=instance, run_config=QUIET, tags=tags, asset_selection=[OUTPUTS]).success
    assert [count for count in planned if count] == ([5] if launched_by_us else [])
    assert project.partition_states() == dict.fromkeys(keys, MATERIALIZED)


def test_in_postgres_a_range_is_planned_in_one_event_by_what_we_launch(
    disk_project: Project, server: ChatServer, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DAGSTER_EVENT_BATCH_SIZE", "DAGSTER_EMIT_PARTITION_SUBSET_IN_PLANNED_EVENTS"):
        monkeypatch.setenv(name, "to be put back")
        monkeypatch.delenv(name)
    monkeypatch.setenv("DAGSTER_HOME", str(disk_project.path("dagster_home")))
    monkeypatch.setenv("TEST_KEY", "secret-key")
    monkeypatch.setenv("POSTGRES_URL_OF_THE_TEST", new_database(postgres_url))
    write_settings(disk_project.path("dagster_home"), POSTGRES)
    use_project_instance(disk_project.root)
    server.script(HARBOUR, WRONG)
    definitions = build_batch(disk_project.config).definitions()
    with dg.DagsterInstance.get() as instance:
        definitions.resolve_job_def("prepare").execute_in_process(instance=instance, run_config=QUIET)
        keys = disk_project.partition_keys()
        tags = {"dagster/asset_partition_range_start": keys[1], "dagster/asset_partition_range_end": keys[3]}
        job = definitions.resolve_implicit_global_asset_job_def()
        run = job.execute_in_process(
            instance=instance, run_config=QUIET, tags=tags, raise_on_error=False, asset_selection=[OUTPUTS]
        )
        planned = [entry.get_dagster_event().partition for entry in instance.all_logs(run.run_id, of_type=PLANNED)]
        states = partition_states(instance)
    # The range, and what failed of it.
    assert planned == [None, keys[2]]
    assert states == {**dict.fromkeys(keys), keys[1]: MATERIALIZED, keys[2]: FAILED, keys[3]: MATERIALIZED}


def test_a_project_keeps_its_records_in_postgres(
    disk_project: Project, server: ChatServer, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_settings(disk_project.path("dagster_home"), POSTGRES)
    monkeypatch.setenv("POSTGRES_URL_OF_THE_TEST", postgres_url)
    server.script(HARBOUR, WRONG)
    assert disk_project.llmbatch_here("run").returncode == 3
    keys = disk_project.partition_keys()
    assert disk_project.partition_states() == dict.fromkeys(keys, MATERIALIZED) | {keys[2]: FAILED}
    assert runs_of(disk_project) == {"prepare": "SUCCESS", "generate_pending": "FAILURE", "publish": "SUCCESS"}
    # Fewer rows, other settings, made-up answers: partitions go, and new outputs are told.
    disk_project.table(ROWS[:4])
    assert disk_project.llmbatch_here("run", "--offline").returncode == 0
    assert disk_project.partition_states() == dict.fromkeys(keys[:4], MATERIALIZED)
    assert not disk_project.path("dagster_home/history").exists()


def test_records_that_dagster_cannot_open_are_told_and_outputs_outlive_them(disk_project: Project) -> None:
    assert disk_project.llmbatch_here("run").returncode == 0
    with closing(sqlite3.connect(disk_project.path("dagster_home/history/runs.db"))) as runs:
        runs.execute("INSERT INTO alembic_version VALUES ('5771160a95ad')")
        runs.commit()
    # With nothing to do, a run would not open the records.
    ended = disk_project.llmbatch("run", "--select", "export")
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert f"move {disk_project.path('dagster_home/history')}" in ended.stderr
    for folder in ("history", "schedules"):
        disk_project.path(f"dagster_home/{folder}").rename(disk_project.path(folder))
    assert disk_project.llmbatch_here("run").returncode == 0
    assert set(disk_project.partition_states().values()) == {MATERIALIZED}


@pytest.mark.parametrize("command", [("run",), ("ui", "--port", "{port}")], ids=["run", "ui"])
@pytest.mark.parametrize(
    ("storage", "url", "told"),
    [
        (POSTGRES, None, "POSTGRES_URL_OF_THE_TEST is not set"),
        (POSTGRES, "postgresql://postgres@/postgres", "must begin with postgresql+psycopg2://"),
        ({"custom": {"module": "nowhere_installed", "class": "Storage", "config": {}}}, None, "nowhere_installed"),
    ],
    ids=["no variable", "another driver", "not installed"],
)
def test_what_is_wrong_with_the_settings_is_told_in_one_line(
    disk_project: Project, command: tuple[str, ...], storage: dict[str, Any], url: str | None, told: str
) -> None:
    write_settings(disk_project.path("dagster_home"), storage)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    arguments = [argument.format(port=port) for argument in command]
    ended = disk_project.llmbatch_here(*arguments, **({"POSTGRES_URL_OF_THE_TEST": url} if url else {}))
    assert ended.returncode == 2
    assert told in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


REFUSED = OperationalError("SELECT 1", {}, sqlite3.OperationalError("connection refused\n\tIs the server running?"))


def test_what_the_database_says_is_told_whatever_dagster_puts_in_front_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "/project/dagster_home")
    behind = DagsterPostgresException("too many retries for DB connection")
    behind.__cause__ = REFUSED
    for fault in (REFUSED, behind):
        with pytest.raises(RunPermanentError) as told, translating_storage_errors():
            raise fault
        assert told.value.cause == "dagster_storage"
        assert "/project/dagster_home) cannot be used: connection refused. Is" in str(told.value)


def test_other_faults_are_no_fault_of_the_storage() -> None:
    ours = ZeroDivisionError("ours")
    ours.__context__ = REFUSED
    with pytest.raises(ZeroDivisionError), translating_storage_errors():
        raise ours
