"""Cells of a workbook that the reader gives as empty although something stands in them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree
from zipfile import ZipFile

MAX_CELLS_SHOWN = 5
_RELATION = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"
# Programs write names with and without a prefix, and attributes in any order.
_CELL = re.compile(rb"<(?:\w+:)?c\s([^>]*?)(/?)>")
_PLACE = re.compile(rb"\br=[\"']([A-Z]+[0-9]+)[\"']")
_IS_ERROR = re.compile(rb"\bt=[\"']e[\"']")
_UNCALCULATED = re.compile(
    rb"\s*<(?:\w+:)?f(?:\s[^>]*?)?(?:/>|>[^<]*</(?:\w+:)?f>)\s*(?:<(?:\w+:)?v\s*/>|<(?:\w+:)?v></(?:\w+:)?v>)?\s*</(?:\w+:)?c>"
)


@dataclass(frozen=True)
class UnreadCells:
    """Places, like ``B7``, of errors and of formulas that were never calculated."""

    errors: Sequence[str] = ()
    formulas: Sequence[str] = ()

    def in_row(self, number: int) -> bool:
        """Whether one of them stands in the row of this number, from 1."""
        return any(
            int(place.lstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ")) == number for place in (*self.errors, *self.formulas)
        )

    def warnings(self) -> list[str]:
        """What a user should know of them."""
        told = [
            (self.errors, "cells hold an error such as #DIV/0! and are taken as empty; mend them"),
            (self.formulas, "formulas were never calculated and are taken as empty; open and save the workbook"),
        ]
        return [f"{len(places)} {what}: {_shown(places)}" for places, what in told if places]


def unread_cells(path: Path, sheet: str) -> UnreadCells:
    """Such cells of a sheet. Formats other than zipped XML are not looked into."""
    with ZipFile(path) as workbook:
        content = workbook.read(_part(workbook, sheet))
    errors, formulas = list[str](), list[str]()
    for cell in _CELL.finditer(content):
        place = _PLACE.search(cell.group(1))
        if place is None or cell.group(2):
            continue
        if _IS_ERROR.search(cell.group(1)):
            errors.append(place.group(1).decode())
        elif _UNCALCULATED.match(content, cell.end()):
            formulas.append(place.group(1).decode())
    return UnreadCells(errors, formulas)


def _part(workbook: ZipFile, sheet: str) -> str:
    """The file of a sheet inside the workbook (ECMA-376, part 1, 18.2.19)."""
    listed = ElementTree.fromstring(workbook.read("xl/workbook.xml"))  # noqa: S314  # expat refuses expanding entities
    identifier = next(found.get(_RELATION) for found in listed.iter() if found.get("name") == sheet)
    links = ElementTree.fromstring(workbook.read("xl/_rels/workbook.xml.rels"))  # noqa: S314  # as above
    target = next(str(found.get("Target")) for found in links if found.get("Id") == identifier)
    return target[1:] if target.startswith("/") else str(PurePosixPath("xl", target))


def _shown(places: Sequence[str]) -> str:
    return ", ".join(places[:MAX_CELLS_SHOWN]) + (", ..." if len(places) > MAX_CELLS_SHOWN else "")
