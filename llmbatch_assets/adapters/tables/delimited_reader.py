"""Read csv, tsv and psv files, and decode text files."""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from llmbatch_assets.adapters.tables.cell_escapes import unescape_cell
from llmbatch_assets.adapters.tables.dialects import (
    Dialect,
    escapes_quotes,
    has_plain_quotes,
    merges_lines,
    other_dialect,
)
from llmbatch_assets.domain.configuration.input_blocks import Input
from llmbatch_assets.domain.export.columns import EXPORT_MARK
from llmbatch_assets.domain.items.cell import EscapedCell
from llmbatch_assets.domain.items.header import SAMPLE_ROWS, NumberedRow, header_advice, width_advice
from llmbatch_assets.domain.items.table import RawTable
from llmbatch_assets.domain.text import counted
from llmbatch_assets.errors import TableError

# The csv module's default limit of 131,072 characters per cell is too low for cells that hold a document.
csv.field_size_limit(2**31 - 1)

# UTF-32 comes first: its little-endian mark starts with that of UTF-16.
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# Other file types that often have the extension of a text table, by their first bytes.
_OTHER_KINDS = {
    rb"PK\x03\x04|\xd0\xcf\x11\xe0": "a workbook; set input.format: xlsx",
    rb"PAR1": "a Parquet file; set input.format: parquet",
    rb"\x1f\x8b": "a compressed file; unpack it first",
    rb"\s*<(?i:!doctype html|html|head|body)": "a web page (HTML), perhaps a login page; download the table again",
    rb"version https://git-lfs": "a git-lfs pointer; fetch the file with: git lfs pull",
}


def read_table_text(path: Path, encoding: str) -> str:
    """Decode a file without trying other encodings. Raises ``TableError`` with byte and line."""
    content = path.read_bytes()
    for beginning, kind in _OTHER_KINDS.items():
        if re.match(beginning, content[:200]):
            raise TableError(f"{path} is {kind}")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = len(re.findall(rb"\r\n|\r|\n", content[: error.start])) + 1
        problem = f"byte {error.start} (line {line}) is not {encoding}; no other encoding was tried"
    else:
        if "\0" not in text:
            return text.removeprefix("\ufeff")
        line = text.count("\n", 0, text.index("\0")) + 1
        problem = f"line {line} holds a NUL character, so this is not a text file in {encoding}"
    raise TableError(f"{path}: {problem}{_encoding_hint(content)}; set input.encoding or save the file as UTF-8")


def _encoding_hint(content: bytes) -> str:
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if content.startswith(mark):
            return f" (it starts with the byte order mark of {encoding})"
    zeros = content[:200].count(0)
    return " (every other byte is zero, as in utf-16)" if zeros and zeros * 3 > len(content[:200]) else ""


# Reading.

_OTHER_DELIMITERS = {
    ";": "input.delimiter: ;",
    "\t": "input.format: tsv",
    "|": "input.format: psv",
    ",": "input.format: csv",
}
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}
_ESCAPED = re.compile(r"\\(u[0-9a-f]{4}|.)", re.DOTALL)
_LINE_BREAK = re.compile(r"\r\n|\r|\n")
_DELIMITER_LINE = re.compile(r"sep=(.)(?:\r\n|\r|\n)", re.IGNORECASE)
_QUOTED_CELL = re.compile(r'(?:\A|[\n\r]|(?<!\\)(?:\\\\)*\|)"')
_NO_ESCAPE = re.compile(r'(?<!\\)(?:\\\\)*\\(?![\\|nrt"]|u[0-9a-f]{4})')
_NO_PLAIN_ESCAPE = re.compile(r'(?<!\\)(?:\\\\)*\\(?![\\|"])')
_UNESCAPED_PIPE = re.compile(r"(?<!\\)((?:\\\\)*)\|")
_MIN_COLUMNS_OF_PLAIN_TSV = 3

Record = tuple[int, list[str]]


