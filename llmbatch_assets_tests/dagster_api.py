"""A project's Dagster as ``llmbatch ui`` starts it, and what it is asked as its own pages ask."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeAlias

import pytest

from llmbatch_assets_tests.project import Project

Run: TypeAlias = dict[str, Any]
READY_SEC = 120
# Each answer costs the webserver and the definitions' process a good part of a tenth of a second.
POLL_SEC = 1.0
ENDED = {"SUCCESS", "FAILURE", "CANCELED"}
RUNS = "{runsOrError {... on Runs {results {runId jobName status creationTime startTime endTime}}}}"
BACKFILLS = "{partitionBackfillsOrError(limit: 50) {... on PartitionBackfills {results {id status}}}}"
BACKFILL_RUNS = """{partitionBackfillOrError(backfillId: "%s") {... on PartitionBackfill {runs(limit: 20)
    {id status assetSelection {path}}}}}"""
ASSET = """{assetNodeOrError(assetKey: {path: %s}) {... on AssetNode {%s}}}"""
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
        except urllib.error.HTTPError:
            # It answers; its pages are below a prefix.
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

    def wait_until(self, condition: Callable[[], bool], seconds: float, complaint: str) -> None:
        """Wait until something holds; fails with the complaint if it does not within the seconds."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"{complaint} within {seconds} s"
            time.sleep(POLL_SEC)

    def asset(self, group: str, name: str, fields: str) -> dict[str, Any]:
        """Fields of an asset; ``group`` is the batch, empty for the default one."""
        path = json.dumps([part for part in (group, name) if part])
        return dict(self.asks(ASSET % (path, fields))["assetNodeOrError"])

    def partitions(self, group: str) -> list[str]:
        """The registered partitions of ``llm_outputs``."""
        return list(self.asset(group, "llm_outputs", "partitionKeys").get("partitionKeys", ()))

    def partition_counts(self, group: str) -> dict[str, int]:
        """The numbers by which the pages colour ``llm_outputs``."""
        fields = "partitionStats {numMaterialized numFailed numPartitions}"
        return dict(self.asset(group, "llm_outputs", fields)["partitionStats"])

    def made_assets(self, group: str) -> set[str]:
        """The assets of a batch that have been materialized."""
        nodes = self.asks("{assetNodes {assetKey {path} assetMaterializations(limit: 1) {runId}}}")["assetNodes"]
        made = [node["assetKey"]["path"] for node in nodes if node["assetMaterializations"]]
        return {path[-1] for path in made if path[:-1] == ([group] if group else [])}

    def latest_run(self, group: str, name: str) -> str:
        """The run that made an asset last; empty if none has."""
        made = self.asset(group, name, "assetMaterializations(limit: 1) {runId}")["assetMaterializations"]
        return str(made[0]["runId"]) if made else ""

    def is_observed(self, group: str, name: str) -> bool:
        """Whether a source asset has a version."""
        return bool(self.asset(group, name, "assetObservations(limit: 1) {runId}")["assetObservations"])

    def stale_statuses(self, group: str) -> set[str]:
        """The statuses of the partitions of ``llm_outputs``; the pages call STALE unsynced."""
        keys = json.dumps(self.partitions(group))
        field = f"staleStatusByPartition(partitions: {keys})"
        return set(self.asset(group, "llm_outputs", field)["staleStatusByPartition"])

    def check(self, group: str, name: str) -> tuple[bool, str] | None:
        """A check of ``llm_outputs``: whether it has passed, and what it says; None before it has been evaluated."""
        fields = "name executionForLatestMaterialization {evaluation {success description}}"
        answer = self.asset(group, "llm_outputs", f"assetChecksOrError {{... on AssetChecks {{checks {{{fields}}}}}}}")
        found = {
            one["name"]: one["executionForLatestMaterialization"] for one in answer["assetChecksOrError"]["checks"]
        }
        evaluation = (found[name] or {}).get("evaluation")
        return (evaluation["success"], evaluation["description"]) if evaluation else None

    def backfills(self) -> list[dict[str, Any]]:
        """Dagster's backfills, the latest first."""
        return list(self.asks(BACKFILLS)["partitionBackfillsOrError"]["results"])

    def backfill_ended(self, backfill: str, seconds: float) -> str:
        """Wait until a backfill has ended; return how."""

        def status() -> str:
            return next(str(one["status"]) for one in self.backfills() if one["id"] == backfill)

        self.wait_until(
            lambda: status().startswith(("COMPLETED", "FAILED", "CANCELED")), seconds, "the backfill has not ended"
        )
        return status()

    def run_of(self, backfill: str, asset: str) -> str:
        """The run of a backfill that materializes an asset."""
        runs = self.asks(BACKFILL_RUNS % backfill)["partitionBackfillOrError"]["runs"]
        (found,) = (run["id"] for run in runs if asset in [key["path"][-1] for key in run["assetSelection"]])
        return str(found)

    def messages(self, run_id: str) -> list[str]:
        """The messages of a run, in order; its page draws only those for which the window has room."""
        asked = f'{{logsForRun(runId: "{run_id}") {{... on EventConnection {{events {{... on MessageEvent {{message}}}}}}}}}}'
        return [event["message"] for event in self.asks(asked)["logsForRun"]["events"] if "message" in event]

    def runs_of_partition(self, key: str) -> list[Run]:
        """The runs that were launched for one partition, the latest first."""
        wanted = RUNS.replace(
            "runsOrError", f'runsOrError(filter: {{tags: [{{key: "dagster/partition", value: "{key}"}}]}})'
        )
        return list(self.asks(wanted)["runsOrError"]["results"])

    def ended_after(self, before: Sequence[Run], count: int = 1, seconds: float = 120) -> list[Run]:
        """Wait until so many further runs have ended; gives them, the latest first."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            new = self.runs()[: -len(before) or None]
            if len(new) == count and all(run["status"] in ENDED for run in new):
                return new
            time.sleep(POLL_SEC)
        raise AssertionError(f"not {count} runs ended within {seconds} s: {self.runs()}")
