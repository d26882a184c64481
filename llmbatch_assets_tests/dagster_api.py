"""A project's Dagster as ``llmbatch ui`` starts it, and what it is asked as its own pages ask."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeAlias

import pytest

from llmbatch_assets_tests.project import Project

Run: TypeAlias = dict[str, Any]
READY_SEC = 120
ENDED = {"SUCCESS", "FAILURE", "CANCELED"}
RUNS = "{runsOrError {... on Runs {results {runId jobName status creationTime startTime endTime}}}}"
LAUNCH = """mutation {launchRun(executionParams: {runConfigData: %s, selector: {jobName: "%s", repositoryName: "__repository__",
    repositoryLocationName: "llmbatch_assets.definitions"}}) {__typename}}"""


class RunningUi(NamedTuple):
    """Webserver and daemon."""

    address: str
    process: subprocess.Popen[bytes]


@contextmanager
def running_ui(project: Project, **environment: str) -> Iterator[RunningUi]:
    """The project's ``llmbatch ui``, from when it answers to the end of the block."""
    with running_webserver(project, "llmbatch_assets.cli", "ui", **environment) as ui:
        yield ui


@contextmanager
def running_webserver(project: Project, *module: str, **environment: str) -> Iterator[RunningUi]:
    """A Python module that serves Dagster's pages on the port it is given, started in the project's folder."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (project.root.parent / "ui.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *module, "--port", str(port)],
            cwd=project.root,
            env=project.environment(**environment),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait_until_ready(port, process)
        yield RunningUi(f"http://127.0.0.1:{port}", process)
    finally:
        process.terminate()
        process.wait(timeout=60)


def _wait_until_ready(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_SEC
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/server_info", timeout=5):
                return
        except OSError:
            time.sleep(0.3)
    pytest.fail("the webserver did not come up; see ui.log")


class DagsterApi:
    """A running Dagster by its address."""

    def __init__(self, address: str) -> None:
        self.address = address

    def asks(self, query: str, **variables: Any) -> Any:
        """Dagster's answer to a question, as its own pages ask."""
        headers = {"Content-Type": "application/json"}
        asked = urllib.request.Request(
            f"{self.address}/graphql", json.dumps({"query": query, "variables": variables}).encode(), headers
        )
        with urllib.request.urlopen(asked, timeout=60) as answer:
            return json.load(answer)["data"]

    def launch(self, job: str, config: str = "{}") -> None:
        """Start a job as its launchpad does, without looking at it; ``config`` is in GraphQL's notation."""
        assert self.asks(LAUNCH % (config, job)) == {"launchRun": {"__typename": "LaunchRunSuccess"}}

    def runs(self) -> list[Run]:
        """Dagster's runs, the latest first."""
        return list(self.asks(RUNS)["runsOrError"]["results"])

    def ended_after(self, before: Sequence[Run], count: int = 1, seconds: float = 120) -> list[Run]:
        """Wait until so many further runs have ended; gives them, the latest first."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            new = self.runs()[: -len(before) or None]
            if len(new) == count and all(run["status"] in ENDED for run in new):
                return new
            time.sleep(0.2)
        raise AssertionError(f"not {count} runs ended within {seconds} s: {self.runs()}")
