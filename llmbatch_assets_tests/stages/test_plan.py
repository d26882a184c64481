"""The question before money is spent that nobody agreed to: asked at a terminal, and nowhere else."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmbatch_assets.domain.plan.selection import Selection
from llmbatch_assets.stages.plan import budget_question
from llmbatch_assets.stages.project import BatchFile
from llmbatch_assets_tests.chat_server import ChatServer
from llmbatch_assets_tests.project import Project, make_project

DEAR = {"test-model": {"input": 1000, "output": 1000}}
FREE = {"test-model": {"input": 0, "output": 0}}
REMOTE = "http://127.0.0.1:9/v1"


def asked(project: Project, *, makes_items: bool = True, force: bool = False, **selection: Any) -> str | None:
    batch = BatchFile(project.config).load()
    return budget_question(batch, Selection(**selection), force=force, makes_items=makes_items)


@pytest.mark.parametrize(
    ("blocks", "told"),
    [
        ({}, "The price of test-model is unknown"),
        ({"budget": {"prices": DEAR, "max_cost_usd": 0.5}}, "The budget is $0.50 (budget.max_cost_usd)"),
        ({"budget": {"prices": DEAR, "max_cost_usd": 500}}, None),
        ({"budget": {"prices": DEAR}}, None),
        ({"budget": {"prices": FREE}}, None),
        ({"budget": {"prices": FREE, "max_cost_usd": 0.1}}, None),
        (
            {
                "budget": {"prices": FREE},
                "prompts": {"judge": {"enabled": True}},
                "judge": {"model_name": "judge-model"},
            },
            "The price of judge-model is unknown",
        ),
    ],
)
def test_what_is_asked_of_a_provider_that_charges(tmp_path: Path, blocks: dict[str, Any], told: str | None) -> None:
    answer = asked(make_project(tmp_path, REMOTE, **blocks))
    assert (answer is None) if told is None else (answer is not None and told in answer)


def test_a_provider_that_costs_nothing_never_asks(tmp_path: Path) -> None:
    for llm in ({"provider": "offline"}, {"provider": "local", "model_name": "SmolLM2-135M-Instruct"}):
        project = make_project(tmp_path, llm=llm, budget={"max_cost_usd": 0.0001})
        assert asked(project) is None


def test_a_schema_that_is_still_to_be_written_is_asked_for(tmp_path: Path) -> None:
    project = make_project(tmp_path, REMOTE)
    project.path("schema/llm_schema.py").unlink()
    assert "an unknown number of calls" in str(asked(project))


def test_nothing_to_run_is_nothing_to_ask(project_with: Callable[..., Project]) -> None:
    project = project_with()
    assert project.llmbatch_here("run", "--select", "input_snapshot,work_items,llm_outputs").returncode == 0
    assert asked(project) is None
    assert "5 calls" in str(asked(project, force=True))
    assert "2 calls" in str(asked(project, force=True, limit=2))
    # Of the items that there are, where the run makes none anew.
    project.table([])
    assert "5 calls" in str(asked(project, force=True, makes_items=False))


def at_a_terminal(project: Project, answer: bytes, *arguments: str) -> tuple[int, str]:
    """The command line with a terminal as its input, at which somebody types."""
    ours, theirs = pty.openpty()
    os.write(ours, answer)
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "llmbatch_assets.cli", *arguments],
            cwd=project.root,
            env=project.environment(),
            stdin=theirs,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    finally:
        os.close(theirs)
        os.close(ours)
    return ended.returncode, ended.stderr


STAGES = ("--select", "input_snapshot,work_items,llm_outputs")


def test_no_ends_the_run_before_a_call_and_yes_or_no_terminal_skips_the_question(
    tmp_path: Path, server: ChatServer
) -> None:
    project = make_project(tmp_path, server.base_url)
    code, told = at_a_terminal(project, b"n\n", "run", *STAGES)
    assert code == 1
    assert "The price of test-model is unknown" in told
    assert told.endswith("llmbatch: nothing was called\n")
    assert server.count() == 0
    assert not project.path("artifacts").exists()
    code, told = at_a_terminal(project, b"", "run", *STAGES, "--limit", "1", "--yes")
    assert (code, "is unknown" in told, server.count()) == (0, False, 1)
    ended = project.llmbatch("run", *STAGES)
    assert (ended.returncode, "is unknown" in ended.stderr, server.count()) == (0, False, 5)
