"""The input table: from raw cells to the cleaned snapshot."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

from llmbatch_assets.domain.configuration.input_blocks import Input
from llmbatch_assets.domain.items.cell import Cleaner
from llmbatch_assets.domain.placeholders import KV_BLOCK
from llmbatch_assets.domain.text import case_mark, composed, counted, flatten, harden, has_surrogates, nearest
from llmbatch_assets.errors import TableError

Row = dict[str, str]

MAX_ROWS_SHOWN = 5


@dataclass(frozen=True)
class RawTable:
    """Header and cells as read from a file. ``warnings`` are about content that a text table cannot hold."""

    columns: Sequence[str]
    rows: Iterable[Sequence[Any]]
    file_format: str
    warnings: Sequence[str] = ()


class Snapshot(BaseModel):
    """The cleaned table, with text values only. The content of ``pipeline2_input.json``."""

    model_config = ConfigDict(frozen=True)

    meta: dict[str, Any]
    n_rows: int
    n_cols: int
    columns: list[str]
    rows: list[Row]
    records: list[Row] | None = None


def clean_columns(columns: Sequence[str], path: str) -> list[str]:
    """Return the trimmed column names. Raises ``TableError`` for an empty or repeated name."""
    names = [composed(flatten(harden(name)).strip()) for name in columns]
    if not names:
        raise TableError(f"{path}: the table has no columns")
    places: dict[str, int] = {}
    for place, name in enumerate(names, start=1):
        if not name:
            raise TableError(f"{path}: column {place} has no name; name it in the header line")
        if name in places:
            raise TableError(f"{path}: columns {places[name]} and {place} are both named {name!r}; rename one")
        if has_surrogates(name):
            raise TableError(
                f"{path}: the name of column {place} has an invalid character (a lone surrogate); rename it"
            )
        if name == KV_BLOCK:
            raise TableError(f"{path}: column {place} is named {KV_BLOCK}, which row templates use; rename it")
        places[name] = place
    return names


def take_snapshot(table: RawTable, path: str, settings: Input) -> Snapshot:
    """Clean a table. ``path`` is used in messages and metadata only. Raises ``TableError``."""
    columns = clean_columns(table.columns, path)
    for name in settings.required_columns:
        if name not in columns:
            raise TableError(
                f"{path}: required column {name!r} is missing; the table has: {nearest_first(name, columns)}"
            )
    cleaner = Cleaner(settings, columns)
    try:
        rows = list(cleaner.rows(table.rows))
    except ValueError as broken:
        raise TableError(f"{path}: {broken}") from None
    shape: dict[str, Any] = {"n_rows": len(rows), "n_cols": len(columns), "columns": columns}
    meta = {"input_path": path, "input_format": table.file_format, **shape, "cells_changed": cleaner.changes}
    if types := cleaner.column_types:
        # Text tables have none, and their snapshots stay as they were.
        meta["column_types"] = types
    meta["warnings"] = [*table.warnings, *_row_warnings(rows, skips_empty=settings.skip_empty_rows)]
    # Not validated: the types are right, and a large table has a million cells.
    return Snapshot.model_construct(
        None, meta=meta, **shape, rows=rows, records=rows if settings.records_alias else None
    )


def empty_rows(rows: Sequence[Row]) -> list[int]:
    """Return the indices of the rows that are empty in every column."""
    return [index for index, row in enumerate(rows) if not any(row.values())]


def _row_warnings(rows: Sequence[Row], *, skips_empty: bool) -> list[str]:
    if not rows:
        return ["has a header but no rows: there is nothing to do"]
    empty = empty_rows(rows)
    if not empty:
        return []
    shown = ", ".join(str(index + 1) for index in empty[:MAX_ROWS_SHOWN]) + (
        ", ..." if len(empty) > MAX_ROWS_SHOWN else ""
    )
    if len(empty) == 1:
        effect = "is skipped" if skips_empty else "will cost a call; set input.skip_empty_rows: true"
        return [f"1 empty row (row {shown}) {effect}"]
    effect = "are skipped" if skips_empty else "will each cost a call; set input.skip_empty_rows: true"
    return [f"{counted(len(empty), 'empty row')} ({shown}) {effect}"]


# Column names in a message.
MAX_LISTED = 100


def nearest_first(name: str, columns: Sequence[str]) -> str:
    """List the columns for a message, most similar to ``name`` first."""
    listed = list(dict.fromkeys([*nearest(name, columns, least=0.5), *columns]))
    more = f" and {len(listed) - MAX_LISTED:,} more" if len(listed) > MAX_LISTED else ""
    return ", ".join(f"{column}{case_mark(name, column)}" for column in listed[:MAX_LISTED]) + more
