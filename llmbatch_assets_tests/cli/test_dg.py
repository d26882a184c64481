"""Dagster's own command line ``dg`` in this repository and in a new project."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import llmbatch_assets
from llmbatch_assets_tests.project import Project

REPOSITORY = Project(Path(llmbatch_assets.__file__).parents[1])


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project from ``llmbatch init`` whose model is a made-up one."""
    above = Project(tmp_path_factory.mktemp("dg"))
    assert above.llmbatch_here("init", "new").returncode == 0
    project = Project(above.path("new"))
    content = yaml.safe_load(project.config.read_text())
    content["llm"]["provider"] = "offline"
    project.config.write_text(yaml.safe_dump(content))
    return project


def dg(project: Project, *arguments: str, **environment: str) -> str:
    """What the command printed. It must succeed."""
    ended = subprocess.run(
        # Not with -m, which would put the project's folder among the places where modules are looked for.
        [str(Path(sys.executable).with_name("dg")), *arguments],
        cwd=project.root,
        env=project.environment(**environment),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    printed = ended.stdout + ended.stderr
    assert ended.returncode == 0, printed
    return printed


@pytest.mark.slow
def test_a_new_project_is_listed_and_checked_without_remarks(project: Project) -> None:
    assert "Traceback" not in dg(project, "list", "component-tree")
    assert "llm_outputs" in dg(project, "list", "defs")
    checked = dg(project, "check", "defs")
    assert "All definitions loaded successfully" in checked
    # Nothing runs here, so nothing is lost without it.
    assert "DAGSTER_HOME" not in checked


@pytest.mark.slow
def test_this_repository_is_listed() -> None:
    assert "llm_outputs" in dg(REPOSITORY, "list", "defs")


@pytest.mark.slow
def test_a_range_of_items_is_run_with_progress_and_summary(project: Project) -> None:
    home = {"DAGSTER_HOME": str(project.path("dagster_home"))}
    prepared = project.llmbatch_here("run", "--offline", "--select", "input_snapshot,work_items")
    assert prepared.returncode == 0, prepared.stderr
    first, *_, last = project.partition_keys()[:5]
    printed = dg(project, "launch", "--assets", "llm_outputs", "--partition-range", f"{first}...{last}", **home)
    assert "Generating 5 items" in printed
    assert "5/5 done, 5 accepted" in printed
    assert "Finished after" in printed
    assert "5 of 5 items accepted" in printed
    assert len(project.outputs()) == 5
