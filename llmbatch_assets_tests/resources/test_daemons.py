"""A daemon on the same instance is found while it runs, and no longer, wherever it runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._daemon.types import DaemonHeartbeat

from llmbatch_assets.resources.daemons import daemon_elsewhere, running_daemon
from llmbatch_assets_tests.dagster_api import running_ui
from llmbatch_assets_tests.postgres_server import new_database
from llmbatch_assets_tests.project import make_project


def test_the_page_does_not_open_beside_another_daemon_but_opens_after_it(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    home = project.path("dagster_home")
    home.mkdir()
    environment = os.environ | {"DAGSTER_HOME": str(home)}
    command = [sys.executable, "-m", "dagster._daemon", "run", "--empty-workspace"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as daemon:
        try:
            deadline = time.monotonic() + 30
            while (found := running_daemon(home)) is None and time.monotonic() < deadline:
                time.sleep(0.05)
            assert found == daemon.pid
            assert running_daemon(tmp_path) is None
            ended = project.llmbatch_here("ui", "--port", "3999")
            assert ended.returncode == 2
            assert ended.stderr.count("\n") == 1
            assert f"already runs on {home} (process {daemon.pid})" in ended.stderr
        finally:
            daemon.kill()
    assert running_daemon(home) is None


def heartbeat(instance: dg.DagsterInstance, at: float) -> None:
    """What a daemon leaves in the database that several machines share."""
    instance.add_daemon_heartbeat(DaemonHeartbeat(timestamp=at, daemon_type="SENSOR", daemon_id="other", errors=[]))


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, postgres_url: str) -> Iterator[dg.DagsterInstance]:
    """An instance whose database several machines may use."""
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    settings = {"storage": {"postgres": {"postgres_url": new_database(postgres_url)}}}
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(settings))
    with dg.DagsterInstance.get() as instance:
        yield instance


def test_a_daemon_on_another_machine_is_believed_when_it_writes_again(shared: dg.DagsterInstance) -> None:
    told: list[str] = []
    assert not daemon_elsewhere(shared, told.append)
    heartbeat(shared, time.time() - 3600)
    assert not daemon_elsewhere(shared, told.append)
    assert told == []
    heartbeat(shared, time.time() - 1)
    threading.Timer(1, heartbeat, (shared, time.time())).start()
    assert daemon_elsewhere(shared, told.append)
    assert len(told) == 1


def test_the_heartbeat_of_a_daemon_that_has_ended_is_not_believed(shared: dg.DagsterInstance) -> None:
    told: list[str] = []
    heartbeat(shared, time.time())
    assert not daemon_elsewhere(shared, told.append, interval=-3)
    assert len(told) == 1
    assert "another machine" in told[0]


def test_files_of_this_machine_are_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = make_project(tmp_path / "project")
    monkeypatch.setenv("DAGSTER_HOME", str(project.path("dagster_home")))
    assert project.llmbatch_here("run", "--offline", "--sample", "1").returncode == 0
    with dg.DagsterInstance.from_config(str(project.path("dagster_home"))) as instance:
        heartbeat(instance, time.time())
        assert not daemon_elsewhere(instance, pytest.fail)


@pytest.mark.slow
def test_a_restart_right_after_the_end_is_not_refused_and_the_terminal_stays_quiet(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    for _ in range(2):
        with running_ui(project) as running:
            running.process.send_signal(signal.SIGINT)
            assert running.process.wait(timeout=60) == 0
        # Neither Dagster's advice to use another command, nor what its services do all the time: what runs log.
        first, *others = (tmp_path / "ui.log").read_text().splitlines()
        assert first.startswith("Dagster on http://127.0.0.1:")
        assert [line for line in others if " - dagster - INFO - prepare - " not in line] == []
