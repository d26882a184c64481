"""``llmbatch run`` where the model writes the schema: a real server answers well, badly, with malice, late or never."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from llmbatch_assets.domain.schema.grammar import parse_schema
from llmbatch_assets.domain.schema.spec import render_schema
from llmbatch_assets_tests.chat_server import Answer, ChatCall, ChatServer, cut_off, hangs, says, status
from llmbatch_assets_tests.project import ROWS, SCHEMA, Project, make_project, settings
from llmbatch_assets_tests.schema_answers import (
    BROKEN,
    HOSTILE,
    LOOSE,
    NEW,
    SCHEMA_PY,
    archived,
    asks_for_a_schema,
    fenced,
    schema_failures,
    with_schema_prompt,
)

FORCE = ("run", "--select", "llm_schema_py", "--force")
WRITTEN = render_schema(parse_schema(NEW, "s.py"))

GOOD_ANSWERS = {
    "plain": NEW,
    "fenced": fenced(NEW),
    "fenced without a language": f"```\n{NEW}```",
    "in prose": f"Sure! Here is the module:\n\n{fenced(NEW)}\nIt has two classes.",
    "in prose without fences": f"Sure! Here is the module:\n\n{NEW}\nIt has two classes.\n",
    "fenced in a line": f"The module: ```python\n{NEW.rstrip()}``` as you asked.",
    "fence not closed": f"```python\n{NEW}",
    "after thoughts": f"<think>Maybe\n{fenced(BROKEN)}</think>\n{fenced(NEW)}",
    "with Windows line ends": fenced(NEW).replace("\n", "\r\n"),
    "without the word on other fields": fenced(LOOSE),
}


@pytest.fixture
def home(project_with: Callable[..., Project]) -> Callable[..., Project]:
    """Makes a project with the shipped schema prompt."""
    return lambda **blocks: with_schema_prompt(project_with, **blocks)


@pytest.mark.parametrize("name", GOOD_ANSWERS)
def test_a_schema_is_written_from_an_answer_of_any_form(
    home: Callable[..., Project], server: ChatServer, name: str
) -> None:
    project = home()
    server.script(asks_for_a_schema, says(GOOD_ANSWERS[name]))

    ended = project.llmbatch_here(*FORCE)

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert server.count() == 1
    assert project.path(SCHEMA_PY).read_text() == WRITTEN
    [(kept, text)] = archived(project).items()
    assert re.fullmatch(r"llm_schema_\d{8}_\d{6}\.py", kept)
    assert text == SCHEMA
    assert "The model will write schema/llm_schema.py: forced" in ended.stdout
    assert not project.path("artifacts/cache/llm_outputs").exists()


def test_the_command_itself_has_a_schema_written_and_another_one_the_next_time(
    tmp_path: Path, server: ChatServer
) -> None:
    project = with_schema_prompt(lambda: make_project(tmp_path / "project", server.base_url))
    server.script(asks_for_a_schema, says(fenced(HOSTILE)), says(fenced(NEW)))

    ended = project.llmbatch(*FORCE)

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "Schema answer 1 of 3 rejected" in ended.stdout
    assert "The model wrote schema/llm_schema.py in 2 attempts" in ended.stdout
    assert "Traceback" not in ended.stdout + ended.stderr
    assert project.path(SCHEMA_PY).read_text() == WRITTEN
    assert list(archived(project).values()) == [SCHEMA]
    assert not list(tmp_path.rglob("marker"))


@pytest.mark.parametrize(
    ("first", "problem"),
    [
        # Broken in one way or another; the second answer is good.
        (says(fenced(BROKEN)), "the type bytes"),
        (says(fenced(NEW.replace("class LLMOutput(BaseModel):", "class LLMOutput(BaseModel)"))), "not Python"),
        (says("I would rather not."), "no Python module"),
        (cut_off(fenced(NEW)), "cut off"),
        # Hostile.
        (says(fenced(HOSTILE)), "a bare expression or call"),
        (says(fenced(f"import os\n{NEW}")), "`import os`"),
        (says(fenced(NEW.replace("max_length=90", "max_length=len(open('marker', 'w').name)"))), "a call"),
    ],
)
def test_an_answer_that_does_not_pass_is_put_right_and_nothing_of_it_is_run(
    home: Callable[..., Project], server: ChatServer, first: Answer, problem: str
) -> None:
    project = home()
    server.script(asks_for_a_schema, first, says(fenced(NEW)))

    ended = project.llmbatch_here(*FORCE)

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert server.count() == 2
    assert project.path(SCHEMA_PY).read_text() == WRITTEN
    [told] = schema_failures(project)
    assert problem in told
    assert problem in server.calls[1].messages[-1]["content"]
    assert not project.path("marker").exists()


def test_a_server_that_is_busy_is_asked_again(home: Callable[..., Project], server: ChatServer) -> None:
    project = home()
    server.script(asks_for_a_schema, status(503, headers={"Retry-After": "0"}), says(fenced(NEW)))
    assert project.llmbatch_here(*FORCE).returncode == 0
    assert server.count() == 2
    assert schema_failures(project) == []


@pytest.mark.parametrize(
    ("answer", "told", "calls"),
    [
        (status(401), "refused the key", 1),
        (says(fenced(BROKEN)), "none of 3 answers is a valid schema module", 3),
        (cut_off(fenced(NEW)), "cut off", 3),
    ],
)
def test_without_a_schema_that_passes_the_old_one_stays_and_the_run_is_stopped(
    home: Callable[..., Project], server: ChatServer, answer: Answer, told: str, calls: int
) -> None:
    project = home()
    server.script(asks_for_a_schema, answer, repeat_last=True)

    ended = project.llmbatch_here(*FORCE)

    assert ended.returncode == 1
    assert told in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr
    assert server.count() == calls
    assert project.path(SCHEMA_PY).read_text() == SCHEMA
    assert archived(project) == {}


def test_an_interruption_while_waiting_leaves_the_old_schema_in_place(tmp_path: Path, server: ChatServer) -> None:
    project = with_schema_prompt(lambda: make_project(tmp_path / "project", server.base_url))
    server.script(asks_for_a_schema, hangs(60))
    with subprocess.Popen(
        [sys.executable, "-m", "llmbatch_assets.cli", *FORCE],
        cwd=project.root,
        env=project.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as running:
        while not server.count():
            assert running.poll() is None
            time.sleep(0.05)
        began = time.monotonic()
        running.send_signal(signal.SIGINT)
        told = running.communicate(timeout=60)[0]

    assert running.returncode == 128 + signal.SIGINT, told
    assert time.monotonic() - began < 30
    assert "interrupted" in told
    assert "Traceback" not in told
    assert project.path(SCHEMA_PY).read_text() == SCHEMA
    assert archived(project) == {}


# In a whole run.


def answers_with(schema: str, server: ChatServer) -> None:
    """Let the server answer each request for a schema with this one."""
    server.script(asks_for_a_schema, says(fenced(schema)), repeat_last=True)


def test_a_project_without_a_schema_gets_one_and_its_outputs_in_one_run(
    home: Callable[..., Project], server: ChatServer
) -> None:
    project = home(schema=False)
    answers_with(NEW, server)

    ended = project.llmbatch_here("run")

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert server.count() == 1 + len(ROWS)
    assert project.path(SCHEMA_PY).read_text() == WRITTEN
    assert project.json("schema/llm_schema.txt")["models"]["LLMOutput"]["properties"]["answer"]["maxLength"] == 90
    assert archived(project) == {}
    # And never again.
    assert project.llmbatch_here("run").returncode == 0
    assert server.count() == 1 + len(ROWS)


def test_a_changed_schema_makes_the_items_pending_says_so_and_loses_nothing(
    home: Callable[..., Project], server: ChatServer
) -> None:
    project = home()
    assert project.llmbatch_here("run").returncode == 0
    before = project.outputs()
    answers_with(NEW, server)
    assert project.llmbatch_here(*FORCE).returncode == 0
    calls = server.count()

    # Told before the first call.
    ended = project.llmbatch_here("run", "--limit", "1")

    assert ended.returncode == 0, ended.stderr
    assert " changed since the last run: " in ended.stdout
    assert "schema" in ended.stdout.split(" changed since the last run: ")[0].splitlines()[-1]
    assert server.count() == calls + 1
    assert project.llmbatch_here("run").returncode == 0
    assert server.count() == calls + len(ROWS)
    assert before.items() <= project.outputs().items()
    assert len(project.outputs()) == 2 * len(ROWS)
    shas = {output["meta"]["identity"]["schema_sha"] for output in project.outputs().values()}
    assert len(shas) == 2
    # The old schema finds its outputs again.
    project.write(SCHEMA_PY, SCHEMA)
    assert project.llmbatch_here("run").returncode == 0
    assert server.count() == calls + len(ROWS)


def test_force_regenerate_pays_once_and_not_with_every_run(home: Callable[..., Project], server: ChatServer) -> None:
    project = home(llm_schema={"force_regenerate": True})
    answers_with(NEW, server)
    for _ in range(3):
        assert project.llmbatch_here("run").returncode == 0
    assert server.count() == 1 + len(ROWS)
    assert list(archived(project).values()) == [SCHEMA]


def test_a_schema_that_is_edited_during_a_run_is_that_of_the_next_one(
    home: Callable[..., Project], server: ChatServer
) -> None:
    project = home(llm={"max_workers": 1})

    def edit(_: object) -> Answer:
        project.write(SCHEMA_PY, NEW)
        return says({"answer": "yes", "certain": True})

    server.script(ROWS[1][2], edit)

    ended = project.llmbatch_here("run", "--select", "llm_schema_txt,input_snapshot,work_items,llm_outputs")

    assert ended.returncode == 0, ended.stderr
    assert len({output["meta"]["identity"]["schema_sha"] for output in project.outputs().values()}) == 1
    handed = {
        call.body["response_format"]["json_schema"]["schema"]["properties"]["answer"]["maxLength"]
        for call in server.calls
    }
    assert handed == {80}
    assert project.llmbatch_here("run").returncode == 0
    assert len(project.outputs()) == 2 * len(ROWS)


# What is refused before anything is asked.


@pytest.mark.parametrize(
    ("blocks", "arguments", "told"),
    [
        ({}, ("run", "--offline"), "must be written by a model"),
        ({"llm_schema": {"auto_generate": False}}, ("run",), "llm_schema.auto_generate: true"),
        ({}, ("run", "--select", "llm_schema_txt"), "llmbatch run --select llm_schema_py"),
        (
            {"llm_schema": {"auto_generate": False}},
            ("run", "--select", "llm_schema_txt"),
            "llmbatch run --select llm_schema_py --force",
        ),
        ({"prompts": {"schema_auto_py_generation": {"path": "prompts/none.yaml"}}}, ("run",), "prompts/none.yaml"),
        ({"input": {"path": "raw_data/none.csv"}}, ("run",), "raw_data/none.csv"),
    ],
)
def test_a_run_that_cannot_have_its_schema_ends_before_the_first_call(
    home: Callable[..., Project],
    server: ChatServer,
    blocks: dict[str, dict[str, object]],
    arguments: tuple[str, ...],
    told: str,
) -> None:
    project = home(schema=False, **blocks)
    before = project.tree()

    ended = project.llmbatch_here(*arguments)

    assert ended.returncode == 2
    assert re.search(told, ended.stderr), ended.stderr
    assert ended.stderr.count("llmbatch: ") == 1
    assert server.count() == 0
    assert project.tree() == before


def test_a_missing_schema_can_be_asked_for_even_where_nobody_asks_by_itself(
    home: Callable[..., Project], server: ChatServer
) -> None:
    project = home(schema=False, llm_schema={"auto_generate": False})
    answers_with(NEW, server)
    assert project.llmbatch_here(*FORCE).returncode == 0
    assert project.path(SCHEMA_PY).read_text() == WRITTEN


def test_a_schema_that_does_not_pass_can_be_replaced(home: Callable[..., Project], server: ChatServer) -> None:
    project = home()
    project.write(SCHEMA_PY, "class LLMOutput(\n")
    answers_with(NEW, server)
    assert project.llmbatch_here("run", "--select", "llm_schema_py").returncode == 2
    assert project.llmbatch_here(*FORCE).returncode == 0
    assert list(archived(project).values()) == ["class LLMOutput(\n"]


def test_a_text_that_does_not_match_is_never_used_silently(home: Callable[..., Project], server: ChatServer) -> None:
    project = home(llm_schema={"on_mismatch": "error"})
    assert project.llmbatch_here("run").returncode == 0
    project.write(SCHEMA_PY, NEW)
    calls = server.count()

    ended = project.llmbatch_here("run")

    assert ended.returncode == 2
    assert "schema/llm_schema.txt does not match schema/llm_schema.py" in ended.stderr
    assert server.count() == calls
    assert project.llmbatch_here("run", "--select", "llm_schema_txt", "--force").returncode == 0
    assert project.llmbatch_here("run").returncode == 0


def test_a_schema_that_is_written_anew_brings_its_text_along(home: Callable[..., Project], server: ChatServer) -> None:
    project = home(llm_schema={"on_mismatch": "error"})
    project.llmbatch_here("run", "--select", "llm_schema_txt")
    answers_with(NEW, server)
    assert project.llmbatch_here(*FORCE).returncode == 0
    assert project.llmbatch_here("run", "--select", "llm_schema_txt").returncode == 0
    assert {Path(name).suffix for name in archived(project)} == {".py", ".txt"}


def test_a_text_that_lies_is_told_where_only_outputs_are_made(
    home: Callable[..., Project], server: ChatServer, caplog: pytest.LogCaptureFixture
) -> None:
    project = home()
    project.llmbatch_here("run")
    project.write("schema/llm_schema.txt", '{"stale": 1}')
    project.llmbatch_here("run", "--select", "llm_outputs")
    assert "schema/llm_schema.txt does not match" in caplog.text


def test_another_batch_has_a_schema_of_its_own_written(home: Callable[..., Project], server: ChatServer) -> None:
    project = home()
    project.parameters("other", **settings(server.base_url))
    answers_with(NEW, server)

    ended = project.llmbatch_here("run", "--config", "configs/other.yaml")

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert project.path("schema/other/llm_schema.py").read_text() == WRITTEN
    assert project.path("schema/other/llm_schema.txt").exists()
    assert project.path(SCHEMA_PY).read_text() == SCHEMA


# Modules that people write.

NO_MODULES = "the file only declares models and is never run, so it can use no other modules"
PEOPLE = '''"""Ranks."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Literal

