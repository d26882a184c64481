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


@pytest.mark.parametrize("name", ["q3", "Q3", "q3-"])
def test_an_item_is_found_by_its_label_as_the_table_or_the_partition_has_it(planned: Project, name: str) -> None:
    assert shown(planned, name)["row_index"] == 2


def test_a_label_that_several_items_begin_with_lists_them(planned: Project) -> None:
    ended = planned.llmbatch_here("show", "q")
    assert ended.returncode == 2
    assert "'q' matches 5 items" in ended.stderr
