"""Input tables: one function per format."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from pathlib import Path

from llmbatch_assets.domain.parameters import Input
from llmbatch_assets.domain.table import RawTable
from llmbatch_assets.errors import TableError

# The csv module's own limit of 131,072 characters per cell is below what a cell with a document in it holds.
csv.field_size_limit(2**31 - 1)

_DELIMITERS = {"csv": ",", "psv": "|", "tsv": "\t"}


def read_table(path: Path, settings: Input) -> RawTable:
    """The table in the file. Raises ``TableError`` with row and column where there is one."""
    file_format = _format_of(path, settings)
    if not path.is_file():
        raise TableError(f"{path} does not exist; set input.path to your table")
    return READERS[file_format](path, settings)


def _format_of(path: Path, settings: Input) -> str:
    if settings.format != "auto":
        return settings.format
    suffix = path.suffix.lower().removeprefix(".")
    if suffix not in READERS:
        raise TableError(f"{path}: the format cannot be told from the suffix; set input.format to {', '.join(READERS)}")
    return suffix


def _delimited(file_format: str) -> Callable[[Path, Input], RawTable]:
    delimiter = _DELIMITERS[file_format]

    def read(path: Path, settings: Input) -> RawTable:
        text = _decoded(path, settings.encoding)
        records = _records(path, text, delimiter)
        header = next(records, None)
        if header is None:
            raise TableError(f"{path}: the file is empty; its first line must name the columns")
        return RawTable(header, _even_rows(path, records, len(header), delimiter), file_format, delimiter)

    return read


def _decoded(path: Path, encoding: str) -> str:
    try:
        text = path.read_bytes().decode("utf-8-sig" if encoding.lower() in ("utf-8", "utf8") else encoding)
    except UnicodeDecodeError as broken:
        raise TableError(f"{path}: byte {broken.start} is not {encoding}; set input.encoding") from None
    except OSError as broken:
        raise TableError(f"{path}: {broken.strerror}") from None
    if "\0" in text:
        raise TableError(f"{path}: line {text.count(chr(10), 0, text.index(chr(0))) + 1} holds a NUL character")
    return text


def _records(path: Path, text: str, delimiter: str) -> Iterator[list[str]]:
    # Quotes keep their line breaks only if the text is handed over with them.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        yield from (record for record in reader if record)
    except csv.Error as broken:
        raise TableError(f"{path}: line {reader.line_num}: {broken}") from None


def _even_rows(path: Path, records: Iterator[list[str]], width: int, delimiter: str) -> Iterator[list[str]]:
    for number, found in enumerate(records, start=1):
        record = _rejoined(found, delimiter) if len(found) > width else found
        if len(record) != width:
            raise TableError(f"{path}: row {number} has {len(record)} cells, the header has {width}")
        yield record


def _rejoined(record: list[str], delimiter: str) -> list[str]:
    """The cells of a row that is too wide, split no more where a backslash stands before the delimiter."""
    cells = record[:1]
    for cell in record[1:]:
        if cells[-1].endswith("\\"):
            cells[-1] += delimiter + cell
        else:
            cells.append(cell)
    return cells


READERS: dict[str, Callable[[Path, Input], RawTable]] = {name: _delimited(name) for name in _DELIMITERS}
