"""Columns with unique names for every value, and the cells of records."""

from __future__ import annotations

import json
import re
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, computed_field

from llmbatch_assets.domain.export.columns import (
    Column,
    OutputField,
    OutputSchema,
    Record,
    cell_text,
    cells,
    export_columns,
)
from llmbatch_assets_tests.domain.strategies import JSON, quick
from llmbatch_assets_tests.growth import assert_linear

# Names as tables and models have them, among them those of our own columns.
FIELD_NAMES = st.sampled_from(
    [
        "id",
        "text",
        "answer",
        "parsed_id",
        "parsed_parsed_id",
        "meta_work_id",
        "meta_model",
        "judge_score",
        "judge_verdict",
    ]
)
NAMES = st.lists(FIELD_NAMES, unique=True, max_size=6)


def fields(*names: str) -> list[OutputField]:
    return [OutputField((name,), "string") for name in names]


@quick
@given(NAMES, NAMES)
def test_no_column_overwrites_another(input_columns: list[str], output_fields: list[str]) -> None:
    names = [column.name for column in export_columns(input_columns, fields(*output_fields), fields(*output_fields))]
    assert len(set(names)) == len(names)


def test_columns_have_a_fixed_order() -> None:
    columns = export_columns(["id", "answer"], fields("answer", "mood"))
    assert [column.name for column in columns] == [
        "id",
        "answer",
        "meta_work_id",
        "meta_row_index",
        "meta_group_key",
        "meta_group_context_id",
        "parsed_answer",
        "mood",
        "judge_verdict",
        "judge_score",
        "judge_reasons_json",
        "meta_cache_id",
        "meta_provider",
        "meta_model",
        "meta_temperature",
        "meta_created_at_utc",
    ]


def test_an_input_column_with_one_of_our_names_is_renamed() -> None:
    names = [column.name for column in export_columns(["meta_model", "input_meta_model"], [])]
    assert names[:2] == ["input_input_meta_model", "input_meta_model"]
    assert names.count("meta_model") == 1


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("text, as it is\n", "text, as it is\n"),
        (None, ""),
        ("", ""),
        (True, "true"),
        (0, "0"),
        (0.5, "0.5"),
        ([], "[]"),
        (["ü", 1], '["ü",1]'),
        ({"b": 1, "a": None}, '{"a":null,"b":1}'),
    ],
)
def test_text_cells_are_unchanged_and_others_are_json(value: Any, text: str) -> None:
    assert cell_text(value) == text


def record(**parts: Any) -> Record:
    return {"input": {}, "parsed": {}, "judge": None, "meta": {}} | parts


def test_a_record_becomes_one_line_of_cells() -> None:
    columns = export_columns(["id", "text"], fields("answer", "absent"))
    line = cells(record(input={"id": "1", "text": "a"}, parsed={"answer": ["x"]}, meta={"row_index": 0}), columns)
    shown = dict(zip((column.name for column in columns), line, strict=True))
    assert {name: value for name, value in shown.items() if value is not None} == {
        "id": "1",
        "text": "a",
        "meta_row_index": 0,
        "answer": '["x"]',
    }


def test_a_nested_field_is_found_and_a_missing_one_is_none() -> None:
    column = Column("a.b", "parsed", ("a", "b"))
    found = [cells(record(parsed=parsed), [column]) for parsed in ({"a": {"b": 1}}, {"a": None}, {"a": "text"}, {})]
    assert found == [[1], [None], [None], [None]]


def test_undeclared_fields_share_one_cell() -> None:
    column = Column("parsed_extra_json", "parsed", (), "json", frozenset({"known"}))
    assert cells(record(parsed={"known": 1, "b": 2, "a": [3]}), [column]) == ['{"a":[3],"b":2}']
    assert cells(record(parsed={"known": 1}), [column]) == [None]


@quick
@given(JSON)
def test_any_value_becomes_a_plain_cell(value: Any) -> None:
    (cell,) = cells(record(parsed={"v": value}), [Column("v", "parsed", ("v",))])
    assert cell is None or isinstance(cell, str | int | float)


