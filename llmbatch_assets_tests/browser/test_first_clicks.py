"""Materialize all, the first click of many users: in a new project, around changes of the table, and with failures.

Each batch of the project is a story of its own. They run at the same time, since a backfill takes a turn of Dagster's
daemon, 30 seconds, for each stage.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import pytest

from llmbatch_assets_tests.browser.batches import SmallBatch, add_batch
from llmbatch_assets_tests.browser.conftest import window
from llmbatch_assets_tests.browser.dagster_ui import DagsterUi
from llmbatch_assets_tests.chat_server import Answer, ChatServer, says
from llmbatch_assets_tests.project import Project, make_project

if TYPE_CHECKING:
    from playwright.sync_api import Browser

N_ROWS = 6
# Twice what it should take, since other tests run beside this one.
MINUTE = 120
# Longer than a backfill of three stages should take, on a slow machine.
BACKFILL_SEC = 360
STORIES = ("by_hand", "before", "during", "failing")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(800),
    # Playwright's loop and pipes are closed by the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


class Stories(NamedTuple):
    """The project's batches and the backfills that were launched by a click on their lineage."""

    ui: DagsterUi
    model: ChatServer
    batches: dict[str, SmallBatch]
    backfills: dict[str, str]

    def n_calls(self, name: str) -> int:
        """How often the model was asked for an answer of a batch."""
        return sum(call.purpose == "generate" and f"of {name}" in call.text for call in self.model.calls)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, model: ChatServer) -> Project:
    made = make_project(tmp_path_factory.mktemp("clicks") / "project", model.base_url)
    # The default batch needs a configuration, and no part in this.
    made.table([("q1", "red", "The only question?")])
    return made


@pytest.fixture(scope="module")
def batches(project: Project, model: ChatServer) -> dict[str, SmallBatch]:
    slow = {"llm": {"max_workers": 1}}
    made = {
        name: add_batch(project, name, model.base_url, N_ROWS, **(slow if name == "during" else {})) for name in STORIES
    }
    model.script("of during", Answer("says", wait=2), purpose="generate", repeat_last=True)
    model.script("Question 3 of failing?", says("no JSON"), purpose="generate", repeat_last=True)
    return made


@pytest.fixture(scope="module")
def stories(browser: Browser, project: Project, batches: dict[str, SmallBatch], model: ChatServer) -> Iterator[Stories]:
    """The clicks, on a new project. Nothing has been prepared by a command."""
    with window(browser, project) as ui:
        told = Stories(ui, model, batches, {})
        began = time.monotonic()
        for batch in batches.values():
            ui.wait_until(partial(_is_registered, ui, batch), MINUTE, "no items registered")
        assert time.monotonic() - began < MINUTE
        assert model.count() == 0
        for name in STORIES:
            _launch(told, name)
        yield told


def _is_registered(ui: DagsterUi, batch: SmallBatch) -> bool:
    return len(ui.partitions(batch.name)) == N_ROWS


def _launch(told: Stories, name: str) -> None:
    ui, batch = told.ui, told.batches[name]
    ui.open_materialize_all(name)
    if name == "by_hand":
        ui.add_partition("HAND-1")
        ui.click_exact("Launch 1 run")
        ui.wait_until(lambda: bool(ui.runs_of_partition("HAND-1")), 20, "no run was launched")
        return
    ui.click_exact("All")
    ui.wait_for(f"{N_ROWS} partitions")
    if name == "before":
        # The dialog keeps the old items; the sensor may or may not have registered the new ones by the first tick.
        batch.write_rows(_changed(batch))
    told.backfills[name] = ui.launched_backfill()


def _changed(batch: SmallBatch) -> list[tuple[str, str, str]]:
    """The table with an edited, a removed and a new row, in another order."""
    first, _, *others = batch.rows(N_ROWS)
    edited = (first[0], first[1], f"Question 1 of {batch.name}, edited?")
    return [*reversed(others), edited, ("r9", "blue", f"Question 9 of {batch.name}, new?")]


