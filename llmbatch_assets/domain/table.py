"""The input table, from raw cells to the snapshot that everything downstream starts from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

from llmbatch_assets.domain.parameters import Input
from llmbatch_assets.domain.text import flatten, harden
from llmbatch_assets.errors import TableError

Row = dict[str, str]


@dataclass(frozen=True)
class RawTable:
    """A table as read from a file: header and cells, nothing cleaned. ``escaped`` is its delimiter, which some
    programs write with a backslash inside a cell.
    """

    columns: Sequence[str]
    rows: Iterable[Sequence[str]]
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


def clean_cell(cell: str, settings: Input, escaped: str = "") -> str:
    """The cell trimmed, hardened, on one line (unless configured otherwise) and empty where it says "nothing"."""
    text = harden(cell)
    if escaped and "\\" in text:
        text = text.replace(f"\\{escaped}", escaped)
    text = (flatten(text) if settings.collapse_whitespace else text).strip()
    return "" if text.lower() in settings.null_tokens else text


def clean_columns(columns: Sequence[str], path: str) -> list[str]:
    """Column names, trimmed; an empty or repeated one is refused, since a row is looked up by name."""
    names = [flatten(harden(name)).strip() for name in columns]
    for place, name in enumerate(names, start=1):
        if not name:
            raise TableError(f"{path}: column {place} has no name; name it in the header line")
        if names.index(name) != place - 1:
            raise TableError(f"{path}: two columns are named {name!r} ({names.index(name) + 1} and {place})")
    return names


def take_snapshot(table: RawTable, path: str, settings: Input) -> Snapshot:
    """The snapshot of a table; ``path`` is only recorded."""
    columns = clean_columns(table.columns, path)
    missing = [name for name in settings.required_columns if name not in columns]
    if missing:
        raise TableError(f"{path}: required column {missing[0]!r} is missing; the table has: {', '.join(columns)}")
    lowered = settings.model_copy(update={"null_tokens": frozenset(t.lower() for t in settings.null_tokens)})
    rows = [
        {name: clean_cell(cell, lowered, table.escaped) for name, cell in zip(columns, cells, strict=True)}
        for cells in table.rows
    ]
    meta = {"input_path": path, "input_format": table.file_format, "n_rows": len(rows), "n_cols": len(columns)}
    return Snapshot(
        meta=meta | {"columns": columns},
        n_rows=len(rows),
        n_cols=len(columns),
        columns=columns,
        rows=rows,
        records=rows if settings.records_alias else None,
    )
