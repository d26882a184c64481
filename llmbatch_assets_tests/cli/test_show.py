"""``llmbatch show``: one item in full, found by any of its names, and safe to look at."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from llmbatch_assets_tests.chat_server import ChatServer, says
from llmbatch_assets_tests.project import ROWS, Project

JUDGED = {"prompts": {"judge": {"enabled": True}}}
BY_TEAM = {"grouping": {"enabled": True, "column": "team"}}
COLOURED = '\x1b[31mThe "answer"\x07\u202e is\x9b31m: no\r'


def shown(project: Project, name: str) -> Any:
    ended = project.llmbatch_here("show", name, "--json")
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def test_an_item_is_shown_with_what_was_asked_each_attempt_and_what_it_cost(
    project_with: Callable[..., Project], server: ChatServer
) -> None:
    project = project_with(**JUDGED, **BY_TEAM)
    server.script("harbour dug?\n", says(COLOURED), purpose="generate")
    assert project.llmbatch_here("run", "--select", "input_snapshot,work_items,llm_outputs").returncode == 0
    asked = [call for call in server.calls if call.purpose == "generate"]

    views = [shown(project, str(row)) for row in range(len(ROWS))]
    (again,) = [view for view in views if len(view["attempts"]) > 1]
    failed, accepted = again["attempts"]
    assert (failed["result"], failed["cause"], failed["raw_text"]) == ("failed", "not_json", COLOURED)
    assert (accepted["result"], accepted["attempt"]) == ("accepted", 2)
    assert all(project.path(attempt["file"]).is_file() for attempt in again["attempts"])
    for view in views:
        assert view["state"] == "accepted"
        assert view["messages"] in [call.messages for call in asked]
        assert view["judge_messages"] in [call.messages for call in server.calls if call.purpose == "judge"]
        assert view["output"] == json.loads(project.output_of(view["row_index"]).read_bytes())["parsed"]
        assert sum(call["purpose"] == "generate" for call in view["calls"]) == len(view["attempts"])

    text = project.llmbatch_here("show", str(again["row_index"])).stdout
    assert not set(text) & {"\x1b", "\x07", "\x9b", "\u202e", "\r"}
    assert r"\x1b[31mThe" in text
    raw = project.llmbatch_here("show", str(again["row_index"]), "--json").stdout
    assert not set(raw) & {"\x1b", "\x07", "\x9b", "\u202e", "\r"}


@pytest.fixture
def planned(project_with: Callable[..., Project]) -> Project:
    """A project in which nothing was asked yet."""
    return project_with(work_items={"label_column": "id"})


@pytest.mark.parametrize("name", ["partition_key", "work_id", "cache_id"])
def test_an_item_is_found_by_its_names_before_any_run(planned: Project, name: str) -> None:
    view = shown(planned, "2")
    assert (view["row_index"], view["state"], view["attempts"], view["output"]) == (2, "missing", [], None)
    assert "When was the harbour dug?" in view["messages"][-1]["content"]
    assert shown(planned, view[name]) == view
    if name != "partition_key":
        assert shown(planned, view[name][:8].upper()) == view


def test_a_group_is_found_by_its_key_and_by_any_of_its_rows(project_with: Callable[..., Project]) -> None:
    project = project_with(grouping={"enabled": True, "column": "team", "mode": "group_output"})
    blue = shown(project, "blue")
    assert blue["rows"] == [2, 3, 4]
    assert shown(project, "3") == blue


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("5", "No item matches"),
        ("nobody", "(0 to 4; 0 is the first row below the header)"),
        ("blue", "matches 3 items"),
    ],
)
def test_a_name_that_means_no_item_or_several_is_told(
    project_with: Callable[..., Project], name: str, told: str
) -> None:
    ended = project_with(**BY_TEAM).llmbatch_here("show", name)
    assert ended.returncode == 2
    assert told in ended.stderr


def test_a_schema_that_is_put_into_the_prompt_is_shown_in_it(
    project_with: Callable[..., Project], server: ChatServer
) -> None:
    project = project_with(llm={"structured_output": "prompt"})
    project.prompt("generation", {"user": "{context}"})
    server.fallback_answer = {"answer": "High.", "certain": True}
    assert project.llmbatch_here("run", "--select", "input_snapshot,work_items,llm_outputs").returncode == 0
    assert shown(project, "0")["messages"] in [call.messages for call in server.calls]


def numbered(project: Project) -> None:
    """Rows whose labels are numbers in another order than the rows, or begin with each other."""
    project.table([(label, "1", f"Question {label}?") for label in ("2", "3", "B-10", "B-1", "b 100", "7", "7")])


def test_a_label_comes_before_a_row_index_and_both_are_named(planned: Project) -> None:
    numbered(planned)
    other = shown(planned, "2")
    assert other["row_index"] == 0
    ended = planned.llmbatch_here("show", "2")
    assert "row 1 of input.csv (index 0)" in ended.stdout
    key = next(
        line.split()[-1] for line in ended.stderr.splitlines() if line.startswith("note: 2 is the label of this item")
    )
    assert key.startswith("b-10-")
    assert shown(planned, key)["row_index"] == 2
    # No label and no other item: nothing to say.
    ended = planned.llmbatch_here("show", "4")
    assert "row 5 of input.csv" in ended.stdout
    assert ended.stderr == ""


@pytest.mark.parametrize(("name", "row"), [("B-1", 3), ("b-1", 3), ("B-10", 2), ("b 100", 4), ("B-100", 4)])
def test_an_exact_label_comes_before_longer_ones(planned: Project, name: str, row: int) -> None:
    numbered(planned)
    assert shown(planned, name)["row_index"] == row


def test_a_name_of_several_items_lists_how_to_name_each(planned: Project) -> None:
    numbered(planned)
    ended = planned.llmbatch_here("show", "7")
    assert ended.returncode == 2
    first, *listed = ended.stderr.splitlines()
    assert first == "llmbatch: '7' matches 2 items; name one by its partition key:"
    assert [line.split(maxsplit=1)[1] for line in listed] == ["(index 5, row 6)", "(index 6, row 7)"]
    assert [shown(planned, line.split()[0])["row_index"] for line in listed] == [5, 6]


def test_a_group_of_rows_does_not_hide_the_row_of_that_index(project_with: Callable[..., Project]) -> None:
    project = project_with(**BY_TEAM)
    project.table([("a", "1", "One?"), ("b", "0", "Nought?"), ("c", "1", "One more?")])
    ended = project.llmbatch_here("show", "1")
    assert "row 2 of input.csv (index 1)" in ended.stdout
    assert ended.stderr == "note: 1 is the row index of this item, and also the key of a group of 2 items\n"


def test_a_group_that_is_one_item_comes_before_a_row_index(project_with: Callable[..., Project]) -> None:
    project = project_with(grouping={"enabled": True, "column": "team", "mode": "group_output"})
    project.table([("a", "1", "One?"), ("b", "0", "Nought?"), ("c", "1", "One more?")])
    assert shown(project, "0")["group_key"] == "0"
    assert shown(project, "1")["group_key"] == "1"
    assert shown(project, "2")["group_key"] == "1"


@pytest.mark.parametrize("name", ["q3", "Q3", "q3-"])
def test_an_item_is_found_by_its_label_as_the_table_or_the_partition_has_it(planned: Project, name: str) -> None:
    assert shown(planned, name)["row_index"] == 2


def test_a_label_that_several_items_begin_with_lists_them(planned: Project) -> None:
    ended = planned.llmbatch_here("show", "q")
    assert ended.returncode == 2
    assert "'q' matches 5 items" in ended.stderr
