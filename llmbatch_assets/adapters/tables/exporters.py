"""Exports: one function per format. All of them are written at once, so that every output is read once."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

from llmbatch_assets.adapters.files.atomic import replacing
from llmbatch_assets.domain.canonical import canonical_json
from llmbatch_assets.domain.export.columns import Cell, Column, Record, cell_text
from llmbatch_assets.domain.export.formula import marked_twice, neutral


class Line(NamedTuple):
    """A record, and what its columns hold."""

    record: Record
    cells: Sequence[Cell]


Sink = Callable[[Sequence[Line]], None]


@dataclass(frozen=True)
class Export:
    """One file that is written: its columns, how, and what had to be changed in its cells, counted by kind."""

    file: BinaryIO
    columns: Sequence[Column]
    escape_formulas: bool = True
    changes: Counter[str] = field(default_factory=Counter)

    @property
    def header(self) -> list[str]:
        """The names of the columns."""
        return [column.name for column in self.columns]

    def put(self, text: str) -> None:
        """Write a text; halves of surrogate pairs, which UTF-8 cannot hold, as JSON writes them."""
        self.file.write(text.encode("utf-8", "backslashreplace"))


Exporter = Callable[[Export], AbstractContextManager[Sink]]


def _delimited(delimiter: str) -> Exporter:
    @contextmanager
    def writing(export: Export) -> Iterator[Sink]:
        buffer = io.StringIO(newline="")
        # Before Python 3.13 the writer quotes a lone carriage return only if its own line end holds one.
        writer = csv.writer(buffer, delimiter=delimiter, lineterminator="\r\n")
        without_formulas = neutral if export.escape_formulas else marked_twice

        def put(cells: Iterable[Cell]) -> None:
            texts = [cell_text(cell) for cell in cells]
            shown = [without_formulas(text) for text in texts]
            if shown != texts:
                export.changes["formulas_escaped"] += sum(map(str.__ne__, shown, texts))
            writer.writerow(shown)
            export.put(buffer.getvalue().removesuffix("\r\n") + "\n")
            buffer.seek(0)
            buffer.truncate()

        def put_lines(lines: Sequence[Line]) -> None:
            for line in lines:
                put(line.cells)

        put(export.header)
        yield put_lines

    return writing


_PSV_ESCAPES = str.maketrans({"\\": "\\\\", "|": "\\|", "\n": "\\n", "\r": "\\r", "\t": "\\t"})


def _psv_line(cells: Iterable[Cell]) -> str:
    return "|".join(_psv_cell(cell_text(cell)) for cell in cells) + "\n"


def _psv_cell(text: str) -> str:
    # A quote at the beginning would be read as the beginning of a quoted cell.
    return ("\\" if text.startswith('"') else "") + text.translate(_PSV_ESCAPES)


@contextmanager
def _psv(export: Export) -> Iterator[Sink]:
    export.put(_psv_line(export.header))
    yield lambda lines: export.put("".join(_psv_line(line.cells) for line in lines))


@contextmanager
def _jsonl(export: Export) -> Iterator[Sink]:
    yield lambda lines: export.put("".join(canonical_json(line.record) + "\n" for line in lines))


@contextmanager
def _xlsx(export: Export) -> Iterator[Sink]:
    # Imported where it is needed: a run that writes none should not wait for it. The same for Arrow below.
    from llmbatch_assets.adapters.tables.workbook_export import Workbook

    with Workbook(export.file, export.header, export.changes) as workbook:
        yield lambda lines: workbook.add(line.cells for line in lines)


@contextmanager
def _parquet(export: Export) -> Iterator[Sink]:
    from llmbatch_assets.adapters.tables.parquet_export import ParquetTable

    with ParquetTable(export.file, export.columns, export.changes) as table:
        yield lambda lines: table.add(line.cells for line in lines)


EXPORTERS: dict[str, Exporter] = {
    "csv": _delimited(","),
    "tsv": _delimited("\t"),
    "psv": _psv,
    "jsonl": _jsonl,
    "xlsx": _xlsx,
    "parquet": _parquet,
}


@contextmanager
def exporting(
    paths: Mapping[str, Path], columns: Sequence[Column], changes: dict[str, Counter[str]], *, escape_formulas: bool
) -> Iterator[Sink]:
    """A sink for records that writes one file per format, each whole or not at all; ``changes`` is filled by format."""
    with ExitStack() as stack:
        sinks: list[Sink] = []
        for file_format, path in paths.items():
            changed = changes.setdefault(file_format, Counter())
            export = Export(stack.enter_context(replacing(path)), columns, escape_formulas, changed)
            sinks.append(stack.enter_context(EXPORTERS[file_format](export)))

        def put(lines: Sequence[Line]) -> None:
            for sink in sinks:
                sink(lines)

        yield put
