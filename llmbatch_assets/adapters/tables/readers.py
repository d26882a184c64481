"""The table formats that can be read: one function per format, each returning a header and rows of cells."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from llmbatch_assets.adapters.tables.delimited import read_delimited
from llmbatch_assets.adapters.tables.records import read_records
from llmbatch_assets.domain.items.table import RawTable
from llmbatch_assets.domain.parameters import Input
from llmbatch_assets.domain.text import nearest
from llmbatch_assets.errors import TableError

_FORMAT_OF_SUFFIX = {"txt": "csv", "ndjson": "jsonl", "xlsm": "xlsx", "pq": "parquet"}


def _xlsx(path: Path, settings: Input) -> RawTable:
    # Imported here: runs that do not need it must not wait for it. The same holds for Arrow below.
    from llmbatch_assets.adapters.tables.workbook import read_workbook

    return read_workbook(path, settings)


def _parquet(path: Path, settings: Input) -> RawTable:
    from llmbatch_assets.adapters.tables.parquet import read_parquet

    return read_parquet(path)


READERS: dict[str, Callable[[Path, Input], RawTable]] = {
    "csv": partial(read_delimited, "csv", ","),
    "psv": partial(read_delimited, "psv", "|"),
    "tsv": partial(read_delimited, "tsv", "\t"),
    "xlsx": _xlsx,
    "jsonl": read_records,
    "parquet": _parquet,
}


def read_table(path: Path, settings: Input) -> RawTable:
    """Read the table in the file. Raises ``TableError``, with row and column where there is one."""
    file_format = _format_of(path, settings)
    try:
        if not path.is_file():
            problem = "is a folder" if path.is_dir() else f"does not exist{_similar_file(path)}"
            raise TableError(f"{path} {problem}; set input.path to your table")
        return READERS[file_format](path, settings)
    except OSError as error:
        raise TableError(f"{path} cannot be read: {error.strerror or error}; set input.path to your table") from None


def _format_of(path: Path, settings: Input) -> str:
    if settings.format != "auto":
        return settings.format
    suffix = path.suffix.lower().removeprefix(".")
    file_format = _FORMAT_OF_SUFFIX.get(suffix, suffix)
    if file_format not in READERS:
        raise TableError(f"{path}: the format is not clear from the suffix; set input.format to {', '.join(READERS)}")
    return file_format


def _similar_file(path: Path) -> str:
    names = [one.name for one in path.parent.iterdir()] if path.parent.is_dir() else []
    similar = nearest(path.name, sorted(names))
    return f", but {similar[0]} does" if similar else ""
