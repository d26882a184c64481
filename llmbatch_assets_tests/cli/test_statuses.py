"""Partition states in Dagster's API after all kinds of runs, on our storage and on PostgreSQL."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg
import pytest
from dagster._core.test_utils import in_process_test_workspace
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster_graphql.test.utils import execute_dagster_graphql

from llmbatch_assets.assets.batch import build_batch
from llmbatch_assets.resources.events import partition_events
from llmbatch_assets_tests import code_location
from llmbatch_assets_tests.chat_server import ChatServer, says
from llmbatch_assets_tests.event_history import POSTGRES, write_settings
from llmbatch_assets_tests.postgres_server import new_database
from llmbatch_assets_tests.project import Project, make_project

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
WRONG = says("no JSON at all")
PREPARE = ("run", "--select", "input_snapshot,work_items")
GENERATE = ("run", "--select", "llm_outputs")
COUNT = 150
# Scattered, so that no range holds them alone.
FAILING = set(range(0, COUNT, 27))
STATUSES = """{ assetNodeOrError(assetKey: {path: ["llm_outputs"]}) { ... on AssetNode {
    partitionStats { numMaterialized numFailed numMaterializing numPartitions }
    assetPartitionStatuses { ... on DefaultPartitionStatuses {
        materializedPartitions failedPartitions materializingPartitions unmaterializedPartitions } } } } }"""
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="processes are signalled as on POSIX")


class Shown(NamedTuple):
    """Partition keys by what Dagster shows of them."""

    materialized: AbstractSet[str]
    failed: AbstractSet[str]
    in_progress: AbstractSet[str] = frozenset()
    missing: AbstractSet[str] = frozenset()


@pytest.fixture(params=["embedded", "postgres"])
def project(
    request: pytest.FixtureRequest, tmp_path: Path, server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> Project:
    """A project of a dozen items whose model is the scripted server, with its records in either storage.

    Where only our handling of runs counts, one storage is enough.
    """
    llm = {"max_workers": 2, "max_retries": 1}
    project = make_project(tmp_path / "project", server.base_url, llm=llm, work_items={"label_column": "id"})
    questions(project, 12)
    if request.param == "postgres":
        monkeypatch.setenv("POSTGRES_URL_OF_THE_TEST", new_database(request.getfixturevalue("postgres_url")))
        write_settings(project.path("dagster_home"), POSTGRES)
    monkeypatch.chdir(project.root)
    monkeypatch.setenv("DAGSTER_HOME", str(project.path("dagster_home")))
    monkeypatch.setenv("TEST_KEY", "secret-key")
    return project


def questions(project: Project, count: int) -> None:
    project.table([(f"q{number}", "red", f"Question number {number}?") for number in range(count)])


def shown(project: Project) -> Shown:
    """The partitions as Dagster's pages ask for them: from its cache of statuses as from the events alone."""
    here = LoadableTargetOrigin(python_file=str(code_location.__file__))
    with dg.DagsterInstance.get() as instance, in_process_test_workspace(instance, here) as context:
        cached = statuses_of(execute_dagster_graphql(context, STATUSES).data["assetNodeOrError"])
        instance.event_log_storage.wipe_asset_cached_status(dg.AssetKey("llm_outputs"))
        assert statuses_of(execute_dagster_graphql(context, STATUSES).data["assetNodeOrError"]) == cached
    return cached


def statuses_of(node: dict[str, Any]) -> Shown:
    """The answer to ``STATUSES``."""
    found = node["assetPartitionStatuses"]
    materialized, failed, in_progress, without = (
        set(found[f"{name}Partitions"]) for name in ("materialized", "failed", "materializing", "unmaterialized")
    )
    missing = without - failed - in_progress
    assert node["partitionStats"] == {
        "numMaterialized": len(materialized),
        "numFailed": len(failed),
        "numMaterializing": len(in_progress),
        "numPartitions": len(materialized | failed | in_progress | missing),
    }
    return Shown(materialized, failed, in_progress, missing)


def run_states(job: str) -> list[str]:
    """How the runs of a job ended, the latest first."""
    with dg.DagsterInstance.get() as instance:
        return [run.status.value for run in instance.get_runs(dg.RunsFilter(job_name=job))]


