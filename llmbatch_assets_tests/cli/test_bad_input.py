"""Mistakes are told before anything runs: one message that says what is wrong, where, and what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from llmbatch_assets_tests.memory_storage import kept_in_memory
from llmbatch_assets_tests.project import GENERATION, JUDGE, ROWS, SCHEMA, Project, make_project, settings

Spoil = Callable[[Project], object]
CALLING = SCHEMA.replace('"""A verdict."""', '"""A verdict."""\n\n    open("stolen", "w")')
HOSTILE = "import os\n" + CALLING
GROUPED_BY_CLASS = {"enabled": True, "column": "class", "mode": "group_output"}
JUDGED = {"judge": {"enabled": True}}
NOWHERE_JUDGED = {"judge": {"enabled": True, "path": "prompts/none.yaml"}}


class Mistake(NamedTuple):
    """What is wrong with a project, and what of it the message must name."""

    told: str
    spoil: Spoil
    named: tuple[str, ...]
    arguments: tuple[str, ...] = ()


def without(relative: str) -> Spoil:
    return lambda project: project.path(relative).unlink()


def with_text(relative: str, text: str) -> Spoil:
    return lambda project: project.write(relative, text)


def with_bytes(relative: str, content: bytes) -> Spoil:
    return lambda project: project.path(relative).write_bytes(content)


def with_parameters(**blocks: Any) -> Spoil:
    return lambda project: project.parameters(**settings(**blocks))


def with_prompt(name: str, **changed: str) -> Spoil:
    plain = {"generation": GENERATION, "judge": JUDGE}[name]
    return lambda project: project.prompt(name, {**plain, **changed})


CONFIG, TABLE, SCHEMA_PY = "configs/parameters.yaml", "raw_data/input.csv", "schema/llm_schema.py"
JUDGE_MISTAKES = [
    Mistake("no verdict", with_text(SCHEMA_PY, SCHEMA.split("class Judge")[0]), (SCHEMA_PY, "JudgeResult", "verdict")),
    Mistake("blank", with_prompt("judge", user="{answer}"), ("prompts/judge.yaml", "{answer}", "{output_json}")),
]


def told_for(project: Project, mistake: Mistake) -> str:
    """The message that a run of the spoilt project ends with; nothing may have been written."""
    mistake.spoil(project)
    before = project.tree()

    ended = project.llmbatch_here("run", *mistake.arguments)

    assert ended.returncode == 2, ended.stdout
    assert ended.stdout == ""
    assert "Traceback" not in ended.stderr
    assert project.tree() == before
    return ended.stderr


@pytest.mark.parametrize(
    "mistake",
    [
        Mistake("no config", without(CONFIG), (CONFIG, "--config")),
        Mistake(
            "other config",
            lambda project: None,
            ("configs/none.yaml", "does not exist", "--config"),
            ("--config", "configs/none.yaml"),
        ),
    ],
    ids=lambda mistake: mistake.told,
)
def test_a_configuration_that_is_not_there_is_reported_in_one_message(tmp_path: Path, mistake: Mistake) -> None:
    told = told_for(make_project(tmp_path / "project"), mistake)

    assert told.count("llmbatch: ") == 1
    for part in mistake.named:
        assert part in told


@pytest.mark.parametrize("mistake", JUDGE_MISTAKES, ids=lambda mistake: mistake.told)
def test_what_the_judge_lacks_is_told_where_there_is_one(tmp_path: Path, mistake: Mistake) -> None:
    told = told_for(make_project(tmp_path / "judged", prompts=JUDGED), mistake)

    for part in mistake.named:
        assert part in told

    # Without a judge it is no mistake.
    unjudged = make_project(tmp_path / "unjudged")
    mistake.spoil(unjudged)
    with kept_in_memory(unjudged.path("dagster_home")):
        assert unjudged.llmbatch_here("run", "--select", "llm_schema_txt").returncode == 0


def test_all_mistakes_of_a_configuration_are_told_at_once(tmp_path: Path) -> None:
    wrong = with_parameters(llm={"modle_name": "x", "max_workers": 0}, cache={"verbose": 11}, repot={})

    told = told_for(make_project(tmp_path / "project"), Mistake("several", wrong, ()))

    lines = [line for line in told.splitlines() if CONFIG in line]
    assert len(lines) == 4
    for key in ("llm.modle_name", "llm.max_workers", "cache.verbose", "repot"):
        assert sum(key in line for line in lines) == 1


def test_a_key_in_the_configuration_is_refused_and_not_repeated(tmp_path: Path) -> None:
    pasted = with_parameters(llm={"api_key": "sk-1234567890", "api_key_env": "sk-0987654321"})

    told = told_for(make_project(tmp_path / "project"), Mistake("pasted key", pasted, ()))

    assert "environment variable" in told
    assert "sk-1" not in told
    assert "sk-0" not in told


@pytest.mark.parametrize(
    ("block", "pasted"),
    [
        ("llm", {"base_url": "https://user:sk-1234567890@host/v1"}),
        ("judge", {"base_url": "https://host/v1?key=sk-1234567890"}),
        ("llm", {"extra_body": {"api_key": "sk-1234567890"}}),
        ("llm", {"extra_body": {"options": [{"X-Api-Key": "sk-1234567890"}]}}),
        ("llm", {"extra_body": {"headers": {"Authorization": "Bearer sk-1234567890"}}}),
    ],
)
def test_a_key_within_another_setting_is_refused_and_not_repeated(
    tmp_path: Path, block: str, pasted: dict[str, Any]
) -> None:
    spoil = with_parameters(**{block: pasted})

    told = told_for(make_project(tmp_path / "project"), Mistake("pasted key", spoil, ()))

    assert f"{block}.{next(iter(pasted))}: must not contain" in told
    assert "sk-1" not in told


@pytest.mark.parametrize("option", ["--limit=-1", "--sample=x", "--selct=export", "--select=exprot"])
def test_a_wrong_option_is_a_usage_error(tmp_path: Path, option: str) -> None:
    project = make_project(tmp_path / "project")
    before = project.tree()

    ended = project.llmbatch_here("run", option)

    assert ended.returncode == 2
    assert option.partition("=")[0] in ended.stderr
    assert project.tree() == before


def test_a_command_that_is_misspelt_is_told_with_the_nearest(tmp_path: Path) -> None:
    ended = make_project(tmp_path / "project").llmbatch_here("runn")
    assert (ended.returncode, "Did you mean 'run'?" in ended.stderr) == (2, True)


def test_a_mistake_is_told_by_the_command_itself(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    project.table([*ROWS, ("q6", "red")])
    before = project.tree()

    ended = project.llmbatch("run")

    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.count("\n") == 1
    assert "row 6 has 2 cells, the header has 3" in ended.stderr
    assert project.tree() == before
