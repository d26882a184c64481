"""Accepted outputs as a table with typed columns, for the assets downstream of a batch."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from llmbatch_assets.domain.export.columns import Column, ColumnType, Record
from llmbatch_assets.domain.items.column_types import InputType, typed_cell
from llmbatch_assets.domain.text import without_surrogates

ValueType = ColumnType | Literal["date", "timestamp"]


class TypedColumn(NamedTuple):
    """A column: the type of its values, and the part of a record that they come from."""

    name: str
    type: ValueType
    part: str


@dataclass(frozen=True)
class TypedTable:
    """Columns and rows. A missing value is None, lists and objects are Python's, and time stamps are ISO 8601 text."""

    columns: Sequence[TypedColumn]
    rows: Sequence[Sequence[Any]]


def typed_columns(columns: Iterable[Column], input_types: Mapping[str, InputType]) -> list[TypedColumn]:
    """Give the input columns the types of the user's table. The other columns have those of the schema."""
    return [
        TypedColumn(column.name, input_types.get(column.path[0], "string"), "input")
        if column.part == "input"
        else TypedColumn(column.name, column.type, column.part)
        for column in columns
    ]


def typed_value(value: Any, column: TypedColumn) -> Any:
    """The value of a record in its column's type; input values are text in a record."""
    if column.part == "input" and isinstance(value, str):
        return typed_cell(value, column.type)  # type: ignore[arg-type]  # input columns are never json
    if isinstance(value, str) and not value.isascii():
        return without_surrogates(value)
    return value


def value_of_text(text: str, column: TypedColumn) -> Any:
    """The value of a cell in a delimited file. Empty cells are None, except those of a text column of the input."""
    if column.part == "input":
        return typed_value(text, column)
    if not text or column.type == "string":
        return text or None
    try:
        return json.loads(text)
    except ValueError:
        # A field that may be text or something else is text as it is.
        return text


def record_reader(column: Mapping[str, str], columns: Iterable[Mapping[str, str]]) -> Callable[[Record], Any]:
    """Return a function that finds the value of a column in an exported record, by the column's origin in the manifest."""
    part, _, path = column["from"].partition(".")
    if path == "*":
        origins = (other["from"].split(".") for other in columns)
        declared = {origin[1] for origin in origins if origin[0] == part and origin[1] != "*"}
        return lambda record: {key: one for key, one in record[part].items() if key not in declared} or None

    def value(record: Record) -> Any:
        found = record.get(part) or {}
        if path in found:
            return found[path]
        for name in path.split("."):
            found = found.get(name) if isinstance(found, dict) else None
        return found

    return value
