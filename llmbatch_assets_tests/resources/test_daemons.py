"""A daemon on the same instance is found while it runs, and no longer."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from llmbatch_assets.resources.daemons import running_daemon
from llmbatch_assets_tests.project import make_project


def test_the_page_does_not_open_beside_another_daemon_but_opens_after_it(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    home = project.path("dagster_home")
    home.mkdir()
    environment = os.environ | {"DAGSTER_HOME": str(home)}
    command = [sys.executable, "-m", "dagster._daemon", "run", "--empty-workspace"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as daemon:
        try:
            deadline = time.monotonic() + 30
            while (found := running_daemon(home)) is None and time.monotonic() < deadline:
                time.sleep(0.05)
            assert found == daemon.pid
            assert running_daemon(tmp_path) is None
            ended = project.llmbatch_here("ui", "--port", "3999")
            assert ended.returncode == 2
            assert ended.stderr.count("\n") == 1
            assert f"already runs on {home} (process {daemon.pid})" in ended.stderr
        finally:
            daemon.kill()
    assert running_daemon(home) is None
