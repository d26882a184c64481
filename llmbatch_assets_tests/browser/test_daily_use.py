"""A day with the project in Dagster's pages: prepare, generate, look, retry, stop, publish. In this order."""

from __future__ import annotations

import re
import time

import pytest

from llmbatch_assets_tests.browser.conftest import N_ROWS
from llmbatch_assets_tests.browser.dagster_ui import PARTITIONS, DagsterUi
from llmbatch_assets_tests.chat_server import ChatServer, says
from llmbatch_assets_tests.project import Project

# Numbers of the questions that are not answered at first.
REFUSED = (11, 13, 14, 16)
N_HITS = 2
ASSETS = {
    "input_table", "parameters", "prompts", "model_settings", "llm_schema_py", "llm_schema_txt", "input_snapshot", "group_contexts",
    "work_items", "llm_outputs", "export", "report",
}  # fmt: skip
EDGES = "{assetNodes {assetKey {path} dependencyKeys {path}}}"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    # Playwright's loop and pipes are closed by the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


def test_a_day(ui: DagsterUi, shown: Project, model: ChatServer) -> None:
    """One test: each part goes on where the one before it ended."""
    # Dagster has registered the items by itself.
    ui.wait_until(lambda: len(ui.partitions("")) == N_ROWS, 120, "no items registered")
    assert [run["status"] for run in ui.ended_after([])] == ["SUCCESS"]
    done = _terminate_keeps_what_was_accepted(ui, shown, model)
    refusing = True
    model.script(
        lambda call: refusing and any(f"Question number {number}?" in call.text for number in REFUSED),
        says("no JSON"),
        purpose="generate",
        repeat_last=True,
    )
    _a_backfill_goes_on_and_another_run_waits_for_it(ui, shown, model, done)
    _partitions_are(ui, failed=len(REFUSED), materialized=N_ROWS - len(REFUSED), missing=0)
    assert _failed_rows(ui) == set(REFUSED)
    ui.screenshot("dagster-partitions")
    _partition_tells_its_metadata(ui, shown)
    _checks_are_shown(ui)
    _automation_is_shown_and_can_be_switched(ui)
    # After the failed backfill of only the items, too.
    ui.wait_until(lambda: "report" in ui.made_assets(""), 150, "no report followed the backfill")
    calls, exported = model.count(), ui.latest_run("", "export")
    refusing = False
    ui.launch_pending()
    ui.wait_until(lambda: ui.latest_run("", "export") != exported, 150, "no export followed generate_pending")
    assert model.count() == calls + 2 * len(REFUSED)
    _partitions_are(ui, failed=0, materialized=N_ROWS, missing=0)
    _report_is_in_the_metadata(ui)
    _lineage_shows_assets_and_edges(ui)


def _lineage_shows_assets_and_edges(ui: DagsterUi) -> None:
    ui.open("/asset-groups")
    for asset in ASSETS:
        ui.wait_for(asset)
    nodes = {node["assetKey"]["path"][-1]: node for node in ui.asks(EDGES)["assetNodes"]}
    above = {key["path"][-1] for key in nodes["llm_outputs"]["dependencyKeys"]}
    assert set(nodes) == ASSETS
    assert above == {"work_items", "group_contexts", "llm_schema_txt", "prompts", "model_settings"}
    ui.screenshot("dagster-lineage")


def _terminate_keeps_what_was_accepted(ui: DagsterUi, shown: Project, model: ChatServer) -> int:
    before = ui.runs()
    model.delay = 2
    ui.launch_pending()
    _wait_for_calls(model, 3)
    ui.terminate()
    (ended,) = ui.ended_after(before, seconds=15)
    model.delay = 0
    ui.page.get_by_text(
        re.compile(rf"Interrupted after [\d.]+ s: \d+ of {N_ROWS} items accepted\. The next run continues from here")
    ).first.wait_for()
    done = shown.rows_done()
    assert (ended["status"], done) == ("CANCELED", [*range(len(done))])
    assert 1 <= len(done) < min(REFUSED) - N_HITS
    _partitions_are(ui, failed=0, materialized=len(done), missing=N_ROWS - len(done))
    return len(done)


def _a_backfill_goes_on_and_another_run_waits_for_it(
    ui: DagsterUi, shown: Project, model: ChatServer, done: int
) -> None:
    # Outputs of which this Dagster knows nothing.
    elsewhere = str(shown.root.parent / "elsewhere")
    generate = ("run", "--select", "llm_outputs", "--limit", str(N_HITS))
    assert shown.llmbatch(*generate, DAGSTER_HOME=elsewhere).returncode == 0
    calls, before = model.count(), ui.runs()
    ui.launch_backfill("Failed and missing")
    while len(ui.runs()) == len(before):
        ui.page.wait_for_timeout(100)
    ui.launch("generate_pending", '{ops: {generate_items: {config: {select: "keys"}}}}')
    waited, backfilled = ui.ended_after(before, count=2)
    assert (backfilled["status"], waited["status"]) == ("FAILURE", "SUCCESS")
    # It was there, and did not begin.
    assert waited["creationTime"] < backfilled["endTime"] <= waited["startTime"]
    made = N_ROWS - done - N_HITS - len(REFUSED)
    assert model.count() == calls + 2 * made + 3 * len(REFUSED)


def _wait_for_calls(model: ChatServer, count: int) -> None:
    deadline = time.monotonic() + 60
    while model.count() < count:
        assert time.monotonic() < deadline
        time.sleep(0.05)


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
    for name in ("item", "path", "Verdict", "Output", "Attempts", "Cost", "q01"):
        ui.page.get_by_text(name, exact=True).first.wait_for()
    ui.wait_for("PASS")
    ui.wait_for(shown.output_of(0).stem)
    ui.screenshot("dagster-partition")


def _checks_are_shown(ui: DagsterUi) -> None:
    ui.open("/assets/llm_outputs?view=checks")
    for name in ("acceptance_rate", "duplicate_outputs", "judge_score", "schema_failures"):
        ui.wait_for(name)
    ui.wait_for(f"{N_ROWS - len(REFUSED)} of {N_ROWS} attempted items accepted")
    ui.screenshot("dagster-checks")


def _automation_is_shown_and_can_be_switched(ui: DagsterUi) -> None:
    ui.open("/automation")
    for name in ("prepare_after_changes", "publish_automatically", "generate_after_prepare"):
        ui.wait_for(name)
    ui.screenshot("dagster-automation")
    # Each of them is on or off as the documentation says, and one click away from the other.
    for name, on in {
        "prepare_after_changes": True,
        "publish_automatically": True,
        "generate_after_prepare": False,
    }.items():
        assert ui.is_on(name) == on
    ui.switch("generate_after_prepare")
    ui.switch("generate_after_prepare")


def _report_is_in_the_metadata(ui: DagsterUi) -> None:
    ui.open("/assets/report")
    for name in ("summary", "charts"):
        ui.page.get_by_text(name, exact=True).first.wait_for()
    ui.screenshot("dagster-report")
