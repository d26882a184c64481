"""The export formats. All files of an export are written in one pass, so each output is read once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from llmbatch_assets.adapters.files.durable import replacing
from llmbatch_assets.adapters.tables.delimited import export_delimited, export_psv
from llmbatch_assets.adapters.tables.export_file import Exporter, ExportFile, ExportRow, WriteRows
from llmbatch_assets.adapters.tables.records import export_jsonl
from llmbatch_assets.domain.export.columns import Column


@contextmanager
def _xlsx(export: ExportFile) -> Iterator[WriteRows]:
    # Imported here: runs that do not need it must not wait for it. The same holds for Arrow below.
    from llmbatch_assets.adapters.tables.workbook import WorkbookWriter

    with WorkbookWriter(export.file, export.header, export.changes) as workbook:
        yield lambda rows: workbook.add(row.cells for row in rows)


@contextmanager
def _parquet(export: ExportFile) -> Iterator[WriteRows]:
    from llmbatch_assets.adapters.tables.parquet import ParquetTableWriter

    with ParquetTableWriter(export.file, export.columns, export.changes) as table:
        yield lambda rows: table.add(row.cells for row in rows)


EXPORTERS: dict[str, Exporter] = {
    "csv": partial(export_delimited, ","),
    "tsv": partial(export_delimited, "\t"),
    "psv": export_psv,
    "jsonl": export_jsonl,
    "xlsx": _xlsx,
    "parquet": _parquet,
}


@contextmanager
def exporting(
    paths: Mapping[str, Path], columns: Sequence[Column], changes: dict[str, Counter[str]], *, escape_formulas: bool
) -> Iterator[WriteRows]:
    """Open one file per format, each written as a whole or not at all. ``changes`` is filled by format."""
    with ExitStack() as stack:
        writers: list[WriteRows] = []
        for file_format, path in paths.items():
            changed = changes.setdefault(file_format, Counter())
            export = ExportFile(stack.enter_context(replacing(path)), columns, escape_formulas, changed)
            writers.append(stack.enter_context(EXPORTERS[file_format](export)))

        def write_rows(rows: Sequence[ExportRow]) -> None:
            for write in writers:
                write(rows)

        yield write_rows
