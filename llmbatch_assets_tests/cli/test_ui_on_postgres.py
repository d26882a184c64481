"""Webserver, daemon and sensors on PostgreSQL, with runs that are large enough to have their events stored apart."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import yaml

from llmbatch_assets.domain.run.quality import BROKEN, UP_TO_DATE
from llmbatch_assets.resources.events import event_process
from llmbatch_assets.resources.events.partition_events import MIN_EVENTS_FOR_PROCESS
from llmbatch_assets_tests.chat_server import ChatServer, says
from llmbatch_assets_tests.cli.test_statuses import STATUSES, Shown, questions, statuses_of
from llmbatch_assets_tests.dagster_api import DagsterApi, RunningUi, running_ui
from llmbatch_assets_tests.event_history import POSTGRES
from llmbatch_assets_tests.own_processes import running
from llmbatch_assets_tests.postgres_server import new_database
from llmbatch_assets_tests.project import make_project

COUNT = MIN_EVENTS_FOR_PROCESS + 600
FAILING = (3, COUNT // 2, COUNT - 1)
SELECTOR = '{repositoryName: "__repository__", repositoryLocationName: "llmbatch_assets.definitions", sensorName: "%s"}'
SWITCH_ON = "mutation {startSensor(sensorSelector: %s) {__typename}}"
TICKS = "{sensorOrError(sensorSelector: %s) {... on Sensor {sensorState {ticks {status}}}}}"
TERMINATE = 'mutation {terminateRun(runId: "%s") {__typename}}'
KNOWN_OF = """{assetNodeOrError(assetKey: {path: "llm_outputs"}) {... on AssetNode {
    assetMaterializations(partitions: ["%s"]) {metadataEntries {label}}
    assetChecksOrError {... on AssetChecks {checks {name executionForLatestMaterialization {status}}}}}}}"""


def wait_for(happened: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def switch_on(dagster: DagsterApi, *sensors: str) -> None:
    """Turn sensors on, and see them tick: what has happened before its first time is none of a sensor's business."""
    for sensor in sensors:
        assert dagster.asks(SWITCH_ON % SELECTOR % sensor) == {"startSensor": {"__typename": "Sensor"}}
    wait_for(lambda: all(_ticks(dagster, sensor) for sensor in sensors))


def _ticks(dagster: DagsterApi, sensor: str) -> list[object]:
    return list(dagster.asks(TICKS % SELECTOR % sensor)["sensorOrError"]["sensorState"]["ticks"])


def shown(dagster: DagsterApi) -> Shown:
    return statuses_of(dagster.asks(STATUSES)["assetNodeOrError"])


def event_processes(ui: RunningUi) -> list[psutil.Process]:
    """Those of its runs."""
    return running(event_process, of=ui.process.pid)


@pytest.mark.slow
def test_sensors_chain_the_stages_and_a_large_run_that_is_ended_is_gone_on_with(
    tmp_path: Path, server: ChatServer, postgres_url: str
) -> None:
    llm = {"max_workers": 8, "max_retries": 1}
    project = make_project(tmp_path / "project", server.base_url, llm=llm, work_items={"label_column": "id"})
    questions(project, 1)
    packaged = yaml.safe_load((Path(__file__).parents[2] / "dagster_home/dagster.yaml").read_text())
    project.write("dagster_home/dagster.yaml", yaml.safe_dump({**packaged, "storage": POSTGRES}))
    server.delay = 0.03
    with running_ui(project, POSTGRES_URL_OF_THE_TEST=new_database(postgres_url)) as ui:
        dagster = DagsterApi(ui.address)
        # The new project is prepared, and nothing more.
        dagster.ended_after([])
        switch_on(dagster, "generate_after_prepare")
        before = dagster.runs()
        questions(project, COUNT)
        wait_for(lambda: server.count() > COUNT // 5)
        assert len(event_processes(ui)) == 1
        dagster.asks(TERMINATE % dagster.runs()[0]["runId"])
        generated, prepared = dagster.ended_after(before, count=2)
        assert (prepared["jobName"], prepared["status"]) == ("prepare", "SUCCESS")
        assert (generated["jobName"], generated["status"]) == ("generate_pending", "CANCELED")
        wait_for(lambda: not event_processes(ui))
        keys = project.partition_keys()
        done = {keys[row] for row in project.rows_done()}
        assert COUNT // 5 < len(done) < COUNT
        assert shown(dagster) == Shown(done, set(), set(), set(keys) - done)

        server.delay = 0
        for number in FAILING:
            server.script(f"number {number}?", says("no JSON"))
        failing = {keys[number] for number in FAILING} - done
        before = dagster.runs()
        dagster.launch("generate_pending")
        published, generated = dagster.ended_after(before, count=2)
        assert (generated["jobName"], generated["status"]) == ("generate_pending", "FAILURE")
        # By the automation conditions.
        assert (published["jobName"], published["status"]) == ("__ASSET_JOB", "SUCCESS")
        assert shown(dagster) == Shown(set(keys) - failing, failing)
        known = dagster.asks(KNOWN_OF % min(set(keys) - failing))["assetNodeOrError"]
    labels = {entry["label"] for made in known["assetMaterializations"] for entry in made["metadataEntries"]}
    assert {"path", "item"} <= labels
    checks = known["assetChecksOrError"]["checks"]
    found = {one["name"]: one["executionForLatestMaterialization"]["status"] for one in checks}
    # Those that show failed items, and the others.
    assert {name for name, status in found.items() if status == "FAILED"} == {BROKEN, UP_TO_DATE}
    assert [*found.values()].count("SUCCEEDED") == 3
    assert project.path("artifacts/reports/report.html").is_file()
    assert not project.path("dagster_home/history").exists()
