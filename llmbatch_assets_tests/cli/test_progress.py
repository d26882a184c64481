"""What a terminal shows while a run goes on."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

from rich.console import Console

from llmbatch_assets.cli.progress import Standing
from llmbatch_assets.domain.progress import Tally
from llmbatch_assets.domain.usage import TokenUsage, UsageTotal
from llmbatch_assets_tests.project import make_project

HIDES_THE_CURSOR = "\x1b[?25l"


def test_the_display_has_every_number_and_follows_the_tally() -> None:
    now = [0.0]
    tally = Tally(100, cached=7)
    standing = Standing(tally, clock=lambda: now[0])
    tally.accepted, tally.failed, tally.in_flight, now[0] = 18, 2, 8, 10.0
    tally.causes = {"timeout": 2}
    tally.usage = UsageTotal([TokenUsage(requests=20, input_tokens=12_000, output_tokens=3_000, cost_usd=1.25)])
    console = Console(width=100, record=True, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115  # closed with it
    console.print(standing)
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
        shown = _all_of(ours)
    assert run.returncode == 0, shown
    assert HIDES_THE_CURSOR in shown
    assert "0 in flight" in shown
    assert "5 accepted" in shown
    # The lines of a log are for where nothing is displayed.
    assert "5/5 done" not in shown


def _all_of(terminal: int) -> str:
    shown = b""
    # A terminal whose other side is closed cannot be read.
    try:
        while piece := os.read(terminal, 65_536):
            shown += piece
    except OSError:
        pass
    os.close(terminal)
    return shown.decode(errors="replace")
