r"""Delimited tables: csv, tsv, psv. Also the decoding of text files.

Our psv files escape with backslashes instead of quotes: ``\|``, ``\\``, ``\n``, ``\u001b``. A record is always one line.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from llmbatch_assets.adapters.tables.cell_escapes import (
    escape_cell_controls,
    escape_formula,
    escape_marked_formula,
    unescape_cell,
)
from llmbatch_assets.adapters.tables.export_file import ExportFile, WriteRows
from llmbatch_assets.domain.configuration.input_blocks import Input
from llmbatch_assets.domain.export.columns import EXPORT_MARK, Cell, cell_text
from llmbatch_assets.domain.items.cell import EscapedCell
from llmbatch_assets.domain.items.table import RawTable
from llmbatch_assets.domain.text import counted, escape_controls
from llmbatch_assets.errors import TableError

# The csv module's default limit of 131,072 characters per cell is too low for cells that hold a document.
csv.field_size_limit(2**31 - 1)

_BOM = "\ufeff"
# UTF-32 comes first: its little-endian mark starts with that of UTF-16.
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# Other kinds of files that are often saved under a table's name, by their first bytes.
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
            return text.removeprefix(_BOM)
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


def read_delimited(file_format: str, delimiter: str, path: Path, settings: Input) -> RawTable:
    """Read a delimited file. Raises ``TableError`` with row and line."""
    text, delimiter = read_table_text(path, settings.encoding), settings.delimiter or delimiter
    delimiter_line = _DELIMITER_LINE.match(text)
    if delimiter_line:
        # Excel's first line, which names the delimiter and is not a row.
        text = text[delimiter_line.end() :]
        delimiter = settings.delimiter or delimiter_line.group(1)
    first_line = 2 if delimiter_line else 1
    if (file_format, delimiter) == ("psv", "|") and _uses_escapes(text):
        records = _escaped_records(text, first_line)
    else:
        records = _quoted_records(path, text, delimiter, first_line)
    _, header = next(records, (first_line, []))
    if not header or (len(header) == 1 and not header[0].strip()):
        raise TableError(f"{path}: the file is empty; its first line must name the columns")
    _check_delimiter(path, header, delimiter)
    rows = _rows_of_width(len(header), path, records, delimiter)
    if file_format != "psv" and EXPORT_MARK in header:
        # One of our exports, with escaped cells.
        header, rows = list(map(unescape_cell, header)), (list(map(unescape_cell, row)) for row in rows)
    return RawTable(header, rows, file_format)


def _uses_escapes(text: str) -> bool:
    """Return whether cells are escaped with backslashes, as in our own psv files, and not quoted as in csv.

    A backslash before n, r or t may also be part of a Windows path. It is a line break or tab in our exports only, which
    the header identifies.
    """
    if _QUOTED_CELL.search(text):
        return False
    is_export = EXPORT_MARK in text[: text.find("\n")].split("|")
    return not (_NO_ESCAPE if is_export else _NO_PLAIN_ESCAPE).search(text)


def _quoted_records(path: Path, text: str, delimiter: str, first_line: int) -> Iterator[tuple[int, list[str]]]:
    """Yield each record with the number of the line on which it begins."""
    # newline="" keeps quoted line breaks. Bytes, because a StringIO takes four of them for each character.
    source = io.TextIOWrapper(io.BytesIO(text.encode("utf-8", "surrogatepass")), "utf-8", "surrogatepass", newline="")
    reader = csv.reader(source, delimiter=delimiter, strict=True)
    line = first_line
    try:
        for record in reader:
            if record:
                yield line, record
            line = first_line + reader.line_num
    except csv.Error as error:
        reason = "a quote is not closed" if "unexpected end" in str(error) else str(error)
        raise TableError(
            f"{path}: in the row that begins on line {line}: {reason}; double each quote inside a quoted cell, and "
            "quote cells that start with a quote"
        ) from None


def _escaped_records(text: str, first_line: int) -> Iterator[tuple[int, list[str]]]:
    lines = _LINE_BREAK.split(text) if "\r" in text else text.split("\n")
    for number, line in enumerate(lines, start=first_line):
        if line:
            yield number, [_ESCAPED.sub(_unescaped, cell) for cell in _UNESCAPED_PIPE.sub("\\1\0", line).split("\0")]


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


def _rows_of_width(
    width: int, path: Path, records: Iterator[tuple[int, list[str]]], delimiter: str
) -> Iterator[list[str]]:
    for number, (line, record) in enumerate(records, start=1):
        cells = record if len(record) == width else _rejoined(record, delimiter)
        if len(cells) != width:
            remedy = (
                f"Quote cells that contain {delimiter!r}"
                if len(cells) > width
                else "Add the missing cells, or quote a cell that contains a line break"
            )
            raise TableError(
                f"{path}: line {line}: row {number} has {counted(len(record), 'cell')}, the header has {width}; it "
                f"begins {record[0][:60]!r}. {remedy}"
            )
        yield cells


def _rejoined(record: list[str], delimiter: str) -> list[str]:
    """Join cells that were split at a delimiter with a backslash in front."""
    cells: list[str] = []
    is_open = False
    for part in record:
        if is_open:
            cells[-1] = EscapedCell.of(f"{cells[-1]}{delimiter}{part}", delimiter)
        else:
            cells.append(part)
        is_open = (len(part) - len(part.rstrip("\\"))) % 2 == 1
    return cells


# Writing.

_PSV_ESCAPES = str.maketrans({"\\": "\\\\", "|": "\\|", "\n": "\\n", "\r": "\\r", "\t": "\\t"})


@contextmanager
def export_delimited(delimiter: str, export: ExportFile) -> Iterator[WriteRows]:
    buffer = io.StringIO(newline="")
    # Before Python 3.13 the writer quotes a lone carriage return only if its own line end contains one.
    writer = csv.writer(buffer, delimiter=delimiter, lineterminator="\r\n")
    escape = escape_formula if export.escape_formulas else escape_marked_formula

    def put(rows: Iterable[Sequence[Cell]]) -> None:
        for cells in rows:
            texts = [export.representable(cell_text(cell), escape_cell_controls) for cell in cells]
            escaped = [escape(text) for text in texts]
            if escaped != texts:
                export.changes["formulas_escaped"] += sum(map(str.__ne__, escaped, texts))
            writer.writerow(escaped)
            export.put(buffer.getvalue().removesuffix("\r\n") + "\n")
            buffer.seek(0)
            buffer.truncate()

    if export.csv_bom:
        export.put(_BOM)
    put([export.header])
    yield lambda rows: put(row.cells for row in rows)


@contextmanager
def export_psv(export: ExportFile) -> Iterator[WriteRows]:
    def lines(rows: Iterable[Sequence[Cell]]) -> str:
        return "".join("|".join(_psv_cell(cell_text(cell), export) for cell in cells) + "\n" for cells in rows)

    export.put(lines([export.header]))
    yield lambda rows: export.put(lines(row.cells for row in rows))


def _psv_cell(text: str, export: ExportFile) -> str:
    # A quote at the start would be read as the start of a quoted cell.
    start = "\\" if text.startswith('"') else ""
    return start + export.representable(text.translate(_PSV_ESCAPES), escape_controls)
