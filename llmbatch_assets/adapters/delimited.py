"""Delimited tables: csv, tsv, psv."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

from llmbatch_assets.adapters.text_files import read_table_text
from llmbatch_assets.domain.parameters import Input
from llmbatch_assets.domain.table import RawTable
from llmbatch_assets.errors import TableError

# The csv module's own limit of 131,072 characters per cell is below what a cell with a document in it holds.
csv.field_size_limit(2**31 - 1)

_OTHER_DELIMITERS = {
    ";": "input.delimiter: ;",
    "\t": "input.format: tsv",
    "|": "input.format: psv",
    ",": "input.format: csv",
}
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_PIPE = re.compile(r"(?<!\\)((?:\\\\)*)\|")


def read_delimited(path: Path, settings: Input, file_format: str, delimiter: str) -> RawTable:
    """A delimited file. Raises ``TableError`` with row or line."""
    text = read_table_text(path, settings.encoding)
    if file_format == "psv" and not _is_quoted(text):
        records = _escaped_records(text)
    else:
        records = _quoted_records(path, text, delimiter)
    header = next(records, None)
    if header is None:
        raise TableError(f"{path}: the file is empty; its first line must name the columns")
    _check_delimiter(path, header, delimiter)
    return RawTable(header, _even_rows(path, records, len(header), delimiter), file_format, delimiter)


def _is_quoted(text: str) -> bool:
    """Whether cells are quoted as in csv. Our own psv files are not: they escape with backslashes."""
    return re.search(r'(?:\A|[|\n])"', text) is not None


def _quoted_records(path: Path, text: str, delimiter: str) -> Iterator[list[str]]:
    # Quoted line breaks reach the cell only if the text is handed over with them. Bytes, since a StringIO takes four
    # for every character.
    lines = io.TextIOWrapper(io.BytesIO(text.encode("utf-8", "surrogatepass")), "utf-8", "surrogatepass", newline="")
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    begun = 1
    try:
        for record in reader:
            begun = reader.line_num + 1
            if record:
                yield record
    except csv.Error as broken:
        unclosed = "a quote is not closed" if "unexpected end" in str(broken) else str(broken)
        raise TableError(f"{path}: in the row that begins on line {begun}: {unclosed}") from None


def _escaped_records(text: str) -> Iterator[list[str]]:
    r"""Lines in which a backslash keeps the next character from meaning anything: ``\|``, ``\\``, ``\n``."""
    for line in text.splitlines() if "\r" in text else text.split("\n"):
        if line:
            yield [_ESCAPED.sub(_unescape, cell) for cell in _PIPE.sub("\\1\0", line).split("\0")]


def _unescape(found: re.Match[str]) -> str:
    return _ESCAPES.get(found.group(1), found.group(1))


def _check_delimiter(path: Path, header: list[str], delimiter: str) -> None:
    if len(header) != 1:
        return
    for other, setting in _OTHER_DELIMITERS.items():
        if other != delimiter and other in header[0]:
            raise TableError(
                f"{path}: the only column is named {header[0]!r}, which holds {other!r}; "
                f"if that separates columns, set {setting}"
            )


def _even_rows(path: Path, records: Iterator[list[str]], width: int, delimiter: str) -> Iterator[list[str]]:
    for number, record in enumerate(records, start=1):
        cells = record if len(record) == width else _rejoined(record, delimiter)
        if len(cells) != width:
            raise TableError(
                f"{path}: row {number} has {len(record)} cells, the header has {width}; it begins {record[0][:60]!r}. "
                f"Quote cells that hold {delimiter!r}"
            )
        yield cells


def _rejoined(record: list[str], delimiter: str) -> list[str]:
    """The cells with those put together again that were parted at an escaped delimiter."""
    cells: list[str] = []
    open_cell = False
    for part in record:
        if open_cell:
            cells[-1] = cells[-1][:-1] + delimiter + part
        else:
            cells.append(part)
        open_cell = (len(part) - len(part.rstrip("\\"))) % 2 == 1
    return cells