def run_range(project: Project, first: str, last: str) -> bool:
    """A run of neighbouring partitions, as the pages and backfills launch them; gives whether it succeeded."""
    tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
    job = build_batch(project.config).definitions().resolve_implicit_global_asset_job_def()
    outputs = [dg.AssetKey("llm_outputs")]
    with dg.DagsterInstance.get() as instance:
        return job.execute_in_process(
            instance=instance, run_config=QUIET, tags=tags, asset_selection=outputs, raise_on_error=False
        ).success


@contextmanager
def process(project: Project, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process of the project's own, ended at the end of the block."""
    started = subprocess.Popen(
        [sys.executable, "-m", *command],
        env=project.environment(DAGSTER_HOME=os.environ["DAGSTER_HOME"]),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield started
    finally:
        started.kill()
        started.wait()


def wait_for_calls(server: ChatServer, count: int, running: subprocess.Popen[bytes] | None = None) -> None:
    deadline = time.monotonic() + 60
    while server.count() < count and (running is None or running.poll() is None):
        assert time.monotonic() < deadline, f"{server.count()} calls"
        time.sleep(0.01)


@pytest.mark.slow
def test_exactly_what_failed_is_failed_and_one_run_makes_it_good(
    project: Project, server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As in a large run, a process of its own stores the events of the first one.
    monkeypatch.setattr(partition_events, "MIN_EVENTS_FOR_PROCESS", COUNT)
    questions(project, COUNT)
    for number in FAILING:
        server.script(f"number {number}?", WRONG)
    assert project.llmbatch_here(*PREPARE).returncode == 0
    assert project.llmbatch_here(*GENERATE).returncode == 3
    keys = project.partition_keys()
    failing = {keys[number] for number in FAILING}
    assert shown(project) == Shown(set(keys) - failing, failing)

    calls = server.count()
    assert project.llmbatch_here(*GENERATE).returncode == 0
    assert server.count() == calls + len(FAILING)
    assert shown(project) == Shown(set(keys), set())
    assert run_states("generate_pending") == ["SUCCESS", "FAILURE"]


@pytest.mark.parametrize("project", ["embedded"], indirect=True)
def test_a_range_shows_what_failed_in_it_and_nothing_where_it_could_not_go_on(
    project: Project, server: ChatServer
) -> None:
    server.script("number 3?", WRONG)
    assert project.llmbatch_here(*PREPARE).returncode == 0
    keys = project.partition_keys()
    assert not run_range(project, keys[2], keys[5])
    partly = Shown({keys[2], keys[4], keys[5]}, {keys[3]}, set(), {*keys[:2], *keys[6:]})
    assert shown(project) == partly

    server.require_key = "another-key"
    assert not run_range(project, keys[4], keys[7])
    assert shown(project) == partly
    assert run_states("__ASSET_JOB") == ["FAILURE", "FAILURE"]


@pytest.mark.parametrize("project", ["embedded"], indirect=True)
def test_a_run_that_is_told_to_end_keeps_what_it_made_and_leaves_the_others_as_they_were(
    project: Project, server: ChatServer
) -> None:
    server.script("number 0?", WRONG, repeat_last=True)
    assert project.llmbatch_here(*PREPARE).returncode == 0
    keys = project.partition_keys()
    assert project.llmbatch_here(*GENERATE, "--limit", "2").returncode == 3
    server.delay = 0.2

    def tell_to_end() -> None:
        wait_for_calls(server, 8)
        os.kill(os.getpid(), signal.SIGTERM)

    # While calls are made, the signal is the run's to handle.
    teller = threading.Thread(target=tell_to_end)
    teller.start()
    assert project.llmbatch_here(*GENERATE).returncode == 128 + signal.SIGTERM
    teller.join()

    done = {keys[row] for row in project.rows_done()}
    assert 2 < len(done) < 11
    # The first item has failed again, in a run that shows no failures.
    assert shown(project) == Shown(done, {keys[0]}, set(), set(keys[1:]) - done)
    assert run_states("generate_pending") == ["CANCELED", "FAILURE"]
    assert project.llmbatch_here(*GENERATE).returncode == 3
    assert shown(project) == Shown(set(keys[1:]), {keys[0]})


@pytest.mark.slow
def test_a_range_whose_process_is_killed_shows_nothing_as_failed_once_it_is_closed(
    project: Project, server: ChatServer
) -> None:
    server.script("number 0?", WRONG)
    assert project.llmbatch_here(*PREPARE).returncode == 0
    keys = project.partition_keys()
    assert project.llmbatch_here(*GENERATE, "--limit", "2").returncode == 3
    server.delay = 0.2
    asset = ("dagster", "asset", "materialize", "-m", "llmbatch_assets.definitions", "--select", "llm_outputs")
    with process(project, *asset, "--partition-range", f"{keys[1]}...{keys[-1]}") as running:
        wait_for_calls(server, 8, running)
        running.kill()
        running.wait()
    # Whatever was planned is shown as going on, for nobody has ended it.
    assert run_states("__ASSET_JOB") == ["STARTED"]
    assert shown(project).in_progress

    assert project.llmbatch_here(*PREPARE).returncode == 0
    done = {keys[row] for row in project.rows_done()}
    now = shown(project)
    assert (now.failed, now.in_progress) == ({keys[0]}, set())
    assert {keys[1]} <= now.materialized <= done
    assert run_states("__ASSET_JOB") == ["CANCELED"]
    server.delay = 0
    assert project.llmbatch_here(*GENERATE).returncode == 0
    assert shown(project) == Shown(set(keys), set())


@pytest.mark.parametrize("project", ["embedded"], indirect=True)
def test_outputs_that_were_wiped_away_are_shown_again_as_they_come(project: Project, server: ChatServer) -> None:
    assert project.llmbatch_here(*PREPARE).returncode == 0
    assert project.llmbatch_here(*GENERATE).returncode == 0
    keys = project.partition_keys()
    shutil.rmtree(project.path("artifacts/cache/llm_outputs"))
    server.script("number 5?", WRONG)

    assert project.llmbatch_here(*GENERATE).returncode == 3
    assert server.count() == 24
    assert shown(project) == Shown({*keys} - {keys[5]}, {keys[5]})
    assert project.llmbatch_here(*GENERATE).returncode == 0
    assert shown(project) == Shown({*keys}, set())


def test_a_row_that_goes_and_comes_back_is_shown_as_it_was(project: Project, server: ChatServer) -> None:
    server.script("number 10?", WRONG)
    assert project.llmbatch_here(*PREPARE).returncode == 0
    assert project.llmbatch_here(*GENERATE).returncode == 3
    keys = project.partition_keys()
    questions(project, 10)
    assert project.llmbatch_here(*PREPARE).returncode == 0
    assert shown(project) == Shown(set(keys[:10]), set())

    questions(project, 13)
    assert project.llmbatch_here(*PREPARE).returncode == 0
    *_, new = project.partition_keys()
    assert shown(project) == Shown({*keys} - {keys[10]}, {keys[10]}, set(), {new})
    assert project.llmbatch_here(*GENERATE).returncode == 0
    assert server.count() == 12 + 2
    assert shown(project) == Shown({*keys, new}, set())


@pytest.mark.slow
def test_of_two_runs_at_once_the_one_that_fails_does_not_hide_what_the_other_made(
    project: Project, server: ChatServer
) -> None:
    # Failed where it is asked first, and answered where it is asked again: by the other run, or by neither.
    server.script("number 1?", WRONG)
    server.script("number 7?", WRONG, repeat_last=True)
    assert project.llmbatch_here(*PREPARE).returncode == 0
    keys = project.partition_keys()
    server.delay = 0.3
    with process(project, "llmbatch_assets.cli", *GENERATE) as beside:
        wait_for_calls(server, 2, beside)
        ended = {project.llmbatch_here(*GENERATE).returncode, beside.wait(60)}
    assert ended == {3}
    done = {keys[row] for row in project.rows_done()}
    assert keys[7] not in done
    assert len(done) >= 10
    assert shown(project) == Shown(done, {*keys} - done)
    assert run_states("generate_pending") == ["FAILURE", "FAILURE"]
    assert project.llmbatch_here(*GENERATE).returncode == 3
    assert shown(project) == Shown({*keys} - {keys[7]}, {keys[7]})
