"""Read a sheet of an Excel workbook, and export workbooks. The same rows always give the same bytes."""

from __future__ import annotations

import datetime as dt
import math
import re
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext, suppress
from pathlib import Path
from shutil import copyfileobj
from typing import Any
from xml.sax.saxutils import escape

import python_calamine as calamine

from llmbatch_assets.adapters.tables.expansion import ExpansionLimit
from llmbatch_assets.adapters.tables.export_file import ExportFile, ExportRow, WriteRows
from llmbatch_assets.adapters.tables.workbook_parts import SheetNotes, WorkbookParts
from llmbatch_assets.domain.configuration.input_blocks import Input
from llmbatch_assets.domain.export.columns import Cell
from llmbatch_assets.domain.export.columns import cell_text as exported_text
from llmbatch_assets.domain.export.limits import XLSX_CHARS, XLSX_ROWS, require_columns_fit
from llmbatch_assets.domain.items.cell import cell_text
from llmbatch_assets.domain.items.header import SAMPLE_ROWS, NumberedRow, header_advice
from llmbatch_assets.domain.items.table import RawTable
from llmbatch_assets.domain.text import CUT_MARK, case_mark, counted, utf16_length
from llmbatch_assets.errors import TableError


def read_workbook(path: Path, settings: Input) -> RawTable:
    """Read a sheet of a workbook. Raises ``TableError``."""
    try:
        parts = WorkbookParts(path, ExpansionLimit(path, settings.max_expanded_mb))
        workbook = calamine.CalamineWorkbook.from_path(str(path))
        name = _sheet_name(path, workbook, settings.sheet)
        # Before the cells are read, because it limits their number.
        notes = parts.notes(name)
        rows = workbook.get_sheet_by_name(name).to_python(skip_empty_area=False)
    except calamine.PasswordError:
        raise TableError(f"{path} is protected by a password; save it without one") from None
    except (calamine.CalamineError, ValueError):
        is_text = path.read_bytes()[:1] == b"<"
        reason = "it is a web page or another text file" if is_text else "it is truncated, damaged or not a workbook"
        raise TableError(
            f"{path} cannot be read as a workbook: {reason}; save it again as .xlsx, or set input.format"
        ) from None
    _put_long_numbers(rows, notes)
    while len(rows) > notes.last_row and not _width(rows[-1]):
        rows.pop()
    if not rows:
        raise TableError(f"{path}: sheet {name!r} is empty; its first row must name the columns")
    header, *others = _rows_from_header(path, name, rows, settings)
    return RawTable(header, others, "xlsx", warnings=notes.warnings())


def _rows_from_header(path: Path, sheet: str, rows: Sequence[Sequence[Any]], settings: Input) -> list[Sequence[Any]]:
    """Return the rows that are read, starting with the column names."""
    skipped = settings.skipped_row_numbers
    numbered = [
        NumberedRow(number, row)
        for number, row in enumerate(rows[settings.n_rows_above_header :], start=settings.n_rows_above_header + 1)
        if number not in skipped
    ]
    if not numbered:
        raise TableError(
            f"{path}: sheet {sheet!r} has {counted(len(rows), 'row')}; correct input.header_row or skip_rows"
        )
    if _width(numbered[0].cells) != len(numbered[0].cells):
        width = max(_width(row.cells) for row in numbered)
        numbered = [NumberedRow(number, cells[:width]) for number, cells in numbered]
    names = [cell_text(cell) for cell in numbered[0].cells]
    unnamed = [place for place, name in enumerate(names, start=1) if not name.strip()]
    if unnamed and (advice := header_advice(numbered[:SAMPLE_ROWS], "row")):
        raise TableError(f"{path}: column {unnamed[0]} has no name; {advice}")
    return [names, *(row.cells for row in numbered[1:])]


def _put_long_numbers(rows: list[list[Any]], notes: SheetNotes) -> None:
    """Replace floats by the whole numbers in the file, since a float keeps only 15 to 17 digits."""
    for (row, column), number in notes.long_numbers.items():
        with suppress(IndexError):
            if rows[row][column] == float(number):
                rows[row][column] = number


def _width(row: Sequence[object]) -> int:
    return max((place for place, cell in enumerate(row, start=1) if cell not in ("", None)), default=0)


def _sheet_name(path: Path, workbook: calamine.CalamineWorkbook, wanted: str | int | None) -> str:
    names = workbook.sheet_names
    hidden = {sheet.name for sheet in workbook.sheets_metadata if sheet.visible != calamine.SheetVisibleEnum.Visible}
    labels = {name: f"{name!r}{' (hidden)' if name in hidden else ''}" for name in names}
    listed = ", ".join(labels.values())
    if isinstance(wanted, int):
        if not 1 <= wanted <= len(names):
            raise TableError(
                f"{path}: input.sheet is {wanted}, but the workbook has {counted(len(names), 'sheet')}: {listed}"
            )
        return names[wanted - 1]
    if wanted:
        if wanted not in names:
            marked = ", ".join(f"{label}{case_mark(wanted, name)}" for name, label in labels.items())
            raise TableError(f"{path} has no sheet {wanted!r}; its sheets are: {marked}")
        return wanted
    if len(names) != 1:
        raise TableError(f"{path} has several sheets ({listed}); name one in input.sheet")
    return names[0]


