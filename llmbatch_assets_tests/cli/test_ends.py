"""A run that gets a signal ends soon, whatever it is waiting for, and loses nothing that was paid for."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
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
    """What a run gets from its fifth call to the last such one, after how many it waits, and its signals by then."""

    answer: Answer
    calls: int
    signals: tuple[signal.Signals, ...] = (INT,)
    settings: dict[str, Any] = field(default_factory=dict)
    last: int = 10 * ITEMS


WAITING = {
    # A second signal, as of someone who is impatient, ends the calls in flight at once.
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

        def begin(name: str, waiting: Waiting, *command: str) -> Running:
            server = stack.enter_context(ChatServer())
            server.script(lambda call: GOOD < call.number <= waiting.last, waiting.answer, repeat_last=True)
            server.script(lambda call: True, TEN_CENTS, purpose="generate", repeat_last=True)
            llm = {"max_workers": 3, "timeout_sec": 300, "transport_retries": 5}
            project = make_project(tmp_path / name, server.base_url, llm=llm, **waiting.settings)
            project.table([(f"q{number}", "red", f"question {number}") for number in range(ITEMS)])
            home = {"DAGSTER_HOME": str(project.path("dagster_home"))}
            if command:
                assert project.llmbatch_here("run", "--select", "input_snapshot,work_items").returncode == 0
            process = subprocess.Popen(
                [sys.executable, "-m", *(command or ("llmbatch_assets.cli", "run"))],
                cwd=project.root,
                env=project.environment(**home),
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


def dagster_log(project: Project) -> list[str]:
    home = str(project.path("dagster_home"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", home)
        with dg.DagsterInstance.from_config(home) as instance:
            runs = instance.get_runs(dg.RunsFilter(job_name="generate_pending"))
            return [record.user_message for run in runs for record in instance.all_logs(run.run_id)]


# As `hangs`, but for less than the grace period.
SOON = Waiting(hangs(2.5), GOOD + 3, last=GOOD + 3)
DAGSTER = ("dagster", "job", "execute", "-m", "llmbatch_assets.definitions", "-j", "generate_pending")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("waiting", "command"),
    [
        (replace(SOON, signals=(TERM,)), DAGSTER),
        (replace(SOON, settings=JUDGED, calls=GOOD * 2, last=GOOD * 2), ()),
    ],
    ids=["Dagster", "llmbatch, judged"],
)
def test_answers_that_arrive_soon_after_a_signal_are_kept(
    run_with: Callable[..., Running], waiting: Waiting, command: tuple[str, ...]
) -> None:
    # Each stop used to throw away as many paid answers as there are workers.
    run = run_with("run", waiting, *command)
    said, _, begun = told_to_end(run, waiting)

    assert begun == 0, said
    # Dagster's log, too: the signal has also ended the process that copies it to the terminal.
    said = "\n".join([said, *dagster_log(run.project)])
    assert re.search(r"interrupted; waiting up to 5 s for [1-3] calls? in flight; press Ctrl-C again", said), said
    ledger = list(read_ledger(run.project.path("artifacts/cache/usage.jsonl")))
    assert {one.outcome for one in ledger} == {"ok"}
    assert len(ledger) == run.server.count()
    waits = len(list(run.project.path("artifacts/cache/awaiting_judge").glob("*.json")))
    generated = sum(one.purpose == "generate" for one in ledger)
    assert len(run.project.outputs()) + waits == generated >= GOOD
    # A verdict on an answer that came in the grace period would be a new call.
    assert waits or not waiting.settings
    assert run.project.json("artifacts/cache/pipeline4_manifest.json")["meta"]["stopped_by"] == "interrupted"
    assert command or "not updated; to update it: llmbatch run --select export,report" in said

    # All that is left is asked about once.
    assert run.project.llmbatch_here("run", "--select", "llm_outputs").returncode == 0
    assert run.server.count("generate") == ITEMS


@pytest.mark.slow
def test_a_second_signal_ends_calls_in_flight_at_once(run_with: Callable[..., Running]) -> None:
    waiting = replace(SOON, answer=hangs(300), signals=(INT, INT))
    run = run_with("twice", waiting)
    told_to_end(run, waiting)
    ended = datetime.now(UTC)
    ledger = list(read_ledger(run.project.path("artifacts/cache/usage.jsonl")))
    cut = [datetime.fromisoformat(one.at_utc) for one in ledger if one.outcome == "interrupted"]
    assert len(cut) == 3
    # Nothing went on for five seconds: the end of Python comes after it.
    assert all((ended - at).total_seconds() < 30 for at in cut)
    took = [one.latency_sec for one in ledger if one.outcome == "interrupted"]
    assert max(took) < 4


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
