"""Fixtures that all tests share."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from llmbatch_assets_tests.chat_server import ChatServer
from llmbatch_assets_tests.memory_storage import kept_in_memory
from llmbatch_assets_tests.opened_files import recording_opens
from llmbatch_assets_tests.postgres_server import find_server, postgres_server
from llmbatch_assets_tests.project import Project, make_project


def pytest_xdist_auto_num_workers() -> int:
    """Return the number of processes for ``-n auto``: two more than cores, since many tests wait for servers."""
    return (os.cpu_count() or 1) + 2


@pytest.fixture
def server() -> Iterator[ChatServer]:
    """A chat-completions server on this machine, to be scripted."""
    with ChatServer() as running:
        yield running


@pytest.fixture
def project_with(tmp_path: Path, server: ChatServer) -> Iterator[Callable[..., Project]]:
    """Makes a project whose model is the scripted server, with further blocks in its configuration.

    Its Dagster instance is in memory, which saves seconds; a process of its own needs one on disk: ``make_project``.
    """

    def make(**blocks: Any) -> Project:
        return make_project(tmp_path / "project", server.base_url, **blocks)

    with kept_in_memory(tmp_path / "project/dagster_home"):
        yield make


@pytest.fixture
def project(project_with: Callable[..., Project]) -> Project:
    """A project whose model is the scripted server."""
    return project_with()


@pytest.fixture
def opened() -> Iterator[list[str]]:
    """The output and failure files and tables that this process opens for reading, one entry per opening."""
    with recording_opens() as record:
        yield record


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """A Dagster instance of the test's own, in memory: the storage's code is that of the one on disk."""
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A database of the tests' own. Under CI there must be one."""
    program = find_server()
    if program is None:
        missing = "no PostgreSQL server is installed (Debian: apt-get install postgresql)"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    with postgres_server(program) as url:
        yield url


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with what takes long, in all processes: at the end all but one would wait for it."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
    # Each process is given one part of the list, in this order.
    n_parts = getattr(config, "workerinput", {}).get("workercount", 1)
    items[:] = [item for part in range(n_parts) for item in items[part::n_parts]]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Under CI a test that needs the embedded model must run: a skip is a failure."""
    report = yield
    if os.environ.get("CI") == "true" and report.skipped and item.get_closest_marker("local_model"):
        report.outcome = "failed"
    return report
