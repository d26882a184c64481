"""Fixtures that all tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from llmbatch_assets_tests.chat_server import ChatServer
from llmbatch_assets_tests.project import Project, make_project


@pytest.fixture
def server() -> Iterator[ChatServer]:
    """A chat-completions server on this machine, to be scripted."""
    with ChatServer() as running:
        yield running


@pytest.fixture
def project(tmp_path: Path, server: ChatServer) -> Project:
    """A project whose model is the scripted server."""
    return make_project(tmp_path / "project", server.base_url)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """A Dagster instance of the test's own."""
    with dg.instance_for_test() as made:
        yield made
