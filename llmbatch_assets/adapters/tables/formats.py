"""The readers and exporters of all table formats. All files of an export are written in one pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path

from llmbatch_assets.adapters.files.durable import replacing
from llmbatch_assets.adapters.tables.delimited import export_delimited, export_psv
from llmbatch_assets.adapters.tables.delimited_reader import read_delimited
from llmbatch_assets.adapters.tables.export_file import Exporter, ExportFile, ExportRow, WriteRows
from llmbatch_assets.adapters.tables.records import export_jsonl, read_records
from llmbatch_assets.domain.configuration.input_blocks import Input
from llmbatch_assets.domain.export.columns import Column
from llmbatch_assets.domain.items.table import RawTable
from llmbatch_assets.domain.text import nearest
from llmbatch_assets.errors import TableError

_FORMAT_OF_SUFFIX = {"txt": "csv", "ndjson": "jsonl", "xlsm": "xlsx", "pq": "parquet"}


def _read_xlsx(path: Path, settings: Input) -> RawTable:
    # Excel and Arrow modules are imported on demand, because most runs do not need them.
    from llmbatch_assets.adapters.tables.workbook import read_workbook

    return read_workbook(path, settings)


def _read_parquet(path: Path, settings: Input) -> RawTable:
    from llmbatch_assets.adapters.tables.parquet import read_parquet

    return read_parquet(path, settings)


READERS: dict[str, Callable[[Path, Input], RawTable]] = {
    "csv": partial(read_delimited, "csv", ","),
    "psv": partial(read_delimited, "psv", "|"),
    "tsv": partial(read_delimited, "tsv", "\t"),
    "xlsx": _read_xlsx,
    "jsonl": read_records,
    "parquet": _read_parquet,
}


# Settings that have no effect on other formats.
_SETTINGS_OF_ROWS = ("header_row", "skip_rows")
_SETTINGS_OF_TEXT = ("quoting", "escape")
_WITHOUT_SETTINGS = {
    "xlsx": _SETTINGS_OF_TEXT,
    "jsonl": _SETTINGS_OF_ROWS + _SETTINGS_OF_TEXT,
    "parquet": _SETTINGS_OF_ROWS + _SETTINGS_OF_TEXT,
}


def read_table(path: Path, settings: Input) -> RawTable:
    """Read the table in the file. Raises ``TableError``, with row and column where there is one."""
    file_format = _format_of(path, settings)
    for name in _WITHOUT_SETTINGS.get(file_format, ()):
        if getattr(settings, name) != Input.model_fields[name].default:
            raise TableError(f"{path}: input.{name} has no effect on {file_format} files; remove it")
    try:
        if not path.is_file():
            problem = "is a folder" if path.is_dir() else f"does not exist{_similar_file(path)}"
            raise TableError(f"{path} {problem}; set input.path to your table")
        return READERS[file_format](path, settings)
    except OSError as error:
        raise TableError(f"{path} cannot be read: {error.strerror or error}; set input.path to your table") from None


def _format_of(path: Path, settings: Input) -> str:
    if settings.format != "auto":
        return settings.format
    suffix = path.suffix.lower().removeprefix(".")
    file_format = _FORMAT_OF_SUFFIX.get(suffix, suffix)
    if file_format not in READERS:
        raise TableError(
            f"{path}: the file extension does not show the format; set input.format to {', '.join(READERS)}"
        )
    return file_format


def _similar_file(path: Path) -> str:
    names = [one.name for one in path.parent.iterdir()] if path.parent.is_dir() else []
    similar = nearest(path.name, sorted(names))
    return f", but {similar[0]} does" if similar else ""


def _export_xlsx(export: ExportFile) -> AbstractContextManager[WriteRows]:
    from llmbatch_assets.adapters.tables.workbook import WorkbookWriter

    return WorkbookWriter(export)


def _export_parquet(export: ExportFile) -> AbstractContextManager[WriteRows]:
    from llmbatch_assets.adapters.tables.parquet import ParquetTableWriter

    return ParquetTableWriter(export)


EXPORTERS: dict[str, Exporter] = {
    "csv": partial(export_delimited, ","),
    "tsv": partial(export_delimited, "\t"),
    "psv": export_psv,
    "jsonl": export_jsonl,
    "xlsx": _export_xlsx,
    "parquet": _export_parquet,
}


def _count(counted: Counter[str], file_format: str, n_rows: int) -> None:
    counted[file_format] += n_rows


@contextmanager
def exporting(
    paths: Mapping[str, Path],
    columns: Sequence[Column],
    changes: dict[str, Counter[str]],
    n_rows: Counter[str] | None = None,
    /,
    *,
    escape_formulas: bool,
    csv_bom: bool = False,
) -> Iterator[WriteRows]:
    """Open one file per format, each written as a whole or not at all.

    ``changes`` and ``n_rows``, the number of rows that were written, are filled by format.
    """
    counted = Counter[str]() if n_rows is None else n_rows
    with ExitStack() as stack:
        writers: list[WriteRows] = []
        for file_format, path in paths.items():
            changed = changes.setdefault(file_format, Counter())
            file, count_rows = stack.enter_context(replacing(path)), partial(_count, counted, file_format)
            export = ExportFile(file, columns, escape_formulas, changed, csv_bom, count_rows)
            writers.append(stack.enter_context(EXPORTERS[file_format](export)))

        def write_rows(rows: Sequence[ExportRow]) -> None:
            for write in writers:
                write(rows)

        yield write_rows