from pydantic import BaseModel, Field


class Rank(Enum):
    ONE = "one"
    TWO = "two"


Short = Annotated[str, Field(max_length=80)]
Kind = Literal["a", "b"]


class LLMOutput(BaseModel):
    answer: Short
    kinds: list[Kind] = []
    rank: Rank = Rank.ONE
'''


def test_enum_defaults_and_names_for_types_are_understood(
    project_with: Callable[..., Project], server: ChatServer
) -> None:
    project = project_with()
    project.write("schema/llm_schema.py", PEOPLE)
    server.script("", says({"answer": "x", "kinds": ["a"]}), says({"answer": "x" * 81}), says({"answer": "y"}))
    ended = project.llmbatch_here("run", "--limit", "2")
    assert ended.returncode == 0, ended.stderr
    outputs = [output["parsed"] for output in project.outputs().values()]
    assert len(outputs) == 2
    assert {"answer": "x", "kinds": ["a"], "rank": "one"} in outputs
    # The second answer was too long for Short, and made again.
    assert len(server.calls) == 3


def test_each_mistake_of_a_module_is_reported_once_and_with_its_reason(project_with: Callable[..., Project]) -> None:
    project = project_with()
    validator = "\n    @field_validator('answer')\n    @classmethod\n    def check(cls, v):\n        return v\n"
    project.write("schema/llm_schema.py", f"import os\n{PEOPLE}{validator}")
    ended = project.llmbatch_here("check")
    assert ended.returncode == 2
    last = len(f"import os\n{PEOPLE}{validator}".splitlines()) - 1
    remedy = "set llm_schema.trust: true to run your own code"
    assert [line for line in ended.stdout.splitlines() if line.startswith("mistake: ")] == [
        f"mistake: {SCHEMA_PY}:1: `import os` is not allowed in a schema; {NO_MODULES}; remove the line, or {remedy}",
        f"mistake: {SCHEMA_PY}:{last}: a function (check) is not allowed in a schema; use Field(...) limits, or {remedy}",
    ]


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (
            "class LLMOutput: pass\n",
            "llm_schema.py:1: class LLMOutput is not allowed in a schema; write `class LLMOutput(",
        ),
        (
            "from pydantic import BaseModel\n\n\nclass LLMOutput(BaseModel):\n    pass\n",
            "llm_schema.py: LLMOutput has no fields, so every answer would be {}; add fields such as `answer: str`",
        ),
    ],
)
def test_an_output_without_fields_is_refused_before_any_call(
    project_with: Callable[..., Project], server: ChatServer, source: str, told: str
) -> None:
    project = project_with()
    project.write("schema/llm_schema.py", source)
    for command in ("check", "plan", "run"):
        ended = project.llmbatch_here(command)
        assert ended.returncode == 2
        assert told in ended.stdout + ended.stderr
        assert (ended.stdout + ended.stderr).count("llm_schema.py") == 1
    assert server.calls == []


def test_a_run_warns_once_that_it_trusts_the_module(
    project_with: Callable[..., Project], caplog: pytest.LogCaptureFixture
) -> None:
    project = project_with(llm_schema={"trust": True})
    project.write("schema/llm_schema.py", f"{SCHEMA}\n\nTRUSTED_ONCE = print\n")
    assert project.llmbatch_here("run").returncode == 0
    assert caplog.text.count("imported and executed as is") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
def test_a_schema_that_arrives_soon_after_a_signal_is_paid_for_and_kept(
    home: Callable[..., Project], server: ChatServer
) -> None:
    project = home()

    def late(_: ChatCall) -> Answer:
        # While the call is in flight, the signal is the stage's to handle.
        os.kill(os.getpid(), signal.SIGTERM)
        return says(fenced(NEW))

    server.script(asks_for_a_schema, late)

    ended = project.llmbatch_here(*FORCE)

    assert ended.returncode != 0
    assert "interrupted" in ended.stdout + ended.stderr
    assert project.path(SCHEMA_PY).read_text() == WRITTEN
    assert server.count() == 1
