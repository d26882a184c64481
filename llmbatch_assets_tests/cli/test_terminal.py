"""The terminal shows progress, and the log file repeats what was printed, without keys."""

from __future__ import annotations

import errno
import logging
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from llmbatch_assets.cli.session import _ErrorLines
from llmbatch_assets.cli.terminal import ProgressView
from llmbatch_assets.domain.run.progress import Tally
from llmbatch_assets.domain.usage import TokenUsage, UsageTotal
from llmbatch_assets_tests.chat_server import ChatServer, status
from llmbatch_assets_tests.project import Project, make_project

HIDES_THE_CURSOR = "\x1b[?25l"


def test_a_log_file_holds_what_was_told_and_written_but_no_key(
    project_with: Callable[..., Project], server: ChatServer
) -> None:
    project = project_with(
        run={"log_file": "run.log", "log_level": "DEBUG"},
        artifacts={"logs_dir": "logs"},
        llm={"silence_client_lv_logs": False, "max_retries": 1},
    )
    server.script("harbour", status(400, {"error": {"message": "the key secret-key is not for harbours"}}))
    assert project.llmbatch_here("run").returncode == 3
    log = project.path("logs/run.log").read_text(encoding="utf-8")
    for told in (
        "Wrote artifacts/cache/pipeline3_work_items.json (",
        "Wrote artifacts/outputs/output.csv (4 rows, ",
        "Wrote artifacts/outputs/output_not_exported.csv (1 row, ",
        "0 already done, 5 to run",
        "5/5 done, 4 accepted, 1 failed (1 bad_request)",
        "4 of 5 items accepted",
    ):
        assert told in log
    assert "secret-key" not in log


def test_a_run_tells_what_it_has_written_and_not_what_is_as_it_was(project: Project) -> None:
    wrote = ("Wrote artifacts/cache/pipeline3_work_items.json (", "Wrote artifacts/outputs/output.csv (5 rows, ")
    first = project.llmbatch_here("run", "--offline")
    again = project.llmbatch_here("run", "--offline")
    assert [line for line in wrote if line not in first.stdout] == []
    assert [line for line in wrote if line in again.stdout] == []
    assert not project.path("artifacts/logs").exists()


def test_warnings_only_are_shown_where_that_is_asked_for(project_with: Callable[..., Project]) -> None:
    ended = project_with(run={"log_level": "WARNING"}).llmbatch_here("run", "--offline")
    assert "Wrote" not in ended.stdout


def test_a_log_file_that_cannot_be_written_is_told(project_with: Callable[..., Project]) -> None:
    project = project_with(run={"log_file": "raw_data/input.csv/run.log"})
    ended = project.llmbatch_here("run", "--offline")
    assert ended.returncode == 2
    assert "run.log_file" in ended.stderr


def test_an_interrupt_that_a_library_meets_with_has_no_traceback_in_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    library = logging.Logger("sqlalchemy.pool")
    library.addHandler(_ErrorLines())
    for fault in (KeyboardInterrupt(), ValueError("a fault of its own")):
        try:
            raise fault
        except (KeyboardInterrupt, ValueError):
            library.exception("Exception closing connection")
    told = capsys.readouterr().err
    assert told.count("Traceback") == 1
    assert "a fault of its own" in told


def test_the_display_has_every_number_and_follows_the_tally() -> None:
    now = [0.0]
    tally = Tally(100, cached=7)
    view = ProgressView(tally, clock=lambda: now[0])
    tally.accepted, tally.failed, tally.in_flight, now[0] = 18, 2, 8, 10.0
    tally.causes = {"timeout": 2}
    tally.usage = UsageTotal([TokenUsage(requests=20, input_tokens=12_000, output_tokens=3_000, cost_usd=1.25)])
    console = Console(width=100, record=True, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115  # closed with it
    console.print(view)
    shown = console.export_text()
    console.file.close()
    for part in ("20/100", "2.0 items/s", "0:00:40 left", "18 accepted", "2 failed (2 timeout)", "7 from cache"):
        assert part in shown
    for part in ("8 in flight", "12,000 input and 3,000 output tokens", "$1.25"):
        assert part in shown


def test_a_run_in_a_terminal_is_displayed_although_dagster_takes_its_output(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "llmbatch_assets.cli", "run", "--select", "input_snapshot,work_items,llm_outputs"],
        cwd=project.root,
        env=project.environment(TERM="xterm"),
        stdout=theirs,
        stderr=subprocess.STDOUT,
    ) as run:
        os.close(theirs)
        shown = all_of(ours)
    assert run.returncode == 0, shown
    assert HIDES_THE_CURSOR in shown
    assert "0 in flight" in shown
    assert "5 accepted" in shown
    # The lines of a log are for where nothing is displayed.
    assert "5/5 done" not in shown


def all_of(terminal: int) -> str:
    """Everything that is written to a terminal until its other side is closed."""
    shown = b""
    try:
        while piece := os.read(terminal, 65_536):
            shown += piece
    except OSError as ended:
        # A terminal whose other side is closed cannot be read.
        if ended.errno != errno.EIO:
            raise
    os.close(terminal)
    return shown.decode(errors="replace")
