r"""Export csv, tsv and psv files.

Our psv files escape with backslashes instead of quotes: ``\|``, ``\\``, ``\n``, ``\u001b``. A record is always one line.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace

from llmbatch_assets.adapters.tables.cell_escapes import (
    escape_cell_controls,
    escape_formula,
    escape_marked_formula,
)
from llmbatch_assets.adapters.tables.export_file import ExportFile, ExportRow, WriteRows
from llmbatch_assets.domain.text import escape_controls, has_controls

_BOM = "\ufeff"
_PSV_ESCAPES = str.maketrans({"\\": "\\\\", "|": "\\|", "\n": "\\n", "\r": "\\r", "\t": "\\t"})


@contextmanager
def export_delimited(delimiter: str, export: ExportFile) -> Iterator[WriteRows]:
    lines: list[str] = []
    # Before Python 3.13 the writer quotes a lone carriage return only if its own line end contains one.
    writer = csv.writer(SimpleNamespace(write=lines.append), delimiter=delimiter, lineterminator="\r\n")
    escape = escape_formula if export.escape_formulas else escape_marked_formula

    def lines_of(rows: Iterable[ExportRow]) -> list[str]:
        lines.clear()
        for row in rows:
            texts = row.texts
            if _may_need_escapes("|".join(texts)):
                texts = [export.representable(text, escape_cell_controls) for text in texts]
            # Most texts start with a letter or digit.
            escaped = [text if text[:1].isalnum() else escape(text) for text in texts]
            if escaped != texts:
                export.changes["formulas_escaped"] += sum(map(str.__ne__, escaped, texts))
            writer.writerow(escaped)
        return [line.removesuffix("\r\n") + "\n" for line in lines]

    if export.csv_bom:
        export.put(_BOM)
    export.put("".join(lines_of([export.header_row])))
    yield lambda rows: export.put_rows(lines_of(rows))


def _may_need_escapes(line: str) -> bool:
    """Return whether a cell of this line may need ``escape_cell_controls``."""
    return "\\x{" in line or has_controls(line)


@contextmanager
def export_psv(export: ExportFile) -> Iterator[WriteRows]:
    def line_of(row: ExportRow) -> str:
        return _psv_line(row.texts, export) + "\n"

    export.put(line_of(export.header_row))
    yield lambda rows: export.put_rows(map(line_of, rows))


def _psv_line(texts: Sequence[str], export: ExportFile) -> str:
    line = "|".join(texts)
    if line.isprintable() and line.count("|") == len(texts) - 1 and not _has_psv_marks(line):
        # Most lines need no escape, and testing a whole line takes a tenth of the time.
        return line
    return "|".join(_psv_cell(text, export) for text in texts)


def _has_psv_marks(line: str) -> bool:
    return "\\" in line or '|"' in line or line.startswith('"')


def _psv_cell(text: str, export: ExportFile) -> str:
    # A quote at the start would be read as the start of a quoted cell.
    start = "\\" if text.startswith('"') else ""
    return start + export.representable(text.translate(_PSV_ESCAPES), escape_controls)
