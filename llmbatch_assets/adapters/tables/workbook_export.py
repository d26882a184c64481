"""Exports as Excel workbooks, row by row, the same bytes each time."""

from __future__ import annotations

import datetime as dt
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, nullcontext, suppress
from typing import BinaryIO
from xml.sax.saxutils import escape

import xlsxwriter
from xlsxwriter.worksheet import Worksheet

from llmbatch_assets.domain.export.columns import Cell, cell_text
from llmbatch_assets.domain.text import CUT_MARK
from llmbatch_assets.errors import ConfigError

# https://support.microsoft.com/en-us/office/excel-specifications-and-limits-1672b34d-7043-467e-8e27-269d656771c3
MAX_ROWS = 1_048_576
MAX_COLUMNS = 16_384
MAX_CHARS = 32_767
# Excel computes with 15 digits.
EXACT_INTEGERS = 10**15
_CREATED = dt.datetime(1980, 1, 1)
_SHEET = "output"
# What xlsxwriter writes as markup of a rich text, unescaped.
_RICH = re.compile(r"\A<r>.*</r>\Z", re.DOTALL)
# Where a text that looks like an escaped character ends and another begins with the same underscore: of two such,
# xlsxwriter escapes one.
_OVERLAP = re.compile(r"(?<=_x[0-9a-fA-F]{4})(?=_x[0-9a-fA-F]{4}_)")


class Workbook:
    """A workbook that is written as rows come. Numbers are numbers, texts are texts and never formulas or links.

    ``changes`` counts what a workbook cannot hold as it is: cells that were cut, rows that went onto a further sheet.
    Raises ``ConfigError`` for more columns than a sheet has.
    """

    def __init__(self, file: BinaryIO, header: Sequence[str], changes: Counter[str], max_rows: int = MAX_ROWS) -> None:
        if len(header) > MAX_COLUMNS:
            raise ConfigError(
                f"outputs.formats: an xlsx sheet has {MAX_COLUMNS} columns at most, the export {len(header)}; leave xlsx out"
            )
        self._header = header
        self._changes = changes
        self._max_rows = max_rows
        self._file = file
        self._stack = ExitStack()

    def __enter__(self) -> Workbook:
        # Rows wait in files there; the folder goes whether the workbook is finished or not.
        folder = self._stack.enter_context(tempfile.TemporaryDirectory())
        self._book = xlsxwriter.Workbook(self._file, {"constant_memory": True, "tmpdir": folder})
        self._book.set_properties({"created": _CREATED})
        self._sheet, self._row = self._new_sheet(_SHEET)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._stack, suppress(OSError) if kind else nullcontext():
            # Also where it is given up, since the library keeps files open until then.
            self._book.close()

    def _new_sheet(self, name: str) -> tuple[Worksheet, int]:
        sheet = self._book.add_worksheet(name)
        # What is too long is cut here, with a mark; markup may be longer than what it says.
        sheet.xls_strmax = sys.maxsize
        for place, text in enumerate(self._header):
            self._put_text(sheet, 0, place, text)
        return sheet, 1

    def add(self, rows: Iterable[Sequence[Cell]]) -> None:
        """Write rows. Those that a sheet has no room for go onto a further one with the same header."""
        for cells in rows:
            if self._row == self._max_rows:
                self._sheet, self._row = self._new_sheet(f"{_SHEET} {len(self._book.worksheets()) + 1}")
            if self._sheet.get_name() != _SHEET:
                self._changes["rows_on_further_sheets"] += 1
            for place, cell in enumerate(cells):
                self._put(place, cell)
            self._row += 1

    def _put(self, place: int, cell: Cell) -> None:
        if isinstance(cell, bool):
            self._sheet.write_boolean(self._row, place, cell)
        elif isinstance(cell, int | float) and _is_exact(cell):
            self._sheet.write_number(self._row, place, cell)
        elif cell not in (None, ""):
            self._put_text(self._sheet, self._row, place, cell_text(cell))

    def _put_text(self, sheet: Worksheet, row: int, place: int, text: str) -> None:
        if len(text) > MAX_CHARS // 2 and _units(text) > MAX_CHARS:
            text = _shortened(text)
            self._changes["cut_at_32767_characters"] += 1
        sheet.write_string(row, place, _as_runs(text) if _RICH.match(text) or _OVERLAP.search(text) else text)


def _as_runs(text: str) -> str:
    """The text as a rich one without any formatting, which is how it is not misread."""
    return "".join(f'<r><t xml:space="preserve">{escape(part)}</t></r>' for part in _OVERLAP.split(text))


def _is_exact(number: float) -> bool:
    """Whether the number comes back from a workbook as it went in."""
    if isinstance(number, int):
        return abs(number) < EXACT_INTEGERS
    return float(f"{number:.16G}") == number


def _units(text: str) -> int:
    """The length as Excel counts it, in units of UTF-16."""
    return len(text) + sum(character > "\uffff" for character in text)


def _shortened(text: str) -> str:
    """As much of the text as a cell holds, with the mark of a cut text."""
    kept = text[: MAX_CHARS - len(CUT_MARK)]
    while _units(kept) > MAX_CHARS - len(CUT_MARK):
        kept = kept[: len(kept) - max(1, (_units(kept) - MAX_CHARS + len(CUT_MARK)) // 2)]
    return kept + CUT_MARK
