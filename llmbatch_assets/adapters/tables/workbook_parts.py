"""Read from a workbook's XML what calamine, which reads the cells, does not report.

This is: cells that are read as empty although they are not, the exact digits of long numbers, and the size of the parts. Any
workbook that calamine reads is accepted here: part names with backslashes or in another case, parts in other folders, any
namespace prefix, strict and transitional Open XML, and cells without references.
"""

from __future__ import annotations

import posixpath
import re
import zlib
from collections.abc import Iterator
from copy import copy
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote
from xml.etree import ElementTree
from zipfile import BadZipFile, ZipFile, ZipInfo

from llmbatch_assets.adapters.tables.expansion import BYTES_PER_CELL, ExpansionLimit
from llmbatch_assets.domain.text import counted

_CHUNK = 2**20
# The maximum compression ratio of deflate: https://www.zlib.net/zlib_tech.html
_MAX_RATIO = 1_032
_PLACES_SHOWN = 5
# Programs write element names with or without a namespace prefix, and attributes in any order.
_ROW_OR_CELL = re.compile(rb"<(?:[\w.-]+:)?(row|c)(?=[\s/>])([^>]*?)(/?)>")
_ROW_NUMBER = re.compile(rb"\sr\s*=\s*[\"'](\d+)[\"']")
_PLACE = re.compile(rb"\sr\s*=\s*[\"']\$?([A-Za-z]{1,3})\$?(\d+)[\"']")
_CELL_TYPE = re.compile(rb"\st\s*=\s*[\"'](\w+)[\"']")
_FORMULA = rb"<(?:[\w.-]+:)?f(?:\s[^>]*?)?(?:/>|>[^<]*</(?:[\w.-]+:)?f>)\s*"
_UNCALCULATED = re.compile(
    rb"\s*" + _FORMULA + rb"(?:<(?:[\w.-]+:)?v\s*/>|<(?:[\w.-]+:)?v></(?:[\w.-]+:)?v>)?\s*</(?:[\w.-]+:)?c>"
)
_NUMBER = re.compile(rb"\s*(?:" + _FORMULA + rb")?<(?:[\w.-]+:)?v>\s*(-?[\d.]+(?:[eE]\+?\d+)?)\s*<")
# A sheet without any of these texts has nothing to report.
_ERROR_MARKS = (b't="e"', b"t='e'")
_FORMULA_MARKS = (b"<f", b":f")
_LONG_NUMBER = re.compile(rb">-?\d{16}|>-?\d\.\d{13,}[eE]")
# A tag whose first attribute is not a reference; it may have no reference at all.
_WITHOUT_PLACE = re.compile(rb"<(?:[\w.-]+:)?(?:row|c)(?!\sr=\")[\s/>]")
_ANY_PLACE = re.compile(rb"\sr=\"([A-Za-z]*)(\d+)\"")
_EXACT_DIGITS = 15


class SheetNotes(NamedTuple):
    """Details of a sheet that calamine does not report."""

    errors: list[str]
    formulas: list[str]
    rounded: list[str]
    # Exact whole numbers of more than 15 digits, by row and column from 0.
    long_numbers: dict[tuple[int, int], int]
    # The last row, from 1, with a cell that is read as empty although it is not.
    last_row: int = 0

    def warnings(self) -> list[str]:
        problems = [
            (self.errors, "cell", "with an error such as #DIV/0!, read as empty; correct"),
            (self.formulas, "formula", "never calculated and read as empty; open and save the workbook to calculate"),
            (
                self.rounded,
                "whole number",
                "of more than 15 digits, which spreadsheets round; store ids as text",
            ),
        ]
        return [
            f"{counted(len(places), what)} {problem}: {_listed(places)}" for places, what, problem in problems if places
        ]


NO_NOTES = SheetNotes([], [], [], {})


def _listed(places: list[str]) -> str:
    return ", ".join(places[:_PLACES_SHOWN]) + (", ..." if len(places) > _PLACES_SHOWN else "")


