"""Changes and mistakes as Dagster's pages show them: what is out of date, and the first thing that a failed run says.

Each batch of the project is a story of its own, and all of them are in the same Dagster.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import pytest
import yaml

from llmbatch_assets_tests.browser.batches import SmallBatch, add_batch
from llmbatch_assets_tests.browser.conftest import window
from llmbatch_assets_tests.browser.dagster_ui import LOCATION, DagsterUi
from llmbatch_assets_tests.chat_server import ChatServer
from llmbatch_assets_tests.dagster_api import Run
from llmbatch_assets_tests.project import GENERATION, JUDGE, SCHEMA, make_project

if TYPE_CHECKING:
    from playwright.sync_api import Browser

N_ROWS = 4
# Twice what it should take, since other tests run beside this one.
MINUTE = 120
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(800),
    # Playwright's loop and pipes are closed by the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


def _edit_prompt(batch: SmallBatch) -> None:
    batch.project.prompt(batch.name, {**GENERATION, "system": "Answer briefly, as JSON.\n{llm_schema}"})


def _edit_model(batch: SmallBatch) -> None:
    settings = batch.configuration()
    settings["llm"]["model_name"] = "another-model"
    batch.project.write(f"configs/{batch.name}.yaml", yaml.safe_dump(settings))


def _edit_schema(batch: SmallBatch) -> None:
    batch.project.write(f"schema/{batch.name}/llm_schema.py", SCHEMA.replace("max_length=80", "max_length=90"))


def _edit_judge(batch: SmallBatch) -> None:
    batch.project.prompt(f"{batch.name}_judge", {**JUDGE, "system": "Judge strictly. {judge_schema}"})


# The edits, and what the check calls them.
EDITS: Mapping[str, tuple[Callable[[SmallBatch], None], str]] = {
    "prompted": (_edit_prompt, "prompt changed"),
    "modelled": (_edit_model, "model or parameters changed"),
    "schemed": (_edit_schema, "schema changed"),
    "judged": (_edit_judge, "judge"),
}


class Changed(NamedTuple):
    """A window on the project, its batches, and the model that they ask."""

    ui: DagsterUi
    batches: dict[str, SmallBatch]
    model: ChatServer


@pytest.fixture(scope="module")
def changed(browser: Browser, tmp_path_factory: pytest.TempPathFactory, model: ChatServer) -> Iterator[Changed]:
    """Batches that the command line has made, of which the files of some are then edited."""
    project = make_project(tmp_path_factory.mktemp("changes") / "project", model.base_url)
    batches = {name: add_batch(project, name, model.base_url, N_ROWS) for name in EDITS}
    for name, llm in {"broken": {}, "keyless": {"api_key_env": "MISSING_KEY"}}.items():
        batches[name] = add_batch(project, name, model.base_url, N_ROWS, llm=llm)
    for name in EDITS:
        made = project.llmbatch("run", "--config", f"configs/{name}.yaml")
        assert made.returncode == 0, made.stderr
    with window(browser, project) as ui:
        yield Changed(ui, batches, model)


def _edited_settings_are_shown_within_a_minute_and_made_again(changed: Changed) -> None:
    ui, batches, model = changed
    for name in EDITS:
        _wait_for_check(ui, name, passed=True)
        ui.wait_until(partial(ui.is_observed, name, "model_settings"), MINUTE, f"{name} is not watched")
    calls, exported = model.count(), {name: ui.latest_run(name, "export") for name in EDITS}
    ui.open("/assets/prompted/llm_outputs?view=checks")
    ui.page.get_by_text("up_to_date").first.click()
    ui.wait_for("all up to date")
    for name, (edit, _) in EDITS.items():
        edit(batches[name])
    # The open page follows without a reload.
    warning = f"{N_ROWS} of {N_ROWS} outputs were made with earlier settings"
    ui.page.get_by_text(warning).first.wait_for(timeout=1000 * MINUTE)
    for name, (_, what) in EDITS.items():
        message = _wait_for_check(ui, name, passed=False)
        assert re.search(rf"^{warning} \(.*{what}.*\)\. Run generate_pending", message), message
        ui.wait_until(partial(_is_unsynced, ui, name), MINUTE, f"{name} is not unsynced")
    assert model.count() == calls
    for name in EDITS:
        ui.launch_pending(f"{name}__")
    for name in EDITS:
        _wait_for_check(ui, name, passed=True, seconds=2 * MINUTE)
        assert ui.stale_statuses(name) == {"FRESH"}
    for name in EDITS:
        ui.wait_until(partial(_is_exported_again, ui, name, exported[name]), MINUTE, f"{name}: no export")


def _is_unsynced(ui: DagsterUi, name: str) -> bool:
    return ui.stale_statuses(name) == {"STALE"}


def _is_exported_again(ui: DagsterUi, name: str, before: str) -> bool:
    return ui.latest_run(name, "export") != before


def _wait_for_check(ui: DagsterUi, name: str, *, passed: bool, seconds: float = MINUTE) -> str:
    """Wait until ``up_to_date`` has this result; return what it says."""

    def has_result() -> bool:
        return (ui.check(name, "up_to_date") or (not passed,))[0] is passed

    ui.wait_until(has_result, seconds, f"up_to_date of {name} is not {passed}")
    return (ui.check(name, "up_to_date") or (passed, ""))[1]


def _a_mistake_in_the_table_is_the_first_thing_that_the_page_of_the_run_says(changed: Changed) -> None:
    ui, batches, _ = changed
    batches["broken"].write_rows([("r1", "red", "Question 1?"), ("r2", "red", "Question 2?", "one too many")])
    before = ui.runs()
    ui.open(f"{LOCATION}/broken__prepare")
    ui.click("button", "Materialize all")
    ui.wait_until(lambda: _failed_since(ui, before, "broken__prepare") != "", MINUTE, "prepare has not failed")
    _is_told_first(ui, _failed_since(ui, before, "broken__prepare"), "raw_data/broken.csv")


def _a_missing_key_is_the_first_thing_that_the_page_of_a_run_of_one_item_says(changed: Changed) -> None:
    ui = changed.ui
    ui.wait_until(lambda: len(ui.partitions("keyless")) == N_ROWS, MINUTE, "no items registered")
    key = ui.partitions("keyless")[0]
    ui.open(f"/assets/keyless/llm_outputs?view=partitions&partition={key}")
    ui.click("button", "Materialize…")
    ui.click_exact("Launch 1 run")
    ui.wait_until(
        lambda: [run["status"] for run in ui.runs_of_partition(key)] == ["FAILURE"], MINUTE, "the run has not failed"
    )
    _is_told_first(
        ui,
        str(ui.runs_of_partition(key)[0]["runId"]),
        "MISSING_KEY is not set: set this environment variable or add it to credentials.yaml",
    )
    assert ui.partition_counts("keyless")["numFailed"] == 0


def _failed_since(ui: DagsterUi, before: list[Run], job: str) -> str:
    """The first new run of a job that has failed; empty if there is none."""
    new = ui.runs()[: -len(before) or None]
    return next((str(run["runId"]) for run in reversed(new) if (run["jobName"], run["status"]) == (job, "FAILURE")), "")


def _is_told_first(ui: DagsterUi, run_id: str, sentence: str) -> None:
    """The row of the step's failure begins with the message, without a traceback or the name of an exception."""
    ui.open(f"/runs/{run_id}")
    ui.wait_for(sentence)
    shown = ui.page.get_by_text(sentence).first.inner_text()
    assert "Traceback" not in shown
    assert "Dagster" not in shown.partition(sentence)[0], shown


def test_changes_and_mistakes(changed: Changed) -> None:
    """One test, so that one process starts Dagster and waits for its daemon."""
    _edited_settings_are_shown_within_a_minute_and_made_again(changed)
    _a_mistake_in_the_table_is_the_first_thing_that_the_page_of_the_run_says(changed)
    _a_missing_key_is_the_first_thing_that_the_page_of_a_run_of_one_item_says(changed)
