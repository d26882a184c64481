"""Commands import only what they use: each kind of run is asked for its modules at its end."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmbatch_assets_tests.chat_server import ChatServer
from llmbatch_assets_tests.project import Project, make_project

GENERATE = ("--select", "input_snapshot,work_items,llm_outputs")
TABLES = {"pyarrow", "pandas", "numpy", "openpyxl", "python_calamine"}
CALLS = {"openai", "httpx2", "aiohttp", "genai_prices", "platformdirs"}
PAGES = {"jinja2", "matplotlib", "PIL"}
DAGSTER = {"dagster", "sqlalchemy", "alembic", "grpc"}
SERVERS = {"dagster_webserver", "dagster_graphql", "starlette", "uvicorn"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project whose items all have an output of a model."""
    with ChatServer() as server:
        project = make_project(tmp_path_factory.mktemp("finished") / "project", server.base_url)
        assert project.llmbatch("run").returncode == 0
        yield project


def imported_by(project: Project, *arguments: str) -> set[str]:
    """The modules of a command's process at its end."""
    code = (
        "import atexit, sys\nfrom llmbatch_assets.cli import main\n"
        "atexit.register(lambda: print(*sys.modules, file=sys.stderr))\n"
        f"main({list(arguments)!r})"
    )
    command = [sys.executable, "-c", code]
    ended = subprocess.run(
        command, cwd=project.root, env=project.environment(), capture_output=True, text=True, check=False, timeout=120
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return set(ended.stderr.splitlines()[-1].split())


@pytest.mark.parametrize("command", [("plan",), ("status",), ("show", "0"), ("check",), ("diff",)], ids=" ".join)
def test_commands_that_only_read_import_no_dagster(finished: Project, command: tuple[str, ...]) -> None:
    modules = imported_by(finished, *command)
    assert "llmbatch_assets.domain.prompt" in modules
    assert modules & (DAGSTER | TABLES | CALLS | PAGES | SERVERS) == set()


def test_a_run_with_nothing_to_do_imports_no_dagster_and_nothing_for_calls_tables_and_pages(finished: Project) -> None:
    modules = imported_by(finished, "run")
    assert modules & (DAGSTER | TABLES | CALLS | PAGES | SERVERS) == set()


def test_an_offline_run_imports_nothing_for_calls_and_pages(tmp_path: Path) -> None:
    modules = imported_by(make_project(tmp_path / "project"), "run", *GENERATE)
    assert "dagster" in modules
    assert modules & (TABLES | CALLS | PAGES | SERVERS) == set()


def test_a_run_that_writes_csv_and_no_report_imports_no_other_format(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project", outputs={"formats": ["csv"]}, report={"enabled": False})
    assert imported_by(project, "run") & (TABLES | CALLS | PAGES | SERVERS) == set()