class WorkbookParts:
    """The parts of a zipped workbook, by name. There are none if the file is not a zip file, as in older formats.

    Raises ``TableError`` if the parts expand beyond the limit, and ``ValueError`` for a large file that is damaged.
    """

    def __init__(self, path: Path, limit: ExpansionLimit) -> None:
        self._path = path
        self._limit = limit
        self._parts: dict[str, ZipInfo] = {}
        try:
            with ZipFile(path) as workbook:
                members = workbook.infolist()
                limit.check(sum(member.file_size for member in members), "of data")
                for member in members:
                    self._parts.setdefault(_part_name(member.filename), member)
                    for chunk in _chunks(workbook, member):
                        limit.add(len(chunk))
        except (BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError, ValueError, zlib.error):
            # A small file cannot expand beyond the limit, even if it is damaged.
            self._parts = {}
            if _is_zip(path) and path.stat().st_size * _MAX_RATIO > limit.left:
                raise ValueError("the parts cannot be measured") from None

    def notes(self, sheet: str) -> SheetNotes:
        """Return the details of a sheet; none if it cannot be found or read here."""
        try:
            with ZipFile(self._path) as workbook:
                member = self._parts[self._sheet_part(workbook, sheet)]
                content = b"".join(_chunks(workbook, member))
        except (BadZipFile, KeyError, StopIteration, ElementTree.ParseError, zlib.error):
            return NO_NOTES
        self._check_grid(content)
        return _notes_of(content) if _is_worth_a_look(content) else NO_NOTES

    def _sheet_part(self, workbook: ZipFile, sheet: str) -> str:
        """Return the name of the sheet's part (ECMA-376, part 1, 18.2.19)."""
        book = next(self._targets(workbook, "", "officeDocument"), "xl/workbook.xml")
        if book not in self._parts:
            book = "xl/workbook.xml"
        sheets = self._xml(workbook, book)
        identifier = next(
            _relation(found) for found in sheets.iter() if found.get("name") == sheet and _relation(found)
        )
        return next(self._targets(workbook, book, identifier))

    def _targets(self, workbook: ZipFile, part: str, wanted: str) -> Iterator[str]:
        """Yield the parts that a part (or the whole file: "") refers to by this id, or by a type with this ending."""
        folder, name = posixpath.split(part)
        for link in self._xml(workbook, posixpath.join(folder, "_rels", f"{name}.rels")):
            if link.get("Id") == wanted or str(link.get("Type")).endswith(f"/{wanted}"):
                yield _part_name(posixpath.join("/", folder, unquote(str(link.get("Target"))).replace("\\", "/")))

    def _xml(self, workbook: ZipFile, part: str) -> ElementTree.Element:
        content = b"".join(_chunks(workbook, self._parts[_part_name(part)]))
        return ElementTree.fromstring(content)  # noqa: S314  # expat limits entity expansion

    def _check_grid(self, content: bytes) -> None:
        """Check the size of the rectangle of cells that calamine allocates. Two cells far apart make it large."""
        if _WITHOUT_PLACE.search(content):
            rows, columns = _extent(content)
        else:
            rows, columns = _extent_of_places(content)
        self._limit.check(rows * columns * BYTES_PER_CELL, "of cells")


def _part_name(name: str) -> str:
    return posixpath.normpath(name.replace("\\", "/")).lstrip("/").lower()


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"PK"


def _chunks(workbook: ZipFile, member: ZipInfo) -> Iterator[bytes]:
    """Decompress a part to its real end, whatever size the zip directory states."""
    whole = copy(member)
    whole.file_size = 2**63
    with workbook.open(whole) as part:
        while chunk := part.read(_CHUNK):
            yield chunk


def _relation(element: ElementTree.Element) -> str:
    """Return the relationship id of an element; its namespace differs between strict and transitional files."""
    return next((value for name, value in element.items() if name.endswith("/relationships}id")), "")


