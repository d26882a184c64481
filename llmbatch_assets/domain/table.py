"""The input table, from raw cells to the snapshot that everything downstream starts from."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

from llmbatch_assets.domain.cell import Cleaner
from llmbatch_assets.domain.parameters import Input
from llmbatch_assets.domain.text import flatten, harden
from llmbatch_assets.errors import TableError

Row = dict[str, str]

# What a row template calls all columns together.
KV_BLOCK = "__ROW_KV_BLOCK__"


@dataclass(frozen=True)
class RawTable:
    """A table as read from a file: header and cells, nothing cleaned. ``escaped`` is its delimiter, which some
    programs write with a backslash inside a cell.
    """

    columns: Sequence[str]
    rows: Iterable[Sequence[Any]]
    file_format: str
    escaped: str = ""


class Snapshot(BaseModel):
    """The cleaned table; every value is a text. The shape of ``pipeline2_input.json``."""

    model_config = ConfigDict(frozen=True)

    meta: dict[str, Any]
    n_rows: int
    n_cols: int
    columns: list[str]
    rows: list[Row]
    records: list[Row] | None = None


def clean_columns(columns: Sequence[str], path: str) -> list[str]:
    """Column names, trimmed. An empty or repeated one is refused, since a row is looked up by name."""
    names = [flatten(harden(name)).strip() for name in columns]
    places: dict[str, int] = {}
    for place, name in enumerate(names, start=1):
        if not name:
            raise TableError(f"{path}: column {place} has no name; name it in the header line")
        if name in places:
            raise TableError(f"{path}: columns {places[name]} and {place} are both named {name!r}; rename one")
        if name == KV_BLOCK:
            raise TableError(f"{path}: column {place} is named {KV_BLOCK}, which row templates use; rename it")
        places[name] = place
    return names


def take_snapshot(table: RawTable, path: str, settings: Input) -> Snapshot:
    """The snapshot of a table; ``path`` is only recorded. Raises ``TableError``."""
    columns = clean_columns(table.columns, path)
    for name in settings.required_columns:
        if name not in columns:
            raise TableError(
                f"{path}: required column {name!r} is missing; the table has: {nearest_first(name, columns)}"
            )
    cleaner = Cleaner(settings, columns, table.escaped)
    try:
        rows = list(cleaner.rows(table.rows))
    except ValueError as broken:
        raise TableError(f"{path}: {broken}") from None
    shape: dict[str, Any] = {"n_rows": len(rows), "n_cols": len(columns), "columns": columns}
    meta = {"input_path": path, "input_format": table.file_format, **shape, "cells_changed": cleaner.changes}
    # Not validated: the rows are what they say, and a large table has a million cells.
    return Snapshot.model_construct(
        None, meta=meta, **shape, rows=rows, records=rows if settings.records_alias else None
    )


def nearest_first(name: str, columns: Sequence[str]) -> str:
    """The columns as a list for a message, those most like ``name`` in front."""
    near = difflib.get_close_matches(name, columns, n=len(columns), cutoff=0.5)
    return ", ".join([*near, *(column for column in columns if column not in near)])
