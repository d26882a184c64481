"""``llmbatch ui``: what is wrong is told before Dagster starts."""

from __future__ import annotations

import socket
from pathlib import Path

from llmbatch_assets_tests.project import make_project


def test_a_port_that_is_taken_is_told_at_once(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = project.llmbatch_here("ui", "--port", port)
    assert ended.returncode == 2
    assert f"port {port} of 127.0.0.1 is in use" in ended.stderr
    assert "--port" in ended.stderr
    assert not project.path("dagster_home").exists()


def test_an_address_that_is_none_is_told_at_once(tmp_path: Path) -> None:
    ended = make_project(tmp_path / "project").llmbatch_here("ui", "--host", "192.0.2.1")
    assert ended.returncode == 2
    assert "192.0.2.1" in ended.stderr


def test_a_host_name_that_is_none_is_reported_with_an_example(tmp_path: Path) -> None:
    ended = make_project(tmp_path / "project").llmbatch_here("ui", "--allowed-host", "not a name")
    assert ended.returncode == 2
    assert "'not a name' is not a host name; write for example dagster.example.com" in ended.stderr
