"""``llmbatch check``: all mistakes of all files at once, and no call but for a ping."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmbatch_assets.domain.text import flatten
from llmbatch_assets_tests.chat_server import ChatServer, status
from llmbatch_assets_tests.project import GENERATION, JUDGE, SCHEMA, Project, make_project, settings

JUDGED = {"prompts": {"judge": {"enabled": True}}}


@pytest.fixture
def plain(tmp_path: Path) -> Project:
    """A project without Dagster."""
    return make_project(tmp_path / "project")


def test_every_mistake_of_every_file_is_told_at_once(plain: Project) -> None:
    plain.parameters(
        input={"path": "raw_data/input.csv", "required_columns": ["price", "id"], "formt": "csv"},
        grouping={"enabled": True, "column": "group"},
        context={"columns": {"exclude": ["secret"]}, "group_header_template": "{nothing}"},
        work_items={"label_column": "label"},
        llm={"provider": "offline", "temperature": 9, "max_workers": "many"},
        prompts=JUDGED["prompts"],
    )
    plain.prompt("generation", {**GENERATION, "user": "{contxt}"})
    plain.prompt("judge", {**JUDGE, "usr": "x", "user": "{outputs}"})
    schema = "import os\n" + SCHEMA.replace("certain: bool", "certain: os.PathLike")
    line = schema[: schema.index("certain")].count("\n") + 1
    plain.write("schema/llm_schema.py", schema)
    plain.write("raw_data/input.csv", "id,team,question\n1,red,what\n2,red\n")
    before = plain.tree()

    ended = plain.llmbatch_here("check")

    assert ended.returncode == 2
    for told in (
        *("input.formt: unknown key", "llm.temperature", "llm.max_workers", "column 'price'", "column 'group'"),
        *("column 'secret'", "column 'label'", "{nothing}", "{contxt}", "usr", "{outputs}", "row 2 has 2 cells"),
        *("llm_schema.py:1: `import os`", f"llm_schema.py:{line}: attribute access os.PathLike"),
    ):
        assert told in ended.stdout
    assert "14 mistakes" in ended.stdout
    assert plain.tree() == before


def test_a_project_without_mistakes_is_told_so_and_how_many_items_it_has(plain: Project) -> None:
    ended = plain.llmbatch_here("check")
    assert ended.returncode == 0
    assert "configs/parameters.yaml: no mistakes, 1 warning, 5 items" in ended.stdout
    assert "llm.provider is offline" in ended.stdout


@pytest.mark.parametrize(
    ("blocks", "told"),
    [
        ({"judge": {"min_score": 50}}, "judge.min_score has no effect"),
        ({"cache": {"force": True}}, "cache.force is true"),
        ({"cache": {"enabled": False}}, "cache.enabled is false"),
        ({"cache": {"dump_failures": False}}, "cache.dump_failures is false"),
        ({"artifacts": {"logs_dir": "logs"}}, "artifacts.logs_dir has no effect"),
        ({"llm": {"provider": "openai", "api_key_env": "NO_SUCH_KEY"}}, "NO_SUCH_KEY is not set"),
    ],
)
def test_what_is_probably_not_meant_is_a_warning(plain: Project, blocks: dict[str, Any], told: str) -> None:
    plain.parameters(**settings(**blocks))
    ended = plain.llmbatch_here("check")
    assert ended.returncode == 0, ended.stdout
    assert f"warning: {told}" in ended.stdout


@pytest.mark.parametrize(
    "spoil",
    [
        lambda project: None,
        lambda project: project.prompt("generation", {"user": "{row} {group_context} {judge_schema}"}),
        lambda project: project.prompt("generation", {"user": "Say something."}),
        lambda project: project.prompt("generation", {"user": "{context} {row {{ question }}"}),
        lambda project: project.table([("q1", "red", "Why?")] * 3),
        lambda project: project.write("schema/llm_schema.txt", "edited"),
        lambda project: project.parameters(
            **settings(outputs={"explode": {"list": "answers", "item_key": "id", "input_column": "id"}})
        ),
        lambda project: project.parameters(**settings(outputs={"group_rows": "expand"})),
    ],
)
def test_a_run_and_a_plan_warn_of_what_check_warns_of(
    project: Project, caplog: pytest.LogCaptureFixture, spoil: Callable[[Project], object]
) -> None:
    spoil(project)
    checked = project.llmbatch_here("check").stdout.splitlines()
    found = [line.removeprefix("warning: ") for line in checked if line.startswith("warning: ")]
    # About settings, not files.
    found = [line for line in found if "llm.provider is offline" not in line]
    planned = json.loads(project.llmbatch_here("plan", "--json").stdout)["warnings"]
    caplog.clear()
    assert project.llmbatch_here("run", "--offline", "--limit", "1").returncode == 0
    assert [flatten(one) for one in planned] == found
    assert [flatten(one.getMessage()) for one in caplog.records if one.name.endswith("preflight")] == found


def test_blanks_that_are_always_empty_are_a_warning(plain: Project) -> None:
    plain.prompt("generation", {"user": "{group_context} {judge_schema} {row}"})
    told = plain.llmbatch_here("check").stdout
    for warning in ("{group_context} is always empty", "{judge_schema} is always empty", "does not use {llm_schema}"):
        assert f"warning: prompts/generation.yaml{':' if '{l' not in warning else ''} {warning}" in told


def test_a_budget_without_a_price_is_a_mistake_as_it_is_for_a_run(plain: Project) -> None:
    plain.parameters(**settings("http://127.0.0.1:9/v1", budget={"max_cost_usd": 1}))
    ended = plain.llmbatch_here("check")
    assert ended.returncode == 2
    assert "the price of test-model" in ended.stdout


@pytest.mark.parametrize(
    ("blocks", "told"),
    [
        ({"report": {"count_by": ["teams"]}}, "'teams'"),
        (
            {
                "grouping": {"enabled": True, "column": "team", "mode": "group_output"},
                "outputs": {"explode": {"list": "answers", "item_key": "id", "input_column": "id"}},
            },
            "outputs.explode.list: the output has no field 'answers'",
        ),
        ({"prompts": {"judge": {"enabled": True, "path": "prompts/none.yaml"}}}, "prompts/none.yaml does not exist"),
    ],
)
def test_what_a_run_refuses_is_a_mistake(plain: Project, blocks: dict[str, Any], told: str) -> None:
    plain.parameters(**settings(**blocks))
    refused = plain.llmbatch_here("run")
    assert refused.returncode == 2
    assert told in refused.stderr
    found = plain.llmbatch_here("check")
    assert found.returncode == 2
    assert told in found.stdout


def test_every_batch_is_checked_unless_one_is_named(plain: Project) -> None:
    plain.parameters("second", llm={"provider": "offlin"})
    assert plain.llmbatch_here("check").returncode == 2
    assert plain.llmbatch_here("check", "--config", "configs/parameters.yaml").returncode == 0


def test_a_configuration_that_is_no_yaml_is_one_mistake(plain: Project) -> None:
    plain.write("configs/parameters.yaml", "llm: [1")
    ended = plain.llmbatch_here("check")
    assert ended.returncode == 2
    assert "1 mistake, 1 warning" in ended.stdout
    assert "were not checked" in ended.stdout


def test_a_missing_schema_is_a_mistake_only_where_no_model_writes_it(plain: Project) -> None:
    plain.path("schema/llm_schema.py").unlink()
    assert plain.llmbatch_here("check").returncode == 2
    plain.prompt("schema_auto_py_generation", {"user": "{context}"})
    plain.parameters(**settings("http://127.0.0.1:9/v1"))
    ended = plain.llmbatch_here("check")
    assert ended.returncode == 0, ended.stdout
    assert "the model will write it, which costs calls" in ended.stdout


def test_a_ping_is_one_small_call_to_each_model(project_with: Callable[..., Project], server: ChatServer) -> None:
    project = project_with(**JUDGED, judge={"model_name": "judging-model"})
    ended = project.llmbatch_here("check", "--ping")
    assert ended.returncode == 0, ended.stdout
    assert "test-model" in ended.stdout
    assert "judging-model" in ended.stdout
    assert [(call.model, call.body["max_tokens"]) for call in server.calls] == [
        ("test-model", 16),
        ("judging-model", 16),
    ]
    assert len(project.path("artifacts/cache/usage.jsonl").read_text().splitlines()) == 2


def test_a_model_that_does_not_answer_is_told(project: Project, server: ChatServer) -> None:
    server.script(lambda call: True, status(401))
    ended = project.llmbatch_here("check", "--ping")
    assert ended.returncode == 2
    assert "ping: test-model at " in ended.stdout
    assert "does not answer" in ended.stdout
    assert server.count() == 1


def test_nothing_is_called_without_ping(project: Project, server: ChatServer) -> None:
    assert project.llmbatch_here("check").returncode == 0
    assert server.count() == 0


def test_a_mistake_does_not_bring_another_one_that_is_not_there(plain: Project) -> None:
    content = yaml.safe_load(plain.config.read_text())
    plain.parameters(**content, grouping={"enabled": True, "column": 7})
    told = plain.llmbatch_here("check").stdout
    assert "1 mistake," in told
