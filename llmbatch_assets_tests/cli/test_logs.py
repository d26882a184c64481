"""The log file: what people were told, and never a key."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from llmbatch_assets.cli.session import _ErrorLines
from llmbatch_assets_tests.chat_server import ChatServer, status
from llmbatch_assets_tests.project import Project


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
        "Pre-scan: cache_skips=0 will_run=5/5",
        "5/5 done, 4 accepted, 1 failed (1 bad_request)",
        "4 of 5 items accepted",
    ):
        assert told in log
    assert "secret-key" not in log


def test_a_run_tells_what_it_has_written_and_not_what_is_as_it_was(project: Project) -> None:
    wrote = "Wrote artifacts/cache/pipeline3_work_items.json ("
    first = project.llmbatch_here("run", "--offline")
    again = project.llmbatch_here("run", "--offline")
    assert wrote in first.stdout
    assert wrote not in again.stdout
    assert "Wrote artifacts/outputs/output.csv (5 rows, " in again.stdout
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
