"""Runs that a dead process left open are closed, and nobody else's."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.partition_status_cache import AssetPartitionStatus
from dagster._core.utils import make_new_run_id

from llmbatch_assets.resources.runs import close_orphans, process_tags
from llmbatch_assets_tests.chat_server import ChatServer
from llmbatch_assets_tests.project import make_project

STARTED, CANCELED = dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELED


@dg.job
def nothing() -> None:
    """No step."""


def open_run(instance: dg.DagsterInstance, **changed: str) -> str:
    """A run that is going on, signed by this process but for what is changed; an empty value leaves a tag out."""
    run_id = make_new_run_id()
    hidden = {f".dagster/llmbatch_{name}": tag for name, tag in changed.items()}
    tags: Mapping[str, str] = {**process_tags(run_id), **hidden}
    tags = {name: tag.replace("RUN", run_id) for name, tag in tags.items() if tag}
    instance.create_run_for_job(nothing, run_id=run_id, status=STARTED, tags=tags)
    return run_id


def gone() -> int:
    """The number of a process that has ended."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


def test_only_a_signed_run_of_a_dead_process_of_this_machine_is_closed(instance: dg.DagsterInstance) -> None:
    dead = open_run(instance, process=f"{gone()}-1.00-RUN")
    same_number = open_run(instance, process=f"{os.getpid()}-1.00-RUN")
    left_alone = [
        open_run(instance),
        open_run(instance, host="another-machine", process=f"{gone()}-1.00-RUN"),
        open_run(instance, host="", process=""),
        # Launched again in the UI: the tags are those of the run that it repeats.
        open_run(instance, process=f"{gone()}-1.00-{make_new_run_id()}"),
    ]

    assert sorted(close_orphans(instance)) == sorted([dead, same_number])

    status = {run.run_id: run.status for run in instance.get_runs()}
    assert status == {**dict.fromkeys((dead, same_number), CANCELED), **dict.fromkeys(left_alone, STARTED)}
    assert close_orphans(instance) == []


def test_a_run_of_an_earlier_version_is_closed_too(instance: dg.DagsterInstance) -> None:
    run_id = make_new_run_id()
    tags = {"llmbatch/host": socket.gethostname(), "llmbatch/process": f"{gone()}-1.00-{run_id}"}
    instance.create_run_for_job(nothing, run_id=run_id, status=STARTED, tags=tags)
    assert close_orphans(instance) == [run_id]


@pytest.mark.slow
def test_a_killed_run_is_closed_by_the_next_one_of_any_stage(tmp_path: Path, server: ChatServer) -> None:
    server.delay = 0.3
    project = make_project(tmp_path / "project", server.base_url, llm={"max_workers": 1})
    assert project.llmbatch_here("run", "--select", "input_snapshot,work_items").returncode == 0
    process = subprocess.Popen(
        [sys.executable, "-m", "llmbatch_assets.cli", "run", "--select", "llm_outputs"],
        cwd=project.root,
        env=project.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while server.count() < 2 and process.poll() is None:
        time.sleep(0.01)
    beside = project.llmbatch_here("run", "--select", "input_snapshot")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()

    after = project.llmbatch_here("run", "--select", "input_snapshot")

    assert "whose process is gone" not in beside.stdout + beside.stderr
    assert "closed 1 earlier run whose process is gone" in after.stdout + after.stderr
    assert AssetPartitionStatus.FAILED not in project.partition_states().values()
    assert project.llmbatch_here("run", "--select", "llm_outputs").returncode == 0
    assert set(project.partition_states().values()) == {AssetPartitionStatus.MATERIALIZED}
