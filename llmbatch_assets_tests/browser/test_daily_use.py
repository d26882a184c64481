"""A day with the project in Dagster's pages: prepare, generate, look, retry, stop, publish. In this order."""

from __future__ import annotations

import re

import pytest

from llmbatch_assets_tests.browser.conftest import N_ROWS
from llmbatch_assets_tests.browser.dagster_ui import DagsterUi
from llmbatch_assets_tests.chat_server import ChatServer, says
from llmbatch_assets_tests.project import Project

REFUSED = (3, 7, 8, 15)
ASSETS = {
    "input_table", "parameters", "prompts", "llm_schema_py", "llm_schema_txt", "input_snapshot", "group_contexts",
    "work_items", "llm_outputs", "export", "report",
}  # fmt: skip
EDGES = "{assetNodes {assetKey {path} dependencyKeys {path}}}"
PARTITIONS = "/assets/llm_outputs?view=partitions"
pytestmark = [
    pytest.mark.slow,
    # Playwright's loop and pipes are closed by the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


def test_a_day(ui: DagsterUi, shown: Project, model: ChatServer) -> None:
    """One test: each part goes on where the one before it ended."""
    _lineage_shows_assets_and_edges(ui)
    assert ui.materialize_all("prepare") == "SUCCESS"
    refusing = True
    model.script(
        lambda call: refusing and any(f"Question number {number}?" in call.text for number in REFUSED),
        says("no JSON"),
        purpose="generate",
        repeat_last=True,
    )
    assert ui.ended_after(ui.launch_pending()) == "FAILURE"
    _partitions_are(ui, failed=len(REFUSED), materialized=N_ROWS - len(REFUSED), missing=0)
    assert _failed_rows(ui) == set(REFUSED)
    ui.screenshot("dagster-partitions")
    _partition_tells_its_metadata(ui, shown)
    _checks_are_shown(ui)
    calls = len(model.calls)
    refusing = False
    before = ui.launch_pending()
    assert ui.ended_after(before) == "SUCCESS"
    assert len(model.calls) == calls + 2 * len(REFUSED)
    _partitions_are(ui, failed=0, materialized=N_ROWS, missing=0)
    assert ui.materialize_all("publish") == "SUCCESS"
    _report_is_in_the_metadata(ui)


def _lineage_shows_assets_and_edges(ui: DagsterUi) -> None:
    ui.open("/asset-groups")
    for asset in ASSETS:
        ui.wait_for(asset)
    nodes = {node["assetKey"]["path"][-1]: node for node in ui.asks(EDGES)["assetNodes"]}
    above = {key["path"][-1] for key in nodes["llm_outputs"]["dependencyKeys"]}
    assert set(nodes) == ASSETS
    assert above == {"work_items", "group_contexts", "llm_schema_txt", "prompts"}
    ui.screenshot("dagster-lineage")


def _partitions_are(ui: DagsterUi, *, failed: int, materialized: int, missing: int) -> None:
    ui.open(PARTITIONS)
    for label, count in {"Failed": failed, "Materialized": materialized, "Missing": missing}.items():
        ui.wait_for(f"{label} ({count})")


def _failed_rows(ui: DagsterUi) -> set[int]:
    # The pages draw statuses as colours; this is what they colour by.
    answer = ui.asks(
        '{assetNodeOrError(assetKey: {path: "llm_outputs"}) {... on AssetNode {assetPartitionStatuses '
        ""
        "{... on DefaultPartitionStatuses {failedPartitions}}}}}"
    )
    failed = answer["assetNodeOrError"]["assetPartitionStatuses"]["failedPartitions"]
    return {int(key[1:3]) for key in failed}


def _partition_tells_its_metadata(ui: DagsterUi, shown: Project) -> None:
    ui.page.get_by_text(re.compile("^q01-")).first.click()
    for name in ("path", "cache_id", "verdict", "input_tokens", "output_tokens", "preview"):
        ui.page.get_by_text(name, exact=True).first.wait_for()
    ui.wait_for("PASS")
    ui.wait_for(shown.output_of(0).stem)
    ui.screenshot("dagster-partition")


def _checks_are_shown(ui: DagsterUi) -> None:
    ui.open("/assets/llm_outputs?view=checks")
    for name in ("acceptance_rate", "duplicate_outputs", "judge_score", "schema_failures"):
        ui.wait_for(name)
    ui.wait_for(f"{N_ROWS - len(REFUSED)} of {N_ROWS} attempted items are accepted")
    ui.screenshot("dagster-checks")


def _report_is_in_the_metadata(ui: DagsterUi) -> None:
    ui.open("/assets/report")
    for name in ("summary", "charts"):
        ui.page.get_by_text(name, exact=True).first.wait_for()
    ui.screenshot("dagster-report")
