"""Calls, costs and limits of ``llmbatch run``, against a server that keeps its own count."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from llmbatch_assets.adapters.store.run_records import read_ledger
from llmbatch_assets.domain.run.ledger import CallRecord
from llmbatch_assets.domain.usage import UsageTotal
from llmbatch_assets_tests.chat_server import Answer, ChatCall, ChatServer, RateLimit, hangs, refuses, says, status
from llmbatch_assets_tests.project import ROWS, Project, make_project

TOWER, BRIDGE, HARBOUR, RIVER = (row[2] for row in ROWS[:4])
GOOD = {"answer": "yes", "certain": True}
USAGE = {
    "prompt_tokens": 100,
    "completion_tokens": 10,
    "prompt_tokens_details": {"cached_tokens": 40},
    "completion_tokens_details": {"reasoning_tokens": 4},
}
# Ten cents for the input of a call with USAGE; output is free, so that the first guess of it does not matter.
TEN_CENTS = {"test-model": {"input": 1000, "output": 0}}
JUDGED = {"judge": {"enabled": True}}


def ledger(project: Project) -> list[CallRecord]:
    return list(read_ledger(project.path("artifacts/cache/usage.jsonl")))


def manifest(project: Project) -> dict[str, Any]:
    return dict(project.json("artifacts/cache/pipeline4_manifest.json"))


def everyone_says(server: ChatServer, usage: dict[str, Any] = USAGE) -> None:
    server.script(lambda call: True, says(usage=usage), repeat_last=True)


def told_tokens(call: ChatCall) -> int:
    """The tokens that the server has told of a call, by its own estimate."""
    if call.answered_with.kind not in ("says", "refuses"):
        return 0
    return len(call.text) // 4 + len(call.answered_with.text or "") // 4


def usual_pause(server: ChatServer) -> float:
    """The median: a single one is as short as a busy machine happens to make it."""
    return median(later.at - earlier.at for earlier, later in pairwise(server.calls))


def more_rows(project: Project, count: int) -> None:
    project.table([(f"x{number}", "red", f"Question number {number}?") for number in range(count)])


# The ledger.


def test_every_call_is_a_line_and_the_sums_are_the_servers(
    project_with: Callable[..., Project], server: ChatServer
) -> None:
    project = project_with(prompts=JUDGED)
    server.script(TOWER, says("I would rather not."))
    server.script(BRIDGE, status(503), purpose="generate")
    server.script(HARBOUR, refuses(), purpose="generate")
    server.script(RIVER, says({"reasons": ["no"], "score": 1, "verdict": "FAIL"}), purpose="judge")

    assert project.llmbatch_here("run").returncode == 3

    records, calls = ledger(project), server.calls
    assert len(records) == len(calls) == server.count()
    assert sum(record.input_tokens + record.output_tokens for record in records) == sum(map(told_tokens, calls))
    assert sorted(record.request_id for record in records) == sorted(f"req-{call.number}" for call in calls)
    outcomes = {record.outcome: record for record in records}
    assert outcomes.keys() == {"ok", "server_error", "refused"}
    assert (outcomes["server_error"].status, outcomes["server_error"].cost_usd) == (503, 0.0)
    assert outcomes["refused"].output_tokens > 0
    for purpose in ("generate", "judge"):
        assert len([one for one in records if one.purpose == purpose]) == server.count(purpose)
    # Each line names its item, and the manifest and the failures tell the same sums.
    items = {item["work_id"]: item["partition_key"] for item in project.work_items()}
    assert {(one.work_id, one.partition_key) for one in records} == set(items.items())
    assert manifest(project)["usage"]["input_tokens"] == UsageTotal(records).usage.input_tokens
    (refused,) = (one for one in project.failures().values() if one["cause"] == "refused")
    assert refused["usage"]["output_tokens"] == outcomes["refused"].output_tokens
    assert refused["meta"]["cache_id"] == outcomes["refused"].cache_id


def test_each_run_has_its_own_name_and_nothing_is_written_twice(project: Project, server: ChatServer) -> None:
    for limit in (["--limit", "2"], ["--limit", "2"], [], []):
        assert project.llmbatch_here("run", *limit).returncode == 0
    names = [record.run_id for record in ledger(project)]
    assert [names.count(name) for name in dict.fromkeys(names)] == [2, 2, 1]
    assert len(names) == server.count()


@pytest.mark.slow
def test_a_run_that_is_killed_has_written_down_all_that_it_was_answered(
    tmp_path: Path, server: ChatServer, caplog: pytest.LogCaptureFixture
) -> None:
    project = make_project(tmp_path / "project", server.base_url)
    server.script(RIVER, hangs(60), purpose="generate")
    command = [sys.executable, "-m", "llmbatch_assets.cli", "run"]
    with subprocess.Popen(
        command,
        cwd=project.root,
        env=project.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as run:
        until = time.monotonic() + 60
        while len(project.outputs()) < 4 and time.monotonic() < until:
            time.sleep(0.1)
        os.kill(run.pid, signal.SIGKILL)

    assert {record.cache_id for record in ledger(project) if record.outcome == "ok"} == project.outputs().keys()
    path = project.path("artifacts/cache/usage.jsonl")
    path.write_bytes(path.read_bytes() + b'{"v":1,"at_utc":"2026')

    ended = project.llmbatch_here("run")

    assert ended.returncode == 0, ended.stderr
    assert f"line 5 of {path}" in caplog.text
    assert len(ledger(project)) == 5


def test_the_schema_is_asked_for_in_the_same_way(project: Project, server: ChatServer) -> None:
    project.path("schema/llm_schema.py").unlink()
    project.prompt("schema_auto_py_generation", {"name": "schema", "user": "Write a module for {context}."})
    server.fallback_answer = lambda _: (
        "```python\nfrom pydantic import BaseModel\n\n\nclass LLMOutput(BaseModel):\n    answer: str\n```"
    )

    ended = project.llmbatch_here("run")

    assert ended.returncode == 0, ended.stdout + ended.stderr
    first = ledger(project)[0]
    assert (first.purpose, first.work_id, first.outcome) == ("schema", None, "ok")


# Cost.


def test_costs_are_told_wherever_there_is_something_to_tell(
    project_with: Callable[..., Project], server: ChatServer
) -> None:
    prices = {"test-model": {"input": 10, "cached_input": 5, "output": 100}}
    project = project_with(budget={"prices": prices}, llm={"max_workers": 1})
    server.script(TOWER, says("no", usage=USAGE))
    everyone_says(server)
    # 60 fresh, 40 cached and 10 output tokens.
    each = (60 * 10 + 40 * 5 + 10 * 100) / 1e6

    ended = project.llmbatch_here("run")

    assert ended.returncode == 0, ended.stderr
    assert {one.cost_usd for one in ledger(project)} == {each}
    assert {output["usage"]["cost_usd"] for output in project.outputs().values()} == {each}
    assert {output["usage"]["reasoning_tokens"] for output in project.outputs().values()} == {4}
    assert [one["usage"]["cost_usd"] for one in project.failures().values()] == [each]
    assert manifest(project)["usage"]["cost_usd"] == pytest.approx(6 * each)
    assert "usage     6 calls, 600 input and 60 output tokens, $0.01" in ended.stdout
    assert "5/5 done, 5 accepted, 0 failed, 660 tokens, $0.01" in ended.stdout
    report = project.path("artifacts/reports/report.md").read_text()
    assert "| Cost of accepted outputs | $0.009000 |" in report
    assert "| All calls | 6 calls, 660 tokens, $0.01 |" in report

    # What is there costs nothing, and its cost is not forgotten.
    ended = project.llmbatch_here("run")
    assert "usage     0 calls, 0 input and 0 output tokens, $0.00" in ended.stdout
    assert "| All calls | 6 calls, 660 tokens, $0.01 |" in project.path("artifacts/reports/report.md").read_text()


def test_an_unknown_price_is_never_nothing(project: Project, server: ChatServer) -> None:
    ended = project.llmbatch_here("run")
    assert "cost unknown" in ended.stdout
    assert "$" not in ended.stdout
    assert manifest(project)["usage"]["cost_usd"] is None
    assert {output["usage"]["cost_usd"] for output in project.outputs().values()} == {None}
    assert "| Cost of accepted outputs | cost unknown |" in project.path("artifacts/reports/report.md").read_text()


def test_made_up_answers_cost_nothing(project: Project) -> None:
    ended = project.llmbatch_here("run", "--offline")
    assert "$0.00" in ended.stdout
    assert manifest(project)["usage"]["cost_usd"] == 0.0


# Budgets.


def test_a_budget_stops_the_run_before_it_is_exceeded_and_the_next_run_goes_on(
    project_with: Callable[..., Project], server: ChatServer
) -> None:
    project = project_with(budget={"max_cost_usd": 0.25, "prices": TEN_CENTS})
    everyone_says(server)

    ended = project.llmbatch_here("run")

    assert ended.returncode == 1
    assert server.count() == 2
    assert "2 of 5 items accepted (2 new, 0 from cache), 0 failed, 3 not attempted" in ended.stdout
    assert ended.stdout.count("budget.max_cost_usd") == 1
    assert "$0.20 of $0.25 spent" in ended.stdout
    assert manifest(project)["meta"]["stopped_by"] == "budget"
    assert len(project.path("artifacts/outputs/output.csv").read_text().splitlines()) == 1 + 2

    assert project.llmbatch_here("run").returncode == 1
    assert server.count() == 4
    assert project.llmbatch_here("run").returncode == 0
    assert server.count() == 5


def test_verdicts_are_paid_from_the_same_budget(project_with: Callable[..., Project], server: ChatServer) -> None:
    project = project_with(budget={"max_cost_usd": 0.55, "prices": TEN_CENTS}, prompts=JUDGED, llm={"max_workers": 1})
    everyone_says(server)

    assert project.llmbatch_here("run").returncode == 1

    assert (server.count("generate"), server.count("judge")) == (3, 2)
    assert manifest(project)["usage"]["cost_usd"] == 0.5


@pytest.mark.parametrize("judge", [False, True])
def test_a_budget_without_a_price_is_refused_before_anything_is_asked(
    project_with: Callable[..., Project], server: ChatServer, *, judge: bool
) -> None:
    blocks: dict[str, Any] = {"budget": {"max_cost_usd": 1}}
    if judge:
        prices = {"prices": {"test-model": {"input": 1, "output": 1}}}
        blocks = {"budget": {"max_cost_usd": 1} | prices, "judge": {"model_name": "test-judge"}, "prompts": JUDGED}
    project = project_with(**blocks)
    before = project.tree()

    ended = project.llmbatch_here("run")

    assert ended.returncode == 2
    assert f"budget.prices: {{test-{'judge' if judge else 'model'}: " in ended.stderr
    assert server.count() == 0
    assert project.tree() == before
    assert project.llmbatch_here("run", "--offline").returncode == 0


def test_so_many_items_a_run_and_not_one_more(project_with: Callable[..., Project], server: ChatServer) -> None:
    project = project_with(budget={"max_items": 2})

    ended = project.llmbatch_here("run")

    assert ended.returncode == 1
    assert server.count() == 2
    assert "budget reached: 2 items done, 3 left. Raise budget.max_items" in ended.stdout
    assert manifest(project)["meta"]["stopped_by"] == "budget"

    assert project.llmbatch_here("run").returncode == 1
    assert project.llmbatch_here("run").returncode == 0
    assert server.count() == 5


# Pacing.


@pytest.mark.parametrize("told", [{"requests_per_minute": 1080}, {}], ids=["told", "found out"])
def test_a_server_with_a_limit_answers_everything_and_is_rarely_annoyed(
    project_with: Callable[..., Project], server: ChatServer, told: dict[str, int]
) -> None:
    project = project_with(llm={"max_workers": 8, "transport_retries": 4, **told})
    more_rows(project, 80)
    server.rate_limit = RateLimit(20, 1.0)

    ended = project.llmbatch_here("run")

    assert ended.returncode == 0, ended.stdout
    assert len(project.outputs()) == 80
    assert project.failures() == {}
    refused = server.rate_limit.refused
    assert refused / server.count() < 0.05 if told else refused < 16
    pacing = manifest(project)["meta"]["pacing"]
    assert (pacing["calls"], pacing["rate_limited"]) == (server.count(), refused)
    assert (pacing["cool_downs"] > 0) == (pacing["lowest_concurrency"] < 8)
    assert pacing["seconds_waited"] > 1
    assert ("hit a rate limit" in ended.stdout) == (refused > 0)


def test_refused_first_calls_cost_hardly_more_than_their_wait(
    project_with: Callable[..., Project], server: ChatServer
) -> None:
    # All first calls but one were refused with Retry-After; the run then made one call in each such time.
    project = project_with(llm={"max_workers": 16})
    more_rows(project, 100)
    server.delay = 0.05
    began: list[float] = []

    def answer(call: ChatCall) -> Answer:
        began.append(call.at)
        return status(429, headers={"Retry-After": "3"}) if len(began) > 1 and call.at < began[0] + 3 else says()

    server.script("", answer, repeat_last=True)
    assert project.llmbatch_here("run").returncode == 0
    assert manifest(project)["meta"]["pacing"]["rate_limited"] >= 3
    assert server.calls[-1].at - server.calls[0].at < 10


def test_refusals_at_random_do_not_slow_a_run_down(project_with: Callable[..., Project], server: ChatServer) -> None:
    # 7 % of calls were refused whatever their rate, which fell to a call in four seconds.
    project = project_with(llm={"max_workers": 8, "transport_retries": 8})
    more_rows(project, 200)
    server.delay = 0.1
    server.script("", lambda call: status(429) if call.number % 14 == 0 else says(), repeat_last=True)
    assert project.llmbatch_here("run").returncode == 0
    assert len(project.outputs()) == 200
    assert server.calls[-1].at - server.calls[0].at < 15


def test_one_absurd_count_of_tokens_does_not_make_a_run_wait_for_long(
    project_with: Callable[..., Project], server: ChatServer, caplog: pytest.LogCaptureFixture
) -> None:
    project = project_with(llm={"tokens_per_minute": 60_000, "max_workers": 1})
    absurd = {"prompt_tokens": 100, "completion_tokens": 900_000, "total_tokens": 900_100}
    server.script(TOWER, says(usage=absurd))
    ended = project.llmbatch_here("run", "--limit", "1")
    assert ended.returncode == 0
    assert "reported 900,100 tokens for one call, more than tokens_per_minute (60,000)" in caplog.text


def test_requests_and_tokens_a_minute_are_spread_evenly(
    project_with: Callable[..., Project], server: ChatServer
) -> None:
    project = project_with(llm={"requests_per_minute": 300, "max_workers": 5})
    assert project.llmbatch_here("run").returncode == 0
    assert usual_pause(server) > 0.15


def test_tokens_a_minute_are_spread_evenly(project_with: Callable[..., Project], server: ChatServer) -> None:
    # 110 tokens a call make one every 0.2 s, once it is known that it is not the 500 of the first guess.
    project = project_with(llm={"tokens_per_minute": 33_000, "max_workers": 5})
    everyone_says(server)
    assert project.llmbatch_here("run").returncode == 0
    assert usual_pause(server) > 0.15


def test_a_judge_on_another_server_has_a_pace_of_its_own(
    project_with: Callable[..., Project], server: ChatServer
) -> None:
    with ChatServer() as other:
        judge = {"base_url": other.base_url, "requests_per_minute": 60}
        project = project_with(judge=judge, prompts=JUDGED, llm={"max_workers": 5})
        assert project.llmbatch_here("run").returncode == 0
        assert (server.count(), other.count()) == (5, 5)
        assert min(later.at - earlier.at for earlier, later in pairwise(other.calls)) > 0.9
    assert server.calls[-1].at - server.calls[0].at < 2


def test_a_judge_of_the_same_model_counts_as_one_of_its_callers(
    project_with: Callable[..., Project], server: ChatServer
) -> None:
    project = project_with(prompts=JUDGED, llm={"requests_per_minute": 300, "max_workers": 5})
    project.table(ROWS[:2])
    assert project.llmbatch_here("run").returncode == 0
    assert server.count() == 4
    assert usual_pause(server) > 0.15


def test_a_pace_for_a_judge_that_has_none_of_its_own_is_refused(project_with: Callable[..., Project]) -> None:
    ended = project_with(prompts=JUDGED, judge={"requests_per_minute": 9}).llmbatch_here("run")
    assert ended.returncode == 2
    assert "judge.requests_per_minute" in ended.stderr


def test_a_long_cool_down_does_not_outlive_a_run_that_is_stopped(
    project_with: Callable[..., Project], server: ChatServer
) -> None:
    project = project_with(llm={"max_workers": 2})
    server.script(TOWER, status(429, headers={"Retry-After": "100"}))
    server.script(BRIDGE, replace(status(401), wait=0.5))
    started = time.monotonic()
    assert project.llmbatch_here("run").returncode == 1
    assert time.monotonic() - started < 30


def test_log_manifest_and_ledger_tell_how_json_was_asked_for_in_the_end(
    project: Project, server: ChatServer, caplog: pytest.LogCaptureFixture
) -> None:
    assert project.llmbatch_here("run", "--limit", "1").returncode == 0
    assert manifest(project)["meta"]["structured_output"] == "json_schema"
    server.refuse_response_format = {"json_schema"}
    server.fallback_answer = GOOD
    assert project.llmbatch_here("run").returncode == 0
    assert manifest(project)["meta"]["structured_output"] == "json_object"
    assert caplog.text.count("does not support structured_output json_schema") == 1
    # The refused calls are calls, too.
    records = ledger(project)
    assert len(records) == server.count()
    refused = [one for one in records if one.outcome == "structured_output"]
    assert refused
    assert {(one.status, one.cost_usd) for one in refused} == {(400, 0.0)}


def test_the_key_is_not_in_the_ledger(project: Project, server: ChatServer) -> None:
    server.require_key = "another"
    assert project.llmbatch_here("run").returncode == 1
    text = project.path("artifacts/cache/usage.jsonl").read_text()
    assert "key_refused" in text
    assert "secret-key" not in text
    assert all(json.loads(line)["cost_usd"] == 0 for line in text.splitlines())
