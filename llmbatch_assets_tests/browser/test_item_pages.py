"""The pages of items in Dagster: what a person reads about an accepted item, a failed one, and the batch as a whole."""

from __future__ import annotations

import re

import pytest

from llmbatch_assets_tests.browser.conftest import N_ROWS
from llmbatch_assets_tests.browser.dagster_ui import PARTITIONS, DagsterUi
from llmbatch_assets_tests.chat_server import ChatServer, says
from llmbatch_assets_tests.project import GENERATION, Project

NEVER, LATER = 3, 2
pytestmark = [
    pytest.mark.slow,
    # Playwright's loop and pipes are closed by the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module", autouse=True)
def runs(shown: Project, model: ChatServer) -> None:
    """Two runs: one item never has an output, another one fails after the prompt has changed."""
    no_json = says("Sorry, <b>no</b> JSON | today")
    model.script(lambda call: f"number {NEVER}?" in call.text, no_json, purpose="generate", repeat_last=True)
    assert shown.llmbatch("run").returncode == 3
    shown.prompt("generation", {**GENERATION, "user": "{context}\n\nAnswer it well."})
    model.script(lambda call: f"number {LATER}?" in call.text, no_json, purpose="generate", repeat_last=True)
    assert shown.llmbatch("run").returncode == 3


def open_partition(ui: DagsterUi, number: int) -> None:
    ui.open(PARTITIONS)
    ui.page.get_by_text(re.compile(f"^q{number:02d}-")).first.click()


def table_row(ui: DagsterUi, name: str, value: str | re.Pattern[str]) -> None:
    """Wait for a row of a table in the metadata, which has been rendered as a table."""
    cell = ui.page.get_by_role("cell", name=name, exact=True)
    ui.page.locator("tr").filter(has=cell).filter(has_text=value).last.wait_for()


def _an_accepted_item_is_shown_with_its_row_output_and_verdict(ui: DagsterUi) -> None:
    open_partition(ui, 1)
    table_row(ui, "Row", "1 (row_index 0)")
    table_row(ui, "question", "Question number 1?")
    table_row(ui, "Verdict", "PASS")
    table_row(ui, "Attempts", "1")
    table_row(ui, "answer", re.compile(r"answer\s*\w"))
    table_row(ui, "Report", "report.html#item=q01-")


def _a_failure_stands_above_the_older_output_and_says_so(ui: DagsterUi) -> None:
    open_partition(ui, LATER)
    table_row(ui, "Cause", "not_json")
    table_row(ui, "What to do", "one JSON object")
    table_row(ui, "Output shown here", "Made with earlier settings (since changed: generation prompt)")
    ui.wait_for("Sorry, <b>no</b> JSON | today")
    table_row(ui, "Verdict", "PASS")
    link = ui.page.get_by_role("link", name="/runs/").first
    failed = next(run["runId"] for run in ui.runs() if run["status"] == "FAILURE")
    assert link.get_attribute("href") == f"/runs/{failed}"


def _an_item_without_any_output_explains_itself_in_its_events_and_in_the_log(ui: DagsterUi) -> None:
    open_partition(ui, NEVER)
    ui.page.get_by_text("did not materialize this asset").first.wait_for()
    ui.click("button", "View all historical events")
    ui.page.get_by_role("dialog").get_by_text(re.compile(f"^q{NEVER:02d}-")).first.click()
    table_row(ui, "Cause", "not_json")
    ui.page.keyboard.press("Escape")
    open_partition(ui, NEVER)
    ui.page.get_by_role("button", name="View logs").first.wait_for()
    failed = [str(run["runId"]) for run in ui.runs() if run["status"] == "FAILURE"]
    line = re.compile(r"q03-\w+ failed after 3 attempts: not_json: The answer contains no")
    assert any(line.match(message) for run in failed for message in ui.messages(run))


def _the_overview_shows_the_batch_and_not_the_last_item(ui: DagsterUi) -> None:
    ui.open("/assets/llm_outputs?view=overview")
    table_row(ui, "accepted", str(N_ROWS - 2))
    table_row(ui, "failed", "2")
    table_row(ui, "failed_not_json", "2")
    table_row(ui, "judge_score_mean", "90")
    ui.page.get_by_text("Plots", exact=True).first.click()
    ui.click("button", "Events")
    ui.page.locator("canvas").first.wait_for()
    ui.screenshot("dagster-overview")


def test_pages_of_items(ui: DagsterUi) -> None:
    """One test, so that one process starts Dagster and waits for its daemon."""
    _an_accepted_item_is_shown_with_its_row_output_and_verdict(ui)
    _a_failure_stands_above_the_older_output_and_says_so(ui)
    _an_item_without_any_output_explains_itself_in_its_events_and_in_the_log(ui)
    _the_overview_shows_the_batch_and_not_the_last_item(ui)
