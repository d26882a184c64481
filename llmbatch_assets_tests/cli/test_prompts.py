"""Prompts through the command line: columns by their names, and no lookalike placeholder is sent silently."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from llmbatch_assets_tests.chat_server import ChatServer
from llmbatch_assets_tests.project import GENERATION, JUDGE, Project

COLUMNS = ("id", "team", "question", "Customer name", "reference")
ROWS = [
    ["q1", "red", "How tall is the tower?", "Ada", "300 m"],
    ["q2", "red", "Who built {the} {{bridge}}?", "Bo {team}", "A guild"],
    ["q3", "blue", "When was the harbour dug?", "Cy", "1848"],
]
# The generator never sees the reference unless its prompt names it.
CONTEXT = {"context": {"columns": {"mode": "include", "include": ["question"]}}}
GROUPED = {"grouping": {"enabled": True, "column": "team", "mode": "group_output"}}


def user_messages(server: ChatServer) -> list[str]:
    return sorted(call.messages[-1]["content"] for call in server.calls)


def project_of(project_with: Callable[..., Project], user: str, **blocks: Any) -> Project:
    project = project_with(**blocks)
    project.table(ROWS, COLUMNS)
    project.prompt("generation", {**GENERATION, "user": user})
    return project


def told_by_all(project: Project, caplog: pytest.LogCaptureFixture) -> set[str]:
    """The warnings of check, plan and run, which are the same."""
    told = {}
    for command in ("check", "plan", "run"):
        caplog.clear()
        ended = project.llmbatch_here(command)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        printed = [line.partition("warning: ")[2] for line in ended.stdout.splitlines()]
        told[command] = {line for line in printed if line} | {
            record.getMessage()
            for record in caplog.records
            if record.name == "llmbatch_assets.stages.checking.preflight"
        }
    assert told["check"] == told["plan"] == told["run"]
    return told["check"]


def refused_by_all(project: Project, server: ChatServer) -> str:
    """The mistake that check, plan and run report in the same words, before any call."""
    found = project.llmbatch_here("check")
    (mistake,) = [line.removeprefix("mistake: ") for line in found.stdout.splitlines() if line.startswith("mistake: ")]
    for command in ("plan", "run"):
        ended = project.llmbatch_here(command)
        assert ended.returncode == 2
        assert mistake in ended.stderr
    assert found.returncode == 2
    assert server.calls == []
    return mistake


def test_columns_are_inserted_by_their_names(project_with: Callable[..., Project], server: ChatServer) -> None:
    user = 'About {id}, {"Customer name"} ({Customer_name}): {question} As {{"a": {id}}}. {"id"}'
    project = project_of(project_with, user)
    ended = project.llmbatch_here("run")
    assert ended.returncode == 0, ended.stderr
    assert "WARNING" not in ended.stderr
    assert user_messages(server) == [
        'About q1, Ada (Ada): How tall is the tower? As {"a": q1}. q1',
        # Inserted text is never read as a placeholder.
        'About q2, Bo {team} (Bo {team}): Who built {the} {{bridge}}? As {"a": q2}. q2',
        'About q3, Cy (Cy): When was the harbour dug? As {"a": q3}. q3',
    ]


def test_a_value_that_only_a_placeholder_shows_is_part_of_its_item(
    project_with: Callable[..., Project], server: ChatServer
) -> None:
    project = project_of(project_with, "{context} It is {reference}.", **CONTEXT)
    assert project.llmbatch_here("run").returncode == 0
    assert len(server.calls) == 3
    assert project.llmbatch_here("run").returncode == 0
    assert len(server.calls) == 3
    project.table([ROWS[0], [*ROWS[1][:4], "Two guilds"], ROWS[2]], COLUMNS)
    plan = json.loads(project.llmbatch_here("plan", "--json").stdout)
    assert [(item["row_index"], item["reasons"]) for item in plan["items"]] == [(1, ["row_changed"])]
    assert project.llmbatch_here("run").returncode == 0
    (again,) = server.calls[3:]
    assert again.messages[-1]["content"] == "question: Who built {the} {{bridge}}? It is Two guilds."
    # Columns that neither the context nor the prompt shows change nothing.
    project.table([[*ROWS[0][:3], "Someone else", "300 m"], [*ROWS[1][:4], "Two guilds"], ROWS[2]], COLUMNS)
    assert project.llmbatch_here("run").returncode == 0
    assert len(server.calls) == 4


def test_naming_a_column_changes_the_prompt_and_not_the_rows(
    project_with: Callable[..., Project], server: ChatServer
) -> None:
    project = project_of(project_with, "{context}")
    assert project.llmbatch_here("run").returncode == 0
    before = project.partition_keys()
    project.prompt("generation", {**GENERATION, "user": "{context} For {question}"})
    reasons = [item["reasons"] for item in json.loads(project.llmbatch_here("plan", "--json").stdout)["items"]]
    assert reasons == [["prompt_changed"]] * 3
    # Only the work items know the values.
    stale = project.llmbatch_here("run", "--select", "llm_outputs")
    assert stale.returncode == 2
    assert "llmbatch run --select work_items" in stale.stderr
    assert project.llmbatch_here("show", "0").returncode == 0
    assert project.llmbatch_here("run", "--select", "work_items").returncode == 0
    assert project.llmbatch_here("run", "--select", "llm_outputs").returncode == 0
    assert project.partition_keys() == before
    assert [message.partition("For ")[2] for message in user_messages(server)[1::2]] == [row[2] for row in ROWS]


def test_naming_a_hidden_column_is_a_change_of_the_prompt(project_with: Callable[..., Project]) -> None:
    project = project_of(project_with, "{context}", **CONTEXT)
    assert project.llmbatch_here("run").returncode == 0
    project.prompt("generation", {**GENERATION, "user": "{context} It is {reference}."})
    reasons = [item["reasons"] for item in json.loads(project.llmbatch_here("plan", "--json").stdout)["items"]]
    assert reasons == [["prompt_changed"]] * 3


def test_an_item_whose_sibling_changed_is_recognised_by_its_columns_too(
    project_with: Callable[..., Project], server: ChatServer
) -> None:
    grouping = GROUPED["grouping"] | {"mode": "row_output_with_group_context"}
    project = project_of(project_with, "{group_context} {question} It is {reference}.", grouping=grouping, **CONTEXT)
    assert project.llmbatch_here("run").returncode == 0
    project.table([ROWS[0], [*ROWS[1][:2], "Who else?", *ROWS[1][3:]], ROWS[2]], COLUMNS)
    items = json.loads(project.llmbatch_here("plan", "--json").stdout)["items"]
    assert [(item["row_index"], item["reasons"]) for item in items] == [(0, ["sibling_changed"]), (1, ["row_changed"])]
    assert any(message.endswith("Who built {the} {{bridge}}? It is A guild.") for message in user_messages(server))


def test_a_judge_sees_the_columns_that_its_prompt_names(
    project_with: Callable[..., Project], server: ChatServer
) -> None:
    judged = {"prompts": {"judge": {"enabled": True}}}
    project = project_of(project_with, "{context}", **judged, **CONTEXT)
    project.prompt("judge", {**JUDGE, "user": "Expected: {reference}. Question: {question} Answer: {output_json}"})
    ended = project.llmbatch_here("run")
    assert ended.returncode == 0, ended.stderr
    messages = user_messages(server)
    assert sum(message.startswith("question: ") for message in messages) == 3
    shown = [
        message for message in messages if message.startswith("Expected: 1848. Question: When was the harbour dug?")
    ]
    # The row is not added to a prompt that names columns.
    assert len(shown) == 1
    assert "The input:" not in shown[0]


def test_the_group_key_is_the_only_column_of_a_group(project_with: Callable[..., Project], server: ChatServer) -> None:
    project = project_of(project_with, "Team {team}: {question}", **GROUPED)
    assert refused_by_all(project, server) == (
        "prompts/generation.yaml: {question} names a column, but grouping.mode is group_output: an item is a group of rows, "
        "each with its own value. Use {context} for the rows, or {team} for the group key"
    )
    project.prompt("generation", {**GENERATION, "user": "Team {team}:\n{context}"})
    assert project.llmbatch_here("run").returncode == 0
    assert [message.splitlines()[0] for message in user_messages(server)] == ["Team blue:", "Team red:"]


@pytest.mark.parametrize(
    ("user", "blocks", "mistake"),
    [
        (
            "{Question} {contxt}",
            {},
            (
                "prompts/generation.yaml: unknown placeholder {Question} (did you mean {question}?), {contxt} (did you mean "
                "{context} or {group_context}?). Known placeholders: {context}, {group_context}, {judge_schema}, {llm_schema}, {llm_schema_txt}, {row}; "
                'columns: {question}, {id}, {team}, {"Customer name"}, {reference}. Double the braces to write a word in braces: '
                "{{Question}}"
            ),
        ),
        (
            "{context} {reference}",
            {"context": {"columns": {"exclude": ["reference"]}}},
            (
                "prompts/generation.yaml: {reference} is excluded by context.columns.exclude, so the model must not see it; "
                "remove it from the prompt or from context.columns.exclude"
            ),
        ),
        (
            "About {group_context}",
            GROUPED,
            (
                "prompts/generation.yaml: {group_context} is always empty with grouping.mode group_output, and the prompt shows "
                "nothing else of the item, so every call would be the same; use {context}"
            ),
        ),
    ],
)
def test_a_prompt_that_cannot_be_meant_is_refused_before_any_call(
    project_with: Callable[..., Project], server: ChatServer, user: str, blocks: dict[str, Any], mistake: str
) -> None:
    assert refused_by_all(project_of(project_with, user, **blocks), server) == mistake


def test_text_that_is_sent_unchanged_is_reported_by_check_plan_and_run(
    project_with: Callable[..., Project], caplog: pytest.LogCaptureFixture
) -> None:
    project = project_of(
        project_with,
        "About {{ question }} and {row now. {context}",
        context={"max_context_chars": 80, "truncate_field_chars": 20},
    )
    rows = [*ROWS, ["q4", "blue", "x" * 30, "", "y"]]
    project.table(rows, COLUMNS)
    rest = "the model does not see the rest; raise it, or set 0 for no limit"
    rows_shown = "4 of 4 items (row 1, row 2, row 3, row 4)"
    assert told_by_all(project, caplog) == {
        "prompts/generation.yaml: `{{ question }}` is sent as `{ question }`; write {question} to insert the value",
        "prompts/generation.yaml: `{row` is sent unchanged; write {row} to insert the value",
        f"raw_data/input.csv: context.max_context_chars (80) cuts the text of {rows_shown}: {rest}",
        f"raw_data/input.csv: context.truncate_field_chars (20) cuts values of 'question' in {rows_shown}: {rest}",
    }


def test_rows_without_a_value_for_the_prompt_and_rows_beyond_the_cap_are_reported(
    project_with: Callable[..., Project], caplog: pytest.LogCaptureFixture
) -> None:
    project = project_of(project_with, 'Greet {"Customer name"}')
    project.table([*ROWS, ["q4", "blue", "why", "", ""]], COLUMNS)
    assert told_by_all(project, caplog) == {
        'raw_data/input.csv: no value for {"Customer name"} in 1 row (4): the model gets no input'
    }
    capped = GROUPED["grouping"] | {"max_rows_per_group": 1}
    project = project_of(project_with, "{context}", grouping=capped)
    left_out = "leaves 1 row out of 1 of 2 groups ('red'); raise it, or set 0 for no limit"
    assert told_by_all(project, caplog) == {f"raw_data/input.csv: grouping.max_rows_per_group (1) {left_out}"}
