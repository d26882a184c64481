r"""Export csv, tsv and psv files.

Our psv files escape with backslashes instead of quotes: ``\|``, ``\\``, ``\n``, ``\u001b``. A record is always one line.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from llmbatch_assets.adapters.tables.cell_escapes import (
    escape_cell_controls,
    escape_formula,
    escape_marked_formula,
)
from llmbatch_assets.adapters.tables.export_file import ExportFile, WriteRows
from llmbatch_assets.domain.export.columns import Cell, cell_text
from llmbatch_assets.domain.text import escape_controls

_BOM = "\ufeff"
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
