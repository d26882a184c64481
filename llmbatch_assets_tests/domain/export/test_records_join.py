"""Export settings that name unknown fields or columns are reported before anything runs."""

from __future__ import annotations

import re
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError

from llmbatch_assets.domain.export.columns import ColumnType, OutputSchema
from llmbatch_assets.domain.export.records import Join, export_warnings
from llmbatch_assets.errors import ConfigError
from llmbatch_assets_tests.domain.strategies import ROW_MODES, parameters, snapshot

JOIN_EXPLODE = {"list": "answers", "item_key": "row", "input_column": "id"}


class Answer(BaseModel):
    """An element."""

    model_config = ConfigDict(extra="forbid")
    row: str
    id: int


class Output(BaseModel):
    """The output of a group."""

    model_config = ConfigDict(extra="forbid")
    summary: str
    answers: list[Answer] | None
    words: list[str]


SCHEMA = OutputSchema(Output.model_json_schema(mode="serialization"))


def named(mode: str, **outputs: Any) -> list[str]:
    """Where the columns are from, but for those that every export has."""
    join = Join.of(snapshot([]), parameters(grouping=ROW_MODES[mode], outputs=outputs))
    columns = join.columns(SCHEMA, {}, flatten=False)
    return [f"{one.name}={one.origin}" for one in columns if one.part not in ("meta", "judge")]


def test_the_columns_of_an_exploded_list_are_those_of_its_elements() -> None:
    assert named("group_output", explode=JOIN_EXPLODE) == [
        *("id=input.id", "team=input.team", "text=input.text"),
        *("summary=parsed.summary", "words=parsed.words", "row=element.row", "parsed_id=element.id"),
    ]


@pytest.mark.parametrize(("group_rows", "n_input"), [("one", 1), ("expand", 3)])
def test_a_group_has_its_column_and_each_row_all_columns(group_rows: str, n_input: int) -> None:
    assert sum("=input." in name for name in named("group_output", group_rows=group_rows)) == n_input


@pytest.mark.parametrize(
    ("fields", "expected"), [(["passed", "score"], "judge.passed"), (["verdict", "ok"], "judge.verdict")]
)
def test_the_verdict_column_reads_the_judges_own_field(fields: list[str], expected: str) -> None:
    columns = Join.of(snapshot([]), parameters()).columns(SCHEMA, dict.fromkeys(fields, "string"), flatten=False)
    assert [one.origin for one in columns if one.name == "judge_verdict"] == [expected]


@pytest.mark.parametrize(("said", "expected"), [("integer", "integer"), ("number", "number"), ("json", "number")])
def test_the_score_is_an_integer_if_the_judges_schema_says_so(said: ColumnType, expected: str) -> None:
    columns = Join.of(snapshot([]), parameters()).columns(SCHEMA, {"score": said}, flatten=False)
    assert [one.type for one in columns if one.name == "judge_score"] == [expected]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"list": "answer"}, "outputs.explode.list: the output has no field 'answer'; it has: answers"),
        ({"list": "words"}, "outputs.explode.list: 'words' is not a list of objects"),
        ({"list": "summary"}, "outputs.explode.list: 'summary' is not a list of objects"),
        ({"item_key": "rows"}, "outputs.explode.item_key: the elements of 'answers' have no field 'rows'; it has: row"),
        ({"input_column": "ID"}, "outputs.explode.input_column: the table has no column 'ID'; it has: id"),
    ],
)
def test_unknown_names_are_reported_with_the_known_ones(change: dict[str, str], told: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(told)):
        named("group_output", explode=JOIN_EXPLODE | change)


@pytest.mark.parametrize("outputs", [{"explode": JOIN_EXPLODE}, {"group_rows": "expand"}])
def test_group_settings_without_groups_give_a_warning(outputs: dict[str, Any]) -> None:
    for mode, grouping in ROW_MODES.items():
        told = export_warnings(parameters(grouping=grouping, outputs=outputs))
        assert [warning.partition(" ")[0] for warning in told] == (
            [] if mode == "group_output" else [f"outputs.{next(iter(outputs))}"]
        )


@pytest.mark.parametrize(
    ("outputs", "told"),
    [
        ({"explode": {"list": "answers"}}, "needs all three"),
        ({"explode": JOIN_EXPLODE, "group_rows": "expand"}, "leave outputs.group_rows at one"),
        ({"csv_path": "a/x", "tsv_path": "a/x"}, "two files have the same path, a/x"),
        ({"csv_path": "a/x", "not_exported_path": "a/x"}, "two files have the same path, a/x"),
        ({"nested": "deep"}, "flatten"),
    ],
)
def test_contradictory_settings_are_refused(outputs: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        parameters(outputs=outputs)
