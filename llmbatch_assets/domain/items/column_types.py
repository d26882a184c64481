"""The types that the columns of a table had before the snapshot turned all cells into text."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from decimal import Decimal
from typing import Any, Literal

InputType = Literal["string", "integer", "number", "boolean", "date", "timestamp"]

# The first that fits. bool is a subclass of int, but no number; datetime is a subclass of date.
_KINDS: list[tuple[InputType, tuple[type, ...]]] = [
    ("integer", (int,)),
    ("number", (int, float, Decimal)),
    ("timestamp", (dt.datetime,)),
    ("date", (dt.date,)),
]


def column_type(kinds: Iterable[type]) -> InputType:
    """Return the type of a column whose cells have these Python types. A mixed column is ``string``."""
    present = {kind for kind in kinds if kind is not type(None)}
    if not present or bool in present:
        return "boolean" if present == {bool} else "string"
    return next((name for name, bases in _KINDS if all(issubclass(kind, bases) for kind in present)), "string")


def typed_cell(text: str, kind: InputType) -> Any:
    """Return the value that a cell of the snapshot had. Empty cells are None, and time stamps stay ISO 8601 text."""
    if not text:
        return "" if kind == "string" else None
    if kind == "boolean":
        return text == "true"
    if kind == "integer":
        return int(text)
    if kind == "number":
        return float(text)
    return dt.date.fromisoformat(text) if kind == "date" else text