def _a_table_changed_during_the_backfill_loses_nothing(stories: Stories) -> None:
    ui, batch, name = stories.ui, stories.batches["during"], "during"
    ui.wait_until(lambda: stories.n_calls(name) > 1, BACKFILL_SEC, "the calls have not begun")
    batch.write_rows(_changed(batch))
    assert ui.backfill_ended(stories.backfills[name], BACKFILL_SEC) == "COMPLETED_SUCCESS"
    # What is not made yet is missing in Dagster and in the export, and one click makes it.
    ui.wait_until(lambda: len(ui.partitions(name)) == N_ROWS, MINUTE, "retired keys are still there")
    assert ui.partition_counts(name) == {"numMaterialized": N_ROWS - 2, "numFailed": 0, "numPartitions": N_ROWS}
    before = stories.n_calls(name)
    ui.launch_pending(f"{name}__")
    wanted = [question for *_, question in _changed(batch)]
    ui.wait_until(lambda: batch.questions_exported() == wanted, 2 * MINUTE, "the new items are not exported")
    assert stories.n_calls(name) == before + 2


def _a_key_that_is_no_item_is_skipped_in_a_sentence_and_removed(stories: Stories) -> None:
    ui, model = stories.ui, stories.model
    (run,) = ui.runs_of_partition("HAND-1")
    ui.wait_until(lambda: ui.runs_of_partition("HAND-1")[0]["status"] == "SUCCESS", MINUTE, "the run has not succeeded")
    assert not [call for call in model.calls if "of by_hand?" in call.text]
    said = "1 partition without an item in the table, nothing to generate: HAND-1"
    assert [message for message in ui.messages(run["runId"]) if "HAND-1" in message and said in message]
    ui.wait_until(lambda: "HAND-1" not in ui.partitions("by_hand"), MINUTE, "HAND-1 is still there")


def _a_table_changed_before_the_launch_is_made_as_it_is_now(stories: Stories) -> None:
    ui, batch = stories.ui, stories.batches["before"]
    assert ui.backfill_ended(stories.backfills["before"], BACKFILL_SEC) == "COMPLETED_SUCCESS"
    # The project is new: all of it has been made, and as the table is now.
    assert ui.made_assets("before") >= {"work_items", "llm_outputs", "export", "report"}
    assert batch.questions_exported() == [question for *_, question in _changed(batch)]
    # Two items are gone, and cost nothing.
    assert not [call for call in stories.model.calls if "Question 2 of before?" in call.text]
    ui.wait_until(lambda: len(ui.partitions("before")) == N_ROWS, MINUTE, "retired keys are still there")
    assert ui.partition_counts("before") == {"numMaterialized": N_ROWS, "numFailed": 0, "numPartitions": N_ROWS}


def _a_failed_backfill_is_exported_and_reported_all_the_same(stories: Stories) -> None:
    ui, batch = stories.ui, stories.batches["failing"]
    assert ui.backfill_ended(stories.backfills["failing"], BACKFILL_SEC) == "COMPLETED_FAILED"
    ui.wait_until(lambda: "report" in ui.made_assets("failing"), 2 * MINUTE, "no report followed")
    assert len(batch.questions_exported()) == N_ROWS - 1
    assert ui.partition_counts("failing") == {"numMaterialized": N_ROWS - 1, "numFailed": 1, "numPartitions": N_ROWS}


def test_first_clicks(stories: Stories) -> None:
    """One test, so that one process starts Dagster and waits for its daemon."""
    _a_table_changed_during_the_backfill_loses_nothing(stories)
    _a_key_that_is_no_item_is_skipped_in_a_sentence_and_removed(stories)
    _a_table_changed_before_the_launch_is_made_as_it_is_now(stories)
    _a_failed_backfill_is_exported_and_reported_all_the_same(stories)
