"""Nothing is paid for that could not be written: what a run writes is tried before its first call."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from llmbatch_assets_tests.chat_server import ChatServer
from llmbatch_assets_tests.project import Project


@pytest.mark.parametrize("name", ["llm_outputs", "llm_failures", "awaiting_judge", "provenance"])
def test_what_cannot_be_written_is_found_before_the_first_call(
    project_with: Callable[..., Project], server: ChatServer, name: str
) -> None:
    # Something else has the name. Permissions would not do: tests may run as root, who may write everywhere.
    project = project_with(prompts={"judge": {"enabled": True}})
    assert project.llmbatch_here("run", "--select", "input_snapshot,work_items").returncode == 0
    path = project.path(f"artifacts/cache/{name}")
    path.write_text("mine")

    ended = project.llmbatch_here("run", "--select", "llm_outputs")

    said = ended.stdout + ended.stderr
    assert (ended.returncode, server.count()) == (1, 0), said
    assert f"artifacts/cache/{name}" in said
    assert "Traceback" not in said
    assert path.read_text() == "mine"


def test_no_probe_is_left_behind(project_with: Callable[..., Project]) -> None:
    project = project_with()
    assert project.llmbatch_here("run").returncode == 0
    assert [name for name in project.tree() if "probe" in name] == []


def test_a_marker_that_cannot_be_removed_does_not_hide_an_output(
    project_with: Callable[..., Project], server: ChatServer
) -> None:
    project = project_with()
    project.write("artifacts/cache/forced", "mine")
    assert project.llmbatch_here("run").returncode == 0
    assert len(project.outputs()) == server.count() == 5
