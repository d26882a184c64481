"""``llmbatch init``: a project that runs at once, and no file written over."""

from __future__ import annotations

import re
import shutil
import tomllib
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

import pytest

import llmbatch_assets
from llmbatch_assets_tests.chat_server import ChatServer
from llmbatch_assets_tests.memory_storage import kept_in_memory
from llmbatch_assets_tests.project import Project

PACKAGE = Path(llmbatch_assets.__file__).parent
MADE = {
    *(".gitignore", "README.md", "configs/parameters.yaml", "dagster_home/dagster.yaml", "prompts/generation.yaml"),
    *("prompts/judge.yaml", "prompts/schema_auto_py_generation.yaml", "pyproject.toml", "raw_data/input.csv"),
    *("schema/llm_schema.py", "src/llmbatch_assets/defs/README.md", "workspace.yaml"),
}


@pytest.fixture
def above(tmp_path: Path) -> Project:
    """The folder in which somebody makes a project."""
    return Project(tmp_path)


def test_a_new_project_is_whole_and_runs_at_once(above: Project) -> None:
    ended = above.llmbatch_here("init", "my project")
    assert ended.returncode == 0, ended.stderr
    project = Project(above.path("my project"))
    assert set(project.tree()) == MADE
    assert "cd my project" in ended.stdout or "cd 'my project'" in ended.stdout
    told = tomllib.loads(project.path("pyproject.toml").read_text())
    assert told["project"]["name"] == "my-project"
    described = told["tool"]["dg"]["project"]
    # Dagster keeps the states of sensors by this name: dg dev must not call it otherwise than llmbatch ui.
    assert described["code_location_name"] == "llmbatch_assets.definitions"
    assert described["code_location_target_module"] == "llmbatch_assets.definitions"
    project.path("dagster_home/dagster.yaml").unlink()
    project.path("dagster_home").rmdir()

    with kept_in_memory(project.path("dagster_home")):
        assert project.llmbatch_here("check").returncode == 0
        ran = project.llmbatch_here("run", "--offline", "--sample", "3")
    assert ran.returncode == 0, ran.stderr
    assert len(project.outputs()) == 3


def test_a_file_that_is_there_is_never_written_over(above: Project) -> None:
    above.write("mine/configs/parameters.yaml", "mine")
    before = above.tree()
    ended = above.llmbatch_here("init", "mine")
    assert ended.returncode == 2
    assert "mine/configs/parameters.yaml" in ended.stderr
    assert "nothing was written" in ended.stderr
    assert above.tree() == before


def test_a_folder_with_other_files_is_taken_and_a_file_is_not(above: Project) -> None:
    above.write("mine/notes.txt", "mine")
    assert above.llmbatch_here("init", "mine").returncode == 0
    assert above.path("mine/notes.txt").read_text() == "mine"
    assert above.llmbatch_here("init", "mine/notes.txt").returncode == 2


def test_a_readme_that_is_there_is_kept(above: Project) -> None:
    above.write("mine/README.md", "mine")
    ended = above.llmbatch_here("init", "mine")
    assert ended.returncode == 0, ended.stderr
    assert above.path("mine/README.md").read_text() == "mine"
    assert set(Project(above.path("mine")).tree()) == MADE


def test_a_new_project_says_what_to_back_up_wherever_somebody_looks(above: Project) -> None:
    ended = above.llmbatch_here("init", "mine")
    assert "artifacts/cache/, which git ignores: back it up" in ended.stdout
    ignored = above.path("mine/.gitignore").read_text()
    assert re.search(r"# What you paid for\..*\n.*See README\.md\.\nartifacts/\n", ignored)
    readme = above.path("mine/README.md").read_text()
    assert readme.startswith("# mine\n")
    assert {"artifacts/cache/", "archived/", "dagster_home/", "credentials.yaml"} <= set(
        re.findall(r"`([\w./]+)`", readme)
    )
    assert "back it up" in above.path("mine/configs/parameters.yaml").read_text()


def test_a_project_that_is_moved_as_its_readme_says_makes_no_calls(
    project_with: Callable[..., Project], server: ChatServer, tmp_path: Path
) -> None:
    project = project_with(prompts={"judge": {"enabled": True}}, report={"enabled": False})
    assert project.llmbatch_here("run").returncode == 0
    exported, calls = project.path("artifacts/outputs/output.csv").read_bytes(), server.count()
    # What git keeps, and artifacts/cache/. The rest is rebuilt.
    moved = Project(tmp_path / "other machine" / "batches")
    for kept in ("configs", "prompts", "schema", "raw_data", "artifacts/cache"):
        shutil.copytree(project.path(kept), moved.path(kept))
    with kept_in_memory(moved.path("dagster_home")):
        assert "5 items: 5 cached, 0 new, 0 to rerun" in moved.llmbatch_here("plan").stdout
        ended = moved.llmbatch_here("run")
        assert ended.returncode == 0, ended.stderr
        assert len(moved.partition_states()) == 5
    assert server.count() == calls
    assert moved.path("artifacts/outputs/output.csv").read_bytes() == exported
    # Without the cache, everything is paid for again.
    shutil.rmtree(moved.path("artifacts"))
    assert "5 items: 0 cached, 5 new" in moved.llmbatch_here("plan").stdout


def test_what_a_project_is_made_of_is_in_the_wheel() -> None:
    told = tomllib.loads(PACKAGE.with_name("pyproject.toml").read_text())
    patterns = told["tool"]["setuptools"]["package-data"]["llmbatch_assets"]
    inside = [path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*") if path.is_file()]
    data = [
        name for name in inside if "__pycache__" not in name and not (PACKAGE / name).with_name("__init__.py").exists()
    ]
    data += [name for name in inside if "__pycache__" not in name and not name.endswith(".py")]
    assert {"cli/dagster.yaml", "cli/project/schema/llm_schema.py", "py.typed"} <= set(data)
    for name in data:
        assert any(fnmatch(name, pattern) for pattern in patterns), name
    # A name that begins with a dot is not matched by such patterns when a wheel is built.
    assert not [name for name in data if Path(name).name.startswith(".")]
