"""Delimited tables: csv, tsv, psv."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llmbatch_assets.adapters.tables.text_files import read_table_text
from llmbatch_assets.domain.export.columns import EXPORT_MARK
from llmbatch_assets.domain.export.formula import original
from llmbatch_assets.domain.items.cell import EscapedCell
from llmbatch_assets.domain.items.table import RawTable
from llmbatch_assets.domain.parameters import Input
from llmbatch_assets.domain.text import counted
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
_LINE_BREAK = re.compile(r"\r\n|\r|\n")
_ANNOUNCED = re.compile(r"sep=(.)(?:\r\n|\r|\n)", re.IGNORECASE)
_QUOTED_CELL = re.compile(r'(?:\A|[\n\r]|(?<!\\)(?:\\\\)*\|)"')
_NO_ESCAPE = re.compile(r'(?<!\\)(?:\\\\)*\\(?![\\|nrt"])')
_NO_PLAIN_ESCAPE = re.compile(r'(?<!\\)(?:\\\\)*\\(?![\\|"])')
_PIPE = re.compile(r"(?<!\\)((?:\\\\)*)\|")


def read_delimited(path: Path, settings: Input, file_format: str, delimiter: str) -> RawTable:
    """A delimited file. Raises ``TableError`` with row and line."""
    text = read_table_text(path, settings.encoding)
    announced = _ANNOUNCED.match(text)
    if announced:
        # Excel's first line, which says what separates columns and is no row.
        text = text[announced.end() :]
        delimiter = settings.delimiter or announced.group(1)
    lines = _Lines(above=1 if announced else 0)
    if (file_format, delimiter) == ("psv", "|") and _has_escapes(text):
        records = _escaped_records(text, lines)
    else:
        records = _quoted_records(path, text, delimiter, lines)
    header = next(records, None)
    if header is None or (len(header) == 1 and not header[0].strip()):
        raise TableError(f"{path}: the file is empty; its first line must name the columns")
    _check_delimiter(path, header, delimiter)
    rows = _even_rows(path, records, len(header), delimiter, lines)
    if file_format != "psv" and EXPORT_MARK in header:
        # One of our exports: what was done to keep a spreadsheet from running its cells is undone.
        header, rows = list(map(original, header)), (list(map(original, row)) for row in rows)
    return RawTable(header, rows, file_format)


@dataclass
class _Lines:
    """The line on which the latest record begins, from 1, after the lines ``above`` the header."""

    above: int
    begun: int = 1


def _has_escapes(text: str) -> bool:
    """Whether cells are written with backslashes, as in our own psv files, and not with quotes as in csv.

    A backslash before n, r or t can also stand in somebody's path: only in our exports, which the header tells, it is a
    line break or a tab.
    """
    if _QUOTED_CELL.search(text):
        return False
    ours = EXPORT_MARK in text[: text.find("\n")].split("|")
    return not (_NO_ESCAPE if ours else _NO_PLAIN_ESCAPE).search(text)


def _quoted_records(path: Path, text: str, delimiter: str, lines: _Lines) -> Iterator[list[str]]:
    # Quoted line breaks reach the cell only if the text is handed over with them. Bytes, since a StringIO takes four
    # for every character.
    source = io.TextIOWrapper(io.BytesIO(text.encode("utf-8", "surrogatepass")), "utf-8", "surrogatepass", newline="")
    reader = csv.reader(source, delimiter=delimiter, strict=True)
    following = lines.above + 1
    try:
        for record in reader:
            lines.begun, following = following, lines.above + reader.line_num + 1
            if record:
                yield record
    except csv.Error as broken:
        unclosed = "a quote is not closed" if "unexpected end" in str(broken) else str(broken)
        raise TableError(
            f"{path}: in the row that begins on line {following}: {unclosed}; a quote inside a quoted cell is doubled, and "
            "a cell that begins with one is quoted"
        ) from None


def _escaped_records(text: str, lines: _Lines) -> Iterator[list[str]]:
    r"""Lines in which a backslash keeps the next character from meaning anything: ``\|``, ``\\``, ``\n``."""
    for number, line in enumerate(_LINE_BREAK.split(text) if "\r" in text else text.split("\n"), start=1 + lines.above):
        if line:
            lines.begun = number
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


def _even_rows(
    path: Path, records: Iterator[list[str]], width: int, delimiter: str, lines: _Lines
) -> Iterator[list[str]]:
    for number, record in enumerate(records, start=1):
        cells = record if len(record) == width else _rejoined(record, delimiter)
        if len(cells) != width:
            advice = (
                f"Quote cells that hold {delimiter!r}"
                if len(cells) > width
                else "Add what is missing, or put quotes around a cell that holds a line break"
            )
            raise TableError(
                f"{path}: line {lines.begun}: row {number} has {counted(len(record), 'cell')}, the header has {width}; it begins "
                f"{record[0][:60]!r}. {advice}"
            )
        yield cells


def _rejoined(record: list[str], delimiter: str) -> list[str]:
    """The cells with those put together again that were parted at an escaped delimiter."""
    cells: list[str] = []
    open_cell = False
    for part in record:
        if open_cell:
            cells[-1] = EscapedCell.of(f"{cells[-1]}{delimiter}{part}", delimiter)
        else:
            cells.append(part)
        open_cell = (len(part) - len(part.rstrip("\\"))) % 2 == 1
    return cells
