"""The interface between an export and the writers of its formats."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import BinaryIO

from llmbatch_assets.domain.export.columns import Cell, Column, Record, cell_text


@dataclass(frozen=True)
class ExportRow:
    """A record and the cells of its columns."""

    record: Record
    cells: Sequence[Cell]

    @cached_property
    def texts(self) -> list[str]:
        """The cells as texts, which several formats write."""
        return [cell if type(cell) is str else cell_text(cell) for cell in self.cells]


def _uncounted(n_rows: int) -> None:
    pass


@dataclass(frozen=True)
class ExportFile:
    """An open export file. ``changes`` counts the values that its format cannot hold unchanged, by kind of change.

    ``count_rows`` is told how many rows were written.
    """

    file: BinaryIO
    columns: Sequence[Column]
    escape_formulas: bool
    changes: Counter[str]
    csv_bom: bool = False
    count_rows: Callable[[int], None] = _uncounted

    @property
    def header(self) -> list[str]:
        return [column.name for column in self.columns]

    @property
    def header_row(self) -> ExportRow:
        return ExportRow({}, self.header)

    def put(self, text: str) -> None:
        """Write text. Lone surrogates, which UTF-8 cannot hold, are written as in JSON."""
        self.file.write(text.encode("utf-8", "backslashreplace"))

    def put_rows(self, texts: Iterable[str]) -> None:
        """Write the texts of rows, one for each row."""
        rows = list(texts)
        self.put("".join(rows))
        self.count_rows(len(rows))

    def representable(self, text: str, escape: Callable[[str], str]) -> str:
        """Return the text with characters escaped that the format cannot hold, and count it if there are any."""
        escaped = escape(text)
        if escaped != text:
            self.changes["characters_escaped"] += 1
        return escaped


WriteRows = Callable[[Sequence[ExportRow]], None]
Exporter = Callable[[ExportFile], AbstractContextManager[WriteRows]]
