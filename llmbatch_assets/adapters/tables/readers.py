"""Input tables: one function per format, each giving a header and rows of cells."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import python_calamine as calamine

from llmbatch_assets.adapters.tables.delimited import read_delimited
from llmbatch_assets.adapters.tables.text_files import read_table_text
from llmbatch_assets.adapters.tables.unread_cells import UnreadCells, unread_cells
from llmbatch_assets.domain.items.cell import cell_text
from llmbatch_assets.domain.items.table import RawTable
from llmbatch_assets.domain.parameters import Input
from llmbatch_assets.domain.text import case_mark, counted, nearest
from llmbatch_assets.errors import TableError


def read_table(path: Path, settings: Input) -> RawTable:
    """The table in the file. Raises ``TableError`` with row and column where there is one."""
    file_format = _format_of(path, settings)
    try:
        if not path.is_file():
            problem = "is a folder" if path.is_dir() else f"does not exist{_beside(path)}"
            raise TableError(f"{path} {problem}; set input.path to your table")
        return READERS[file_format](path, settings)
    except OSError as broken:
        raise TableError(f"{path} cannot be read: {broken.strerror or broken}; set input.path to your table") from None


def _format_of(path: Path, settings: Input) -> str:
    if settings.format != "auto":
        return settings.format
    suffix = path.suffix.lower().removeprefix(".")
    suffix = {"txt": "csv", "ndjson": "jsonl", "xlsm": "xlsx", "pq": "parquet"}.get(suffix, suffix)
    if suffix not in READERS:
        raise TableError(f"{path}: the format cannot be told from the suffix; set input.format to {', '.join(READERS)}")
    return suffix


def _delimited(file_format: str, delimiter: str) -> Callable[[Path, Input], RawTable]:
    return lambda path, settings: read_delimited(path, settings, file_format, settings.delimiter or delimiter)


def read_xlsx(path: Path, settings: Input) -> RawTable:
    """A sheet of a workbook."""
    try:
        workbook = calamine.CalamineWorkbook.from_path(str(path))
        name = _sheet_name(path, workbook, settings.sheet)
        rows = workbook.get_sheet_by_name(name).to_python(skip_empty_area=False)
        unread = unread_cells(path, name) if any("" in row for row in rows) else UnreadCells()
    except calamine.PasswordError:
        raise TableError(f"{path} is protected by a password; save it without one") from None
    except (calamine.CalamineError, BadZipFile, ValueError, KeyError):
        hint = (
            "it is a web page or another text" if path.read_bytes()[:1] == b"<" else "it is cut, damaged or no workbook"
        )
        raise TableError(
            f"{path} cannot be read as a workbook: {hint}; save it again as .xlsx, or set input.format"
        ) from None
    while rows and not any(cell not in ("", None) for cell in rows[-1]) and not unread.in_row(len(rows)):
        rows.pop()
    if not rows:
        raise TableError(f"{path}: sheet {name!r} is empty; its first row must name the columns")
    if _width(rows[0]) != len(rows[0]):
        width = max(map(_width, rows))
        rows = [row[:width] for row in rows]
    return RawTable([cell_text(cell) for cell in rows[0]], rows[1:], "xlsx", warnings=unread.warnings())


def _width(row: Sequence[Any]) -> int:
    return max((place for place, cell in enumerate(row, start=1) if cell not in ("", None)), default=0)


def _beside(path: Path) -> str:
    """A file that lies where this one does not, and may be meant."""
    names = [one.name for one in path.parent.iterdir()] if path.parent.is_dir() else []
    near = nearest(path.name, sorted(names))
    return f", but {near[0]} does" if near else ""


def _sheet_name(path: Path, workbook: calamine.CalamineWorkbook, wanted: str | int | None) -> str:
    names = workbook.sheet_names
    hidden = {sheet.name for sheet in workbook.sheets_metadata if sheet.visible != calamine.SheetVisibleEnum.Visible}
    shown = {name: f"{name!r}{' (hidden)' if name in hidden else ''}" for name in names}
    listed = ", ".join(shown.values())
    if isinstance(wanted, int):
        if not 1 <= wanted <= len(names):
            raise TableError(
                f"{path}: input.sheet is {wanted}, but the workbook has {counted(len(names), 'sheet')}: {listed}"
            )
        return names[wanted - 1]
    if wanted:
        if wanted not in names:
            marked = ", ".join(f"{told}{case_mark(wanted, name)}" for name, told in shown.items())
            raise TableError(f"{path} has no sheet {wanted!r}; it has: {marked}")
        return wanted
    if len(names) != 1:
        raise TableError(f"{path} has several sheets ({listed}); name one in input.sheet")
    return names[0]


def read_jsonl(path: Path, settings: Input) -> RawTable:
    """One JSON object per line. Columns in the order in which they are first seen; an absent one is nothing."""
    records = list(_objects(path, settings.encoding))
    columns = list(dict.fromkeys(name for record in records for name in record))
    if not columns:
        raise TableError(f"{path}: the file holds no record; each line must be a JSON object")
    return RawTable(columns, ([record.get(name) for name in columns] for record in records), "jsonl")


def _objects(path: Path, encoding: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(read_table_text(path, encoding).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line, parse_float=Decimal, object_pairs_hook=_once_each)
        except json.JSONDecodeError as broken:
            hint = "; a JSON array is no JSON Lines: write one object per line" if line.lstrip()[0] == "[" else ""
            raise TableError(
                f"{path}: line {number} is not JSON: {broken.msg} at column {broken.colno}{hint}"
            ) from None
        except (ValueError, ArithmeticError, RecursionError) as broken:
            reason = str(broken) if isinstance(broken, _RepeatedKeyError) else "a number or its nesting has no end"
            raise TableError(f"{path}: line {number} is not JSON: {reason}") from None
        if not isinstance(record, dict):
            kind = {list: "a JSON array", str: "a text", bool: "true or false"}.get(type(record), "a single value")
            raise TableError(f"{path}: line {number} holds {kind}, not an object; write one object per line")
        yield record


class _RepeatedKeyError(ValueError):
    pass


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) != len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise _RepeatedKeyError(f"the key {repeated!r} occurs twice in one object")
    return record


def read_parquet(path: Path, settings: Input) -> RawTable:
    """A Parquet file."""
    # Arrow takes 40 MB and a third of a second, which only its own files should cost.
    from llmbatch_assets.adapters.tables.parquet_file import read_parquet_file

    return read_parquet_file(path)


READERS: dict[str, Callable[[Path, Input], RawTable]] = {
    "csv": _delimited("csv", ","),
    "psv": _delimited("psv", "|"),
    "tsv": _delimited("tsv", "\t"),
    "xlsx": read_xlsx,
    "jsonl": read_jsonl,
    "parquet": read_parquet,
}