def test_a_cell_of_json_has_its_controls_and_lone_surrogates_escaped() -> None:
    columns = [Column("v", "parsed", ("v",))]
    assert cells(record(parsed={"v": "a\ud83db"}), columns) == ["a\ud83db"]
    for value in (["\ud83d"], {"\x9b": "\u202e\x1b"}, [r"\x{1b}", r"\\x{1b}"]):
        [cell] = cells(record(parsed={"v": value}), columns)
        assert isinstance(cell, str)
        assert json.loads(cell) == value
        assert not re.search("[\ud800-\udfff\x80-\x9f\u202e]", cell)


def test_the_origin_of_a_value_is_named() -> None:
    columns = [
        Column("a.b", "parsed", ("a", "b")),
        Column("x", "parsed", ("a",), "json", frozenset()),
        Column("y", "meta", ("z",)),
    ]
    assert [column.origin for column in columns] == ["parsed.a.b", "parsed.a.*", "meta.z"]


class Place(BaseModel):
    """A part."""

    model_config = ConfigDict(extra="forbid")
    city: str
    zip_code: int | None


class Tree(BaseModel):
    """A part that holds itself."""

    value: int
    left: Tree | None
    children: list[Tree]


class Open(BaseModel):
    """A part that holds what it likes."""

    model_config = ConfigDict(extra="allow")
    known: str


class Output(BaseModel):
    """Every kind of field."""

    text: str
    number: float | None
    whole: int
    yes: bool
    word: Literal["a", "b"]
    mixed: Literal["a", 1]
    either: int | str
    places: list[Place]
    place: Place
    maybe: Place | None
    two: Place | Tree
    free: dict[str, int]
    open: Open
    anything: Any

    @computed_field  # type: ignore[prop-decorator]
    @property
    def made(self) -> int:
        """What no answer holds and every kept output does."""
        return 1


def schema_of(model: type[BaseModel]) -> OutputSchema:
    return OutputSchema(model.model_json_schema(mode="serialization"))


def types_of(model: type[BaseModel], *, flatten: bool = False) -> dict[str, str]:
    return {".".join(field.path): field.type for field in schema_of(model).fields(flatten=flatten)}


PLAIN = {"text": "string", "number": "number", "whole": "integer", "yes": "boolean", "word": "string"}
JSON_ALONE = dict.fromkeys(["mixed", "either", "places"], "json")
REST = {**dict.fromkeys(["two", "free", "open", "anything"], "json"), "made": "integer"}
FLAT = {"place.city": "string", "place.zip_code": "integer", "maybe.city": "string", "maybe.zip_code": "integer"}


def test_fields_have_the_types_and_order_of_the_schema() -> None:
    expected = PLAIN | JSON_ALONE | {"place": "json", "maybe": "json"} | REST
    assert list(types_of(Output).items()) == list(expected.items())


def test_objects_are_flattened_in_place_if_nothing_is_lost() -> None:
    assert list(types_of(Output, flatten=True).items()) == list((PLAIN | JSON_ALONE | FLAT | REST).items())


def test_a_recursive_object_is_not_flattened() -> None:
    assert types_of(Tree, flatten=True) == {"value": "integer", "left": "json", "children": "json"}

    class Above(BaseModel):
        tree: Tree

    assert types_of(Above, flatten=True) == {"tree.value": "integer", "tree.left": "json", "tree.children": "json"}


def test_undeclared_fields_share_one_column() -> None:
    assert list(schema_of(Open).fields(flatten=False)) == [
        OutputField(("known",), "string"),
        OutputField((), "json", frozenset({"known"})),
    ]


@pytest.mark.parametrize(("name", "expected"), [("places", ["city", "zip_code"]), ("place", None), ("free", None)])
def test_lists_of_objects_are_recognized(name: str, expected: list[str] | None) -> None:
    found = schema_of(Output).elements(name)
    assert (list(found.properties) if found else None) == expected


def test_naming_columns_takes_time_in_proportion_to_their_number() -> None:
    def naming(size: int) -> Any:
        names = [f"c{number}" for number in range(size)]
        return lambda: export_columns(names, [OutputField((name,), "string") for name in names])

    assert_linear(naming, 4_000)
