"""One hostile text in every place that a stranger can fill: no surface hands it to a terminal as it is."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from llmbatch_assets_tests.chat_server import ChatServer, says, status
from llmbatch_assets_tests.project import GENERATION, SCHEMA, Project

MakeProject = Callable[..., Project]

# A title and a bell, the screen cleared in both forms, text that is read backwards, and an end of a line.
HOSTILE = "\x1b]0;title\x07\x1b[2J\x9b2J\u202egnp\u2066\u2069"
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
COLUMNS = ("id", f"team{HOSTILE}", f"question{HOSTILE}")


@pytest.fixture
def hostile(project_with: MakeProject, server: ChatServer) -> Project:
    """A project with the text in cells, column names, a prompt's name and text, file names, answers and errors."""
    prompt = f"prompts/generation{HOSTILE[:9]}.yaml"
    project = project_with(
        llm={"max_workers": 1, "max_retries": 1},
        prompts={"generation": {"path": prompt}},
        outputs={
            "formats": ["csv", "psv", "tsv", "jsonl"],
            "csv_path": f"artifacts/outputs/output{HOSTILE[:9]}.csv",
        },
        work_items={"label_column": COLUMNS[2]},
        report={"count_by": [COLUMNS[1], "answer"]},
        run={"log_file": "run.log"},
    )
    rows = [(f"q{number}", f"red{HOSTILE}", f"question {number}{HOSTILE}") for number in range(6)]
    project.table(rows, COLUMNS)
    project.prompt(f"generation{HOSTILE[:9]}", GENERATION | {"name": HOSTILE, "user": "{context}" + HOSTILE})
    server.script(lambda call: "question 1" in call.text, status(400, {"error": {"message": f"wrong {HOSTILE}"}}))
    server.script(lambda call: "question 2" in call.text, says(f"No JSON {HOSTILE}"))
    server.script(lambda call: "question 3" in call.text, says({"answer": "x", "certain": True, f"k{HOSTILE}": 1}))
    server.script(lambda call: True, says({"answer": f"yes{HOSTILE}", "certain": True}), repeat_last=True)
    return project


def test_no_command_and_no_file_hands_a_hostile_text_to_a_terminal(
    hostile: Project, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        assert hostile.llmbatch_here("run").returncode == 3
    # The answer of row 0 is there, exactly.
    [exported] = [json.loads(line) for line in hostile.path("artifacts/outputs/output.jsonl").read_text().splitlines()][
        :1
    ]
    assert exported["parsed"]["answer"] == f"yes{HOSTILE}"
    before = dict(text_files(hostile))
    assert {path.suffix for path in before} == {".csv", ".psv", ".tsv", ".jsonl", ".md", ".html", ".log"}
    assert {
        str(path): found for path, text in before.items() if (found := OBEYED.findall(text.replace("\r\n", "\n")))
    } == {}

    hostile.write("schema/llm_schema.py", SCHEMA.replace("max_length=80", "max_length=90"))
    for command in (
        ["check"],
        ["run", "--limit", "3"],
        ["plan"],
        ["plan", "--json"],
        ["status"],
        ["status", "--json"],
        *(["show", row, *form] for row in ("0", "1", "2", "3") for form in ([], ["--json"])),
        ["diff"],
        ["diff", "--json"],
        ["diff", "--list"],
        ["diff", "--list", "--json"],
        ["diff", "--html", "diff.html"],
        ["show", f"nothing {HOSTILE}"],
        ["run", "--select", "export,report"],
        ["prune"],
    ):
        ended = hostile.llmbatch_here(*command)
        assert OBEYED.findall(ended.stdout + ended.stderr) == [], command
        assert "Traceback" not in ended.stderr, command
        if "--json" in command:
            json.loads(ended.stdout)
    assert OBEYED.findall(hostile.path("diff.html").read_text()) == []
    assert OBEYED.findall(hostile.path("artifacts/logs/run.log").read_text()) == []


def text_files(project: Project) -> list[tuple[Path, str]]:
    """What people look at in a terminal."""
    folders = ("artifacts/outputs", "artifacts/reports")
    paths = [path for folder in folders for path in sorted(project.path(folder).iterdir())]
    return [(path, path.read_bytes().decode()) for path in [*paths, project.path("artifacts/logs/run.log")]]


def test_mistakes_are_reported_without_the_hostile_text_in_them(hostile: Project) -> None:
    hostile.table([("q", "red", "x")], ("id", f"other{HOSTILE}", "x"))
    for command in (["check"], ["plan"], ["run"]):
        ended = hostile.llmbatch_here(*command)
        assert ended.returncode == 2
        assert r"\x1b" in ended.stdout + ended.stderr
        assert OBEYED.findall(ended.stdout + ended.stderr) == []


def test_dagster_gets_no_control_characters(hostile: Project) -> None:
    assert hostile.llmbatch_here("run").returncode == 3
    with pytest.MonkeyPatch.context() as patch:
        home = str(hostile.path("dagster_home"))
        patch.setenv("DAGSTER_HOME", home)
        with dg.DagsterInstance.from_config(home) as instance:
            entries = [entry for run in instance.get_runs() for entry in instance.all_logs(run.run_id)]
    assert len(entries) > 20
    told = [text for entry in entries for text in texts_of(entry)]
    assert any("gnp" in text for text in told)
    assert [text for text in told if OBEYED.search(text)] == []


def texts_of(entry: dg.EventLogEntry) -> list[str]:
    """The messages and metadata of an event."""
    event = entry.dagster_event
    data = event.event_specific_data if event else None
    made = getattr(data, "materialization", None) or getattr(data, "asset_observation", None)
    metadata = made.metadata.items() if made else ()
    texts = [entry.user_message, entry.message, *(str(value.value) for _, value in metadata)]
    return [*texts, *(name for name, _ in metadata)]
