"""``llmbatch run`` with a provider that answers nobody any more: it stops, fails no item, and the next run takes them up."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from dagster._core.storage.partition_status_cache import AssetPartitionStatus

from llmbatch_assets_tests.chat_server import Answer, ChatServer, error_body, hangs, resets, says, status
from llmbatch_assets_tests.project import Project

GOOD = 3
CREDIT = {
    "type": "error",
    "error": {
        "type": "invalid_request_error",
        # As no list of wordings has it.
        "message": "Ihr Guthaben (0,03 EUR) reicht nicht aus. Bitte laden Sie es auf.",
    },
}


def ask(project: Project, items: int) -> None:
    project.table((f"n{number}", "red", f"question {number}") for number in range(items))


def fail_after(server: ChatServer, answer: Answer, good: int = GOOD) -> Callable[[], None]:
    """Let the server give this answer after this many good ones, until the returned function is called."""
    is_back = False

    def mend() -> None:
        nonlocal is_back
        is_back = True

    server.script(lambda call: call.number > good and not is_back, answer, repeat_last=True)
    return mend


def assert_nothing_failed(project: Project, ended: Any, accepted: int) -> None:
    assert ended.returncode == 1, ended.stdout
    assert ended.stdout.count("stopped: ") == 1
    assert "Traceback" not in ended.stdout + ended.stderr
    assert (len(project.outputs()), project.failures()) == (accepted, {})
    assert AssetPartitionStatus.FAILED not in project.partition_states().values()


@pytest.mark.parametrize(("items", "workers"), [(60, 8), (12, 2), (12, 8), (6, 1)])
def test_a_credit_that_runs_out_fails_no_item_whatever_the_words(
    project_with: Callable[..., Project], server: ChatServer, items: int, workers: int
) -> None:
    project = project_with(llm={"max_workers": workers})
    ask(project, items)
    mend = fail_after(server, status(400, CREDIT))

    ended = project.llmbatch_here("run")

    assert_nothing_failed(project, ended, GOOD)
    assert "in a row were refused with the same message (HTTP 400: Ihr Guthaben" in ended.stdout
    assert f"0 failed, {items - GOOD} not attempted" in ended.stdout
    assert server.count() <= GOOD + max(5, 2 * workers) + workers
    assert project.json("artifacts/cache/pipeline4_manifest.json")["meta"]["stopped_by"] == "same_refusal"

    mend()
    asked = server.count()
    assert project.llmbatch_here("run").returncode == 0
    assert server.count() - asked == items - GOOD


def test_a_judge_whose_credit_runs_out_costs_no_answer_twice(
    project_with: Callable[..., Project], server: ChatServer
) -> None:
    # The server tells the judge's calls by their schema.
    project = project_with(llm={"structured_output": "json_schema"}, prompts={"judge": {"enabled": True}})
    ask(project, 12)
    server.script(lambda _: True, status(400, CREDIT), purpose="judge", repeat_last=True)
    ended = project.llmbatch_here("run")
    assert_nothing_failed(project, ended, 0)
    asked = server.count("generate")
    assert len(list(project.path("artifacts/cache/awaiting_judge").iterdir())) == asked


def test_rows_that_are_refused_alike_can_be_recorded(project_with: Callable[..., Project], server: ChatServer) -> None:
    project = project_with(llm={"stop_on_same_refusal": False})
    ask(project, 12)
    fail_after(server, status(400, CREDIT))
    ended = project.llmbatch_here("run")
    assert (ended.returncode, len(project.failures())) == (3, 9)
    assert project.llmbatch_here("run").returncode == 3
    assert server.count() == 12


@pytest.mark.parametrize(
    "busy",
    [
        status(429, [{"error": {"code": 429, "message": "Quota exceeded", "status": "RESOURCE_EXHAUSTED"}}]),  # type: ignore[arg-type]  # Gemini's errors are lists
        status(503, error_body("overloaded"), {"Retry-After": "0"}),
    ],
    ids=["429", "503"],
)
def test_a_server_that_stays_busy_is_given_up(
    project_with: Callable[..., Project], server: ChatServer, busy: Answer
) -> None:
    project = project_with(llm={"max_workers": 4, "give_up_after": 3})
    ask(project, 12)
    mend = fail_after(server, busy)
    began = time.monotonic()

    ended = project.llmbatch_here("run")

    assert 3 < time.monotonic() - began < 40
    assert_nothing_failed(project, ended, GOOD)
    assert "(llm.give_up_after); the last reply was HTTP" in ended.stdout
    assert server.count() < 60

    mend()
    assert project.llmbatch_here("run").returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("dead", [resets(), status(500)], ids=["resets", "500"])
def test_a_server_that_dies_gets_a_bounded_number_of_calls(
    project_with: Callable[..., Project], server: ChatServer, dead: Answer
) -> None:
    # It would take 15 calls for each of the items.
    project = project_with(llm={"max_workers": 8, "give_up_after": 4, "transport_retries": 4})
    ask(project, 300)
    fail_after(server, dead)
    ended = project.llmbatch_here("run")
    assert_nothing_failed(project, ended, GOOD)
    assert "Check the server" in ended.stdout
    assert server.count() <= GOOD + 8 * 8


def test_a_pause_that_the_server_asks_for_is_kept_between_items_too(
    project_with: Callable[..., Project], server: ChatServer
) -> None:
    # It was 3 3 3 3 0.1: the next attempt began at once.
    project = project_with(llm={"max_workers": 1, "transport_retries": 2})
    ask(project, 2)
    server.script(lambda _: True, status(500, headers={"Retry-After": "0.7"}), repeat_last=True)
    assert project.llmbatch_here("run").returncode == 3
    times = [call.at for call in server.calls]
    assert len(times) == 2 * 3
    assert min(later - earlier for earlier, later in pairwise(times)) > 0.69


def test_a_server_slower_than_the_limit_is_asked_again_with_more_time(
    project_with: Callable[..., Project], server: ChatServer, caplog: pytest.LogCaptureFixture
) -> None:
    project = project_with(llm={"max_workers": 4, "timeout_sec": 0.5, "transport_retries": 4})
    ask(project, 24)
    server.delay = 0.8
    assert project.llmbatch_here("run").returncode == 0
    # Only the first calls are made twice: the limit that they needed is kept.
    assert 24 < server.count() <= 24 + 4
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(said) == 1
    assert "no answer within 0.5 s; repeated calls get up to 2 s" in said[0]


def test_a_server_much_slower_than_the_limit_stops_the_run_with_advice(
    project_with: Callable[..., Project], server: ChatServer
) -> None:
    project = project_with(llm={"max_workers": 3, "timeout_sec": 0.3, "transport_retries": 4})
    ask(project, 40)
    server.script(lambda _: True, hangs(20), repeat_last=True)
    ended = project.llmbatch_here("run")
    assert_nothing_failed(project, ended, 0)
    assert "no answer within 1.2 s" in ended.stdout
    assert "Raise llm.timeout_sec, or lower llm.max_workers" in ended.stdout
    assert server.count() <= 3 * 3 + 3


def test_rows_refused_among_others_fail_as_before(project_with: Callable[..., Project], server: ChatServer) -> None:
    project = project_with(llm={"max_workers": 2})
    ask(project, 12)
    for number in (1, 4, 7):
        server.script(f"question {number}\n", status(400, error_body("The picture is broken.")))
    server.script(lambda _: True, says(), repeat_last=True)
    ended = project.llmbatch_here("run")
    assert ended.returncode == 3
    assert {failure["class"] for failure in project.failures().values()} == {"item_permanent"}
    assert "3 failed" in ended.stdout
