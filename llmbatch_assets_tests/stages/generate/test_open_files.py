"""As many calls as there is room for: an answer that could not be written is paid for and lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from llmbatch_assets_tests.chat_server import ChatServer
from llmbatch_assets_tests.project import Project, make_project

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")

ITEMS = 330


def run_with_limit(project: Project, ulimit: str) -> subprocess.CompletedProcess[str]:
    """Run with another limit on open files; options of ``ulimit``: ``-Sn`` is the soft one, ``-n`` both."""
    command = f"ulimit {ulimit} && exec {sys.executable} -m llmbatch_assets.cli run --select input_snapshot,work_items,llm_outputs"
    return subprocess.run(
        ["bash", "-c", command],
        cwd=project.root,
        env=project.environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def project(tmp_path: Path, server: ChatServer) -> Project:
    project = make_project(tmp_path / "project", server.base_url, llm={"max_workers": 300})
    project.table((f"n{number}", "red", f"question {number}") for number in range(ITEMS))
    server.delay = 0.5
    return project


def assert_all_kept(project: Project, server: ChatServer, ended: subprocess.CompletedProcess[str]) -> None:
    assert ended.returncode == 0, ended.stdout + ended.stderr
    # 228 answers were paid for and lost, and none was in the ledger.
    assert len(project.outputs()) == server.count() == ITEMS
    assert len(project.path("artifacts/cache/usage.jsonl").read_text().splitlines()) == ITEMS


@pytest.mark.slow
def test_a_soft_limit_as_of_macos_is_raised(project: Project, server: ChatServer) -> None:
    ended = run_with_limit(project, "-Sn 256")
    assert_all_kept(project, server, ended)
    assert server.max_in_flight > 256
    assert "limit on open files" not in ended.stdout


@pytest.mark.slow
def test_a_hard_limit_bounds_the_workers_and_is_reported(project: Project, server: ChatServer) -> None:
    ended = run_with_limit(project, "-n 256")
    assert_all_kept(project, server, ended)
    assert "300 workers were requested, but the limit on open files allows only" in ended.stdout
    assert 50 < server.max_in_flight < 256 - 30


def test_without_room_for_one_call_none_is_made(project: Project, server: ChatServer) -> None:
    ended = run_with_limit(project, "-n 90")
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert "raise the limit, e.g. with ulimit -n 4096. No call was made." in ended.stdout
    assert server.count() == 0
    assert len(project.outputs()) == 0
