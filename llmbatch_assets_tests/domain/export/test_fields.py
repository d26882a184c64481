"""Columns from schemas: in schema order, and nothing that an object may hold is without one."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, computed_field

from llmbatch_assets.domain.export.columns import OutputField, OutputSchema


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


def test_fields_have_the_type_of_their_schema_and_its_order() -> None:
    expected = PLAIN | JSON_ALONE | {"place": "json", "maybe": "json"} | REST
    assert list(types_of(Output).items()) == list(expected.items())


def test_objects_are_flattened_in_place_where_nothing_gets_lost() -> None:
    assert list(types_of(Output, flatten=True).items()) == list((PLAIN | JSON_ALONE | FLAT | REST).items())


def test_an_object_that_holds_itself_stays_whole() -> None:
    assert types_of(Tree, flatten=True) == {"value": "integer", "left": "json", "children": "json"}

    class Above(BaseModel):
        tree: Tree

    assert types_of(Above, flatten=True) == {"tree.value": "integer", "tree.left": "json", "tree.children": "json"}


def test_what_has_no_name_in_the_schema_has_a_column_together() -> None:
    assert list(schema_of(Open).fields(flatten=False)) == [
        OutputField(("known",), "string"),
        OutputField((), "json", frozenset({"known"})),
    ]


@pytest.mark.parametrize(("name", "expected"), [("places", ["city", "zip_code"]), ("place", None), ("free", None)])
def test_a_list_of_objects_is_told_from_others(name: str, expected: list[str] | None) -> None:
    found = schema_of(Output).elements(name)
    assert (list(found.properties) if found else None) == expected