def read_delimited(file_format: str, delimiter: str, path: Path, settings: Input) -> RawTable:
    """Read a delimited file. Raises ``TableError`` with row and line."""
    text, first_line = read_table_text(path, settings.encoding), 1
    if delimiter_line := _DELIMITER_LINE.match(text):
        # "sep=;" on the first line is Excel's declaration of the delimiter, not a row.
        text, first_line = text[delimiter_line.end() :], 2
        delimiter = delimiter_line.group(1)
    n_left_out = max(0, settings.n_rows_above_header + 1 - first_line)
    if n_left_out:
        line_end = next(islice(_LINE_BREAK.finditer(text), n_left_out - 1, None), None)
        text, first_line = text[line_end.end() :] if line_end else "", first_line + n_left_out
    dialect = Dialect(settings.delimiter or delimiter, settings.quoting, settings.escape)
    return _TextTable(path, text, dialect, first_line).read(file_format, settings)


class _TextTable:
    """The text of a delimited table, starting with the header."""

    def __init__(self, path: Path, text: str, dialect: Dialect, first_line: int) -> None:
        self._path = path
        self._text = text
        self._dialect = dialect
        self._delimiter = dialect.delimiter
        self._first_line = first_line
        self._width = 0
        self._warnings: list[str] = []

    def read(self, file_format: str, settings: Input) -> RawTable:
        has_escapes = (file_format, self._delimiter) == ("psv", "|") and self._dialect.may_be_another
        records = self._escaped_records() if has_escapes and _uses_escapes(self._text) else self._quoted_records()
        skipped = settings.skipped_row_numbers
        records = (record for record in records if record[0] not in skipped) if skipped else records
        header = self._header(records, settings)
        rows = self._rows(records)
        if file_format != "psv" and EXPORT_MARK in header:
            # One of our exports, with escaped cells.
            header, rows = list(map(unescape_cell, header)), (list(map(unescape_cell, row)) for row in rows)
        return RawTable(header, rows, file_format, self._warnings)

    def _header(self, records: Iterator[Record], settings: Input) -> list[str]:
        line, header = next(records, (0, []))
        header_row = settings.header_row
        if header_row and line != header_row:
            raise TableError(
                f"{self._path}: line {header_row} is blank or missing; set input.header_row to the line of the column names"
            )
        if not header or (len(header) == 1 and not header[0].strip()):
            emptied = "input.skip_rows skips every line" if settings.skip_rows and not header else "the file is empty"
            raise TableError(f"{self._path}: {emptied}; its first line must name the columns")
        self._width = len(header)
        _check_delimiter(self._path, header, self._delimiter)
        self._check_names(header)
        comments = [row.number for row in self._sample()[:2] if str(row.cells[0]).startswith("#")]
        if len(comments) > 1:
            self._warnings.append(
                f"lines {comments[0]} and {comments[1]} start with #, and the first is read as the header; if they are "
                "comments, set input.header_row to the line of the column names"
            )
        return header

    def _check_names(self, header: list[str]) -> None:
        unnamed = [place for place, name in enumerate(header, start=1) if not name.strip()]
        if not unnamed:
            return
        advice = header_advice(self._sample(), "line")
        if not advice and unnamed == [len(header)]:
            advice = f"the header ends with {self._delimiter!r}, which can be removed if all rows end with it"
        if advice:
            raise TableError(f"{self._path}: column {unnamed[0]} has no name; name it in the header line; {advice}")

    def _sample(self) -> list[NumberedRow]:
        """Return the first lines as rows, with any number of cells."""
        lines = _LINE_BREAK.split(self._text, maxsplit=SAMPLE_ROWS)[:SAMPLE_ROWS]
        cells = (next(csv.reader([line], delimiter=self._delimiter), []) for line in lines)
        return [NumberedRow(number, row) for number, row in enumerate(cells, start=self._first_line) if row]

    def _quoted_records(self) -> Iterator[Record]:
        """Yield each record with the number of the line on which it begins."""
        line = self._first_line
        is_checked = not self._dialect.may_be_another
        try:
            for n_lines, record in self._dialect.records(self._text):
                next_line = self._first_line + n_lines
                if not is_checked and next_line - line > 1 and self._width:
                    is_checked = True
                    self._check_merged(line, next_line - 1)
                if record:
                    yield line, record
                line = next_line
        except csv.Error as error:
            reason = "a quote is not closed" if "unexpected end" in str(error) else str(error)
            remedy = "double each quote inside a quoted cell, and quote cells that start with a quote"
            raise TableError(
                f"{self._path}: in the row that begins on line {line}: {reason}; {self._other_dialect() or remedy}"
            ) from None

    def _check_merged(self, first: int, last: int) -> None:
        """Check a cell that spans lines. If each line is a complete row, the quotes may be plain text."""
        if not merges_lines(self._text, self._width, self._delimiter):
            return
        problem = (
            f"lines {first} to {last} are read as one row, because a cell starts with a quote, but each line has "
            f"{self._width} cells by itself; if quotes are plain text, set input.quoting: none, otherwise "
            "input.quoting: quoted"
        )
        is_plain_tsv = self._delimiter == "\t" and self._width >= _MIN_COLUMNS_OF_PLAIN_TSV
        if is_plain_tsv or has_plain_quotes(self._text, self._delimiter):
            raise TableError(f"{self._path}: {problem}")
        self._warnings.append(problem)

    def _escaped_records(self) -> Iterator[Record]:
        lines = _LINE_BREAK.split(self._text) if "\r" in self._text else self._text.split("\n")
        for number, line in enumerate(lines, start=self._first_line):
            if line:
                cells = _UNESCAPED_PIPE.sub("\\1\0", line).split("\0")
                yield number, [_ESCAPED.sub(_unescaped, cell) for cell in cells]

    def _rows(self, records: Iterator[Record]) -> Iterator[list[str]]:
        for number, (line, record) in enumerate(records, start=1):
            cells = record if len(record) == self._width else self._rejoined(line, record)
            if len(cells) != self._width:
                raise TableError(
                    f"{self._path}: line {line}: row {number} has {counted(len(record), 'cell')}, the header has "
                    f"{self._width}; it begins {record[0][:60]!r}. {self._advice(record)}"
                )
            yield cells

    def _rejoined(self, line: int, record: list[str]) -> list[str]:
        """Join cells that were split at an escaped delimiter."""
        if self._dialect.escape != "auto":
            return record
        parts: list[list[str]] = []
        is_open = False
        for part in record:
            if is_open:
                parts[-1].append(part)
            else:
                parts.append([part])
            is_open = (len(part) - len(part.rstrip("\\"))) % 2 == 1
        mark = self._delimiter
        cells = [EscapedCell.of(mark.join(cell), mark) if len(cell) > 1 else cell[0] for cell in parts]
        joined = "".join(cell for cell in cells if isinstance(cell, EscapedCell))
        if self._dialect.may_be_another and escapes_quotes(self._text, joined, self._width, self._delimiter):
            raise TableError(f"{self._path}: line {line}: {self._other_dialect()}")
        return cells

    def _advice(self, record: list[str]) -> str:
        advice = self._other_dialect() or header_advice(self._sample(), "line")
        return advice[:1].upper() + advice[1:] or width_advice(record, self._width, self._delimiter)

    def _other_dialect(self) -> str:
        if not self._dialect.may_be_another or not self._width:
            return ""
        return other_dialect(self._text, self._width, self._delimiter, self._first_line)


def _uses_escapes(text: str) -> bool:
    """Return whether cells are escaped with backslashes, as in our own psv files, and not quoted as in csv.

    A backslash before n, r or t may also be part of a Windows path. It is a line break or tab only in our own exports, which
    are recognized by their header.
    """
    if _QUOTED_CELL.search(text):
        return False
    is_export = EXPORT_MARK in text[: text.find("\n")].split("|")
    return not (_NO_ESCAPE if is_export else _NO_PLAIN_ESCAPE).search(text)


def _unescaped(found: re.Match[str]) -> str:
    escaped = found.group(1)
    return chr(int(escaped[1:], 16)) if len(escaped) > 1 else _ESCAPES.get(escaped, escaped)


def _check_delimiter(path: Path, header: list[str], delimiter: str) -> None:
    if len(header) != 1:
        return
    for other, setting in _OTHER_DELIMITERS.items():
        if other != delimiter and other in header[0]:
            raise TableError(
                f"{path}: the only column is named {header[0]!r}, which contains {other!r}; "
                f"if that is the delimiter, set {setting}"
            )
