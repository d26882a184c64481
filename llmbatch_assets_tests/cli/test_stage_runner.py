"""Stages report what happens between them, and the exit code tells which signal ended a run."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from llmbatch_assets.cli.stage_runner import SignalRecorder
from llmbatch_assets_tests.chat_server import Answer, ChatCall, ChatServer, says
from llmbatch_assets_tests.project import SCHEMA, Project, make_project

# A trusted schema is run. This one waits for Dagster to handle signals, which it does only while a stage runs.
KILLS = """
import os, signal, threading, time

def kill():
    while signal.getsignal(signal.SIGTERM) in (signal.SIG_DFL, None):
        time.sleep(0.001)
    os.kill(os.getpid(), int(os.environ["KILL_WITH"]))

if "KILL_WITH" in os.environ:
    threading.Thread(target=kill, daemon=True).start()
"""

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")


@posix_only
def test_the_last_signal_that_ends_a_process_is_recorded_beside_its_handler() -> None:
    handled: list[int] = []
    before = {number: signal.signal(number, lambda got, _: handled.append(got)) for number in (2, 15, signal.SIGUSR1)}
    recorded = SignalRecorder()
    try:
        assert recorded.last() == 0
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGUSR1)
        assert recorded.last() == signal.SIGTERM
        assert handled == [signal.SIGTERM, signal.SIGUSR1]
    finally:
        recorded.close()
        for number, handler in before.items():
            signal.signal(number, handler)


@posix_only
def test_a_run_that_is_told_to_end_before_its_calls_says_by_what(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project", llm_schema={"trust": True})
    project.write("schema/llm_schema.py", SCHEMA + KILLS)
    for number in (signal.SIGTERM, signal.SIGINT):
        ended = project.llmbatch("run", KILL_WITH=str(int(number)))
        assert ended.returncode == 128 + number, ended.stdout + ended.stderr
        assert "generate:" not in ended.stdout
        assert "interrupted" in ended.stdout


def test_a_schema_that_changes_while_outputs_are_made_is_told(
    project_with: Callable[..., Project], server: ChatServer
) -> None:
    project = project_with(llm={"max_workers": 1})

    def edits(call: ChatCall) -> Answer:
        project.write("schema/llm_schema.py", SCHEMA.replace("max_length=80", "max_length=70"))
        return says({"answer": "yes", "certain": True})

    server.script(lambda call: call.number == 5, edits)
    ended = project.llmbatch_here("run")
    assert "the schema changed during the run" in ended.stdout


def test_the_progress_of_a_run_is_in_dagsters_log_which_is_not_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make_project(tmp_path / "project")
    ended = project.llmbatch_here("run")
    assert ended.returncode == 0, ended.stderr
    monkeypatch.setenv("DAGSTER_HOME", str(project.path("dagster_home")))
    with dg.DagsterInstance.get() as instance:
        records = [record for run in instance.get_runs() for record in instance.all_logs(run.run_id)]
    lines = [record.user_message for record in records if record.dagster_event is None]
    (progress,) = (line for line in lines if "5/5 done, 5 accepted" in line)
    (summary,) = (line for line in lines if line.startswith("Finished after"))
    assert lines.index(progress) < lines.index(summary)
    assert "Finished after" not in ended.stderr
