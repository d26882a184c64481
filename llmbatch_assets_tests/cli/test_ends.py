"""A run that is told to end: at once, whatever it is waiting for, and with nothing lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from llmbatch_assets.adapters.store.run_records import read_ledger
from llmbatch_assets_tests.chat_server import Answer, ChatServer, hangs, says, status
from llmbatch_assets_tests.project import Project, make_project

ITEMS, GOOD = 12, 4
INT, TERM = signal.SIGINT, signal.SIGTERM
JUDGED = {"prompts": {"judge": {"enabled": True}}}
BUDGET = {"budget": {"max_cost_usd": 0.55, "prices": {"test-model": {"input": 1000, "output": 0}}}}
TEN_CENTS = says(usage={"prompt_tokens": 100, "completion_tokens": 1})
LATER = {"Retry-After": "100"}


@dataclass(frozen=True)
class Waiting:
    """What a run gets from its fifth call on, after how many calls it waits, and the signals that it is then sent."""

    answer: Answer
    calls: int
    signals: tuple[signal.Signals, ...] = (INT,)
    settings: dict[str, Any] = field(default_factory=dict)


WAITING = {
    # A second signal, as of someone who is impatient, changes nothing.
    "calls": Waiting(hangs(300), GOOD + 3, (INT, INT), JUDGED),
    "cool-down": Waiting(status(429, headers=LATER), GOOD + 1, (TERM,)),
    # Four calls were ten cents each and one may be: a sixth has to wait for what that one costs.
    "budget": Waiting(hangs(300), GOOD + 1, (INT,), BUDGET),
}


@dataclass
class Running:
    """A run in a process of its own, and its server."""

    project: Project
    server: ChatServer
    process: subprocess.Popen[str]


@pytest.fixture
def run_with(tmp_path: Path) -> Iterator[Callable[[str, Waiting], Running]]:
    with ExitStack() as stack:

        def begin(name: str, waiting: Waiting) -> Running:
            server = stack.enter_context(ChatServer())
            server.script(lambda call: call.number > GOOD, waiting.answer, repeat_last=True)
            server.script(lambda call: True, TEN_CENTS, purpose="generate", repeat_last=True)
            llm = {"max_workers": 3, "timeout_sec": 300, "transport_retries": 5}
            project = make_project(tmp_path / name, server.base_url, llm=llm, **waiting.settings)
            project.table([(f"q{number}", "red", f"question {number}") for number in range(ITEMS)])
            process = subprocess.Popen(
                [sys.executable, "-m", "llmbatch_assets.cli", "run"],
                cwd=project.root,
                env=project.environment(),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
            stack.callback(process.communicate)
            stack.callback(process.kill)
            return Running(project, server, process)

        yield begin


def told_to_end(run: Running, waiting: Waiting) -> tuple[str, float, int]:
    """What the run said, how long it took to end, and how many calls it began after it was told."""
    until = time.monotonic() + 90
    while run.server.count() < waiting.calls and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(0.5)
    told, asked = time.monotonic(), run.server.count()
    for number in waiting.signals:
        # As a terminal's Ctrl-C: to the processes that the run has started, too.
        os.killpg(run.process.pid, number)
        time.sleep(0.1)
    said, _ = run.process.communicate(timeout=60)
    return said, time.monotonic() - told, run.server.count() - asked


@pytest.mark.slow
def test_a_signal_ends_a_run_whatever_it_waits_for(run_with: Callable[[str, Waiting], Running]) -> None:
    # Side by side: most of the time goes into starting Python.
    runs = {name: run_with(name, waiting) for name, waiting in WAITING.items()}
    for name, run in runs.items():
        said, seconds, begun = told_to_end(run, WAITING[name])

        first = WAITING[name].signals[0]
        # A second signal can come when Python is about to end; a shell says the same of both.
        assert run.process.returncode in (128 + first, -first), said
        assert (seconds < 15, begun) == (True, 0), name
        assert "Traceback" not in said
        manifest = run.project.json("artifacts/cache/pipeline4_manifest.json")
        counts, done = manifest["counts"], len(run.project.outputs())
        assert manifest["meta"]["stopped_by"] == "interrupted"
        assert (counts["n_success"], counts["n_fail"], counts["n_not_attempted"]) == (done, 0, ITEMS - done), name
        assert 0 < done <= GOOD
        # A call that was cut short is a line, too.
        ledger = list(read_ledger(run.project.path("artifacts/cache/usage.jsonl")))
        assert len(ledger) == run.server.count() == manifest["usage"]["requests"], name
        told = [one.request_id for one in ledger if one.outcome == "ok"]
        assert sorted(told) == [f"req-{number}" for number in range(1, GOOD + 1)], name