# Excel calculates with 15 digits.
_EXACT_INTEGERS = 10**15
_CREATED = dt.datetime(1980, 1, 1)
_SHEET = "output"
# xlsxwriter would write this as rich text, unescaped.
_RICH_TEXT = re.compile(r"\A<r>.*</r>\Z", re.DOTALL)
# xlsxwriter escapes control characters in Excel's way, but not these.
_NOT_IN_XML = re.compile("[\ud800-\udfff\ufffe\uffff]")
# Two texts that look like escaped characters and share an underscore: xlsxwriter escapes only one of them.
_OVERLAP = re.compile(r"(?<=_x[0-9a-fA-F]{4})(?=_x[0-9a-fA-F]{4}_)")


class WorkbookWriter:
    """Writes a workbook row by row. Numbers stay numbers; strings are never formulas or links.

    Counts the cells that were cut and the rows on further sheets as changes. Raises ``ConfigError`` if there are more
    columns than a sheet can have.
    """

    def __init__(self, export: ExportFile, max_rows: int = XLSX_ROWS) -> None:
        require_columns_fit(["xlsx"], export.columns)
        self._export = export
        self._max_rows = max_rows
        self._stack = ExitStack()

    def __enter__(self) -> WriteRows:
        import xlsxwriter

        # xlsxwriter stores rows here; the folder is removed even if the workbook is not finished.
        folder = self._stack.enter_context(tempfile.TemporaryDirectory())
        # On a full disk, the library would keep the export's file and write to it again after it is closed.
        self._path = Path(folder) / "export.xlsx"
        self._book = xlsxwriter.Workbook(str(self._path), {"constant_memory": True, "tmpdir": folder})
        self._book.set_properties({"created": _CREATED})
        self._begin_sheet(_SHEET)
        return self._add

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._stack, suppress(OSError) if kind else nullcontext():
            # Also after an error, because the library keeps files open until then.
            self._close()
            if kind is None:
                with self._path.open("rb") as written:
                    copyfileobj(written, self._export.file)

    def _close(self) -> None:
        from xlsxwriter.exceptions import FileCreateError

        try:
            self._book.close()
        except FileCreateError as error:
            # The library wraps the error of a full disk.
            raise next((one for one in error.args if isinstance(one, OSError)), error) from None

    def _begin_sheet(self, name: str) -> None:
        self._sheet = self._book.add_worksheet(name)
        # No limit here: ``_put`` cuts long texts, and markup may be longer than the text that it stands for.
        self._sheet.xls_strmax = sys.maxsize
        self._row = 0
        self._put_row(self._export.header)

    def _add(self, rows: Sequence[ExportRow]) -> None:
        """Write rows. If a sheet is full, they go to another one with the same header."""
        for row in rows:
            if self._row == self._max_rows:
                self._begin_sheet(f"{_SHEET} {len(self._book.worksheets()) + 1}")
            if self._sheet.get_name() != _SHEET:
                self._export.changes["rows_on_further_sheets"] += 1
            self._put_row(row.cells)
            self._export.count_rows(1)

    def _put_row(self, cells: Sequence[Cell]) -> None:
        for place, cell in enumerate(cells):
            self._put(place, cell)
        self._row += 1

    def _put(self, place: int, cell: Cell) -> None:
        if isinstance(cell, bool):
            self._sheet.write_boolean(self._row, place, cell)
        elif isinstance(cell, int | float) and _is_exact(cell):
            self._sheet.write_number(self._row, place, cell)
        elif cell not in (None, ""):
            text = self._export.representable(exported_text(cell), _without_invalid_characters)
            if len(text) > XLSX_CHARS // 2 and utf16_length(text) > XLSX_CHARS:
                text = _cut(text)
                self._export.changes["cut_at_32767_characters"] += 1
            is_misread = _RICH_TEXT.match(text) or _OVERLAP.search(text)
            self._sheet.write_string(self._row, place, _as_rich_text(text) if is_misread else text)


def _without_invalid_characters(text: str) -> str:
    r"""Write characters that XML cannot hold, except control characters, as ``\ufffe``."""
    return _NOT_IN_XML.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


def _as_rich_text(text: str) -> str:
    """Return the text as rich text without formatting, which xlsxwriter cannot misread."""
    return "".join(f'<r><t xml:space="preserve">{escape(part)}</t></r>' for part in _OVERLAP.split(text))


def _is_exact(number: float) -> bool:
    """Return whether a workbook keeps the number unchanged."""
    if isinstance(number, int):
        return abs(number) < _EXACT_INTEGERS
    if number == 0:
        # Excel has no negative zero.
        return math.copysign(1, number) > 0
    return float(f"{number:.16G}") == number


def _cut(text: str) -> str:
    """Return as much of the text as fits into a cell, with the mark of a cut text."""
    limit = XLSX_CHARS - len(CUT_MARK)
    kept = text[:limit]
    while (excess := utf16_length(kept) - limit) > 0:
        kept = kept[: len(kept) - max(1, excess // 2)]
    return kept + CUT_MARK
