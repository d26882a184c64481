"""``llmbatch status``: counts that add up, failures with an example, and what was spent."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmbatch_assets_tests.chat_server import ChatServer, refuses, says
from llmbatch_assets_tests.project import GENERATION, Project, make_project

PRICES = {"prices": {"test-model": {"input": 1.0, "output": 2.0}}}


def told(project: Project, *arguments: str) -> Any:
    ended = project.llmbatch_here("status", "--json", *arguments)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def test_a_project_that_never_ran_is_all_missing(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    before = project.tree()
    found = told(project)
    assert found["items"] == {"total": 5, "accepted": 0, "failed": 0, "failed_permanently": 0, "missing": 5}
    assert found["items_are_from"] == "the table"
    assert (found["spent"]["total"]["requests"], found["last_run"]) == (0, None)
    assert "no calls so far" in project.llmbatch_here("status").stdout
    assert project.tree() == before


def test_states_causes_and_spending_are_told(project_with: Callable[..., Project], server: ChatServer) -> None:
    project = project_with(budget=PRICES)
    usage = {"prompt_tokens": 100, "completion_tokens": 10}
    wrong = says("\x1b[31mno", usage=usage)
    server.script("harbour", wrong, wrong, wrong)
    server.script("river", refuses())
    server.script("tower", wrong, says({"answer": "High.", "certain": True}, usage=usage))
    assert project.llmbatch_here("run", "--limit", "4").returncode == 3

    found = told(project)
    assert found["items"]["total"] == 5
    assert sum(found["items"][state] for state in ("accepted", "failed", "failed_permanently", "missing")) == 5
    assert (found["items"]["failed_permanently"], found["items"]["missing"]) == (1, 1)
    causes = {failure["cause"]: failure for failure in found["failures"]}
    assert set(causes) >= {"refused"}
    for failure in found["failures"]:
        assert project.path(failure["example"]["file"]).is_file()
        assert failure["example"]["partition_key"] in project.partition_keys()
    spent = found["spent"]
    assert spent["total"]["requests"] == server.count()
    assert [part["model"] for part in spent["by_model"]] == ["openai/test-model"]
    assert sum(part["requests"] for part in spent["by_attempt"]) == server.count()
    assert spent["total"]["cost_usd"] > 0

    shown = project.llmbatch_here("status").stdout
    assert "permanently failed  1  (only --retry-failed retries these)" in shown
    assert "1 refused, e.g. " in shown
    assert "openai/test-model: " in shown
    assert "attempt 1: " in shown
    assert "\x1b" not in shown


def test_outputs_of_before_are_of_other_settings(project: Project, server: ChatServer) -> None:
    assert project.llmbatch_here("run").returncode == 0
    project.prompt("generation", {**GENERATION, "user": "{context} Please answer."})
    found = told(project)
    assert (found["items"]["accepted"], found["items"]["missing"]) == (0, 5)
    assert found["outputs_of_other_settings"] == 5
    assert told(project, "--offline")["items"]["missing"] == 5