def _is_worth_a_look(content: bytes) -> bool:
    return any(mark in content for mark in (*_ERROR_MARKS, *_FORMULA_MARKS)) or bool(_LONG_NUMBER.search(content))


def _notes_of(content: bytes) -> SheetNotes:
    errors: list[str] = []
    formulas: list[str] = []
    rounded: list[str] = []
    exact: dict[tuple[int, int], str] = {}
    last_row = 0
    for row, column, kind, end in _cells(content):
        is_uncalculated = kind != b"e" and _UNCALCULATED.match(content, end)
        if kind == b"e" or is_uncalculated:
            (formulas if is_uncalculated else errors).append(_place(row, column))
            last_row = max(last_row, row)
        elif kind == b"n" and (number := _NUMBER.match(content, end)):
            digits = number.group(1).decode()
            if _has_exact_digits(digits):
                exact[row, column] = digits
            elif _is_rounded(digits):
                rounded.append(_place(row, column))
    if max((_n_significant(digits) for digits in exact.values()), default=0) == _EXACT_DIGITS:
        # Excel writes zeros in place of the digits that it does not keep.
        rounded += [_place(*at) for at, digits in exact.items() if _n_significant(digits) == _EXACT_DIGITS]
    long_numbers = {(row - 1, column - 1): int(digits) for (row, column), digits in exact.items()}
    return SheetNotes(errors, formulas, rounded, long_numbers, last_row)


def _place(row: int, column: int) -> str:
    return f"{_column_letters(column)}{row}"


def _cells(content: bytes) -> Iterator[tuple[int, int, bytes, int]]:
    """Yield row and column, from 1, type and end of the tag of each cell that is not empty.

    A row or cell without a reference comes after the one before it.
    """
    row, column = 0, 0
    for tag in _ROW_OR_CELL.finditer(content):
        kind, attributes, is_empty = tag.groups()
        if kind == b"row":
            number = _ROW_NUMBER.search(attributes)
            row, column = int(number.group(1)) if number else row + 1, 0
            continue
        place = _PLACE.search(attributes)
        at, column = (int(place.group(2)), _column_number(place.group(1))) if place else (row, column + 1)
        if not is_empty:
            cell_type = _CELL_TYPE.search(attributes)
            yield at, column, cell_type.group(1) if cell_type else b"n", tag.end()


def _extent(content: bytes) -> tuple[int, int]:
    rows, columns = 0, 0
    for row, column, _, _ in _cells(content):
        rows, columns = max(rows, row), max(columns, column)
    return rows, columns


def _extent_of_places(content: bytes) -> tuple[int, int]:
    """Do the same for sheets in which every row and cell has a reference, in less time."""
    rows, columns = 0, 0
    # In parts, because the list of all places would be large. A place at a seam is found in one of both.
    for start in range(0, len(content), _CHUNK):
        found = _ANY_PLACE.findall(content, start, start + _CHUNK + 100)
        rows = max(rows, max((int(row) for _, row in found), default=0))
        columns = max(columns, max(map(_column_number, {letters for letters, _ in found}), default=0))
    return rows, columns


def _has_exact_digits(digits: str) -> bool:
    return digits.lstrip("-").isdecimal() and len(digits.lstrip("-").lstrip("0")) > _EXACT_DIGITS


def _is_rounded(digits: str) -> bool:
    """Return whether a whole number is in scientific notation with more digits than Excel keeps."""
    mantissa, _, exponent = digits.lower().partition("e")
    return bool(exponent) and int(exponent) >= _EXACT_DIGITS and _n_significant(mantissa) >= _EXACT_DIGITS


def _n_significant(digits: str) -> int:
    return len(digits.lstrip("-").replace(".", "").strip("0"))


def _column_number(letters: bytes) -> int:
    number = 0
    for letter in letters.upper():
        number = number * 26 + letter - 64
    return number


def _column_letters(number: int) -> str:
    letters = ""
    while number:
        number, rest = divmod(number - 1, 26)
        letters = chr(65 + rest) + letters
    return letters
