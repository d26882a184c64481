"""Exports: one function per format."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from llmbatch_assets.adapters.files import write_atomically
from llmbatch_assets.domain.canonical import canonical_json
from llmbatch_assets.domain.export import Column, Record, cells

Writer = Callable[[Iterable[Record], Sequence[Column]], Iterator[bytes]]

_PSV_ESCAPES = str.maketrans({"\\": "\\\\", "|": "\\|", "\n": "\\n", "\r": "\\r", "\t": "\\t"})


def _lines(delimiter: str) -> Writer:
    def write(records: Iterable[Record], columns: Sequence[Column]) -> Iterator[bytes]:
        buffer = io.StringIO(newline="")
        writer = csv.writer(buffer, delimiter=delimiter, lineterminator="\r\n")
        writer.writerow([column.name for column in columns])
        yield _drain(buffer)
        for record in records:
            writer.writerow(cells(record, columns))
            yield _drain(buffer)

    return write


def _drain(buffer: io.StringIO) -> bytes:
    text = buffer.getvalue()
    buffer.seek(0)
    buffer.truncate()
    # Before Python 3.13 the writer quotes a lone carriage return only if its own line end holds one.
    return text.removesuffix("\r\n").encode() + b"\n"


def _psv(records: Iterable[Record], columns: Sequence[Column]) -> Iterator[bytes]:
    yield _psv_line(column.name for column in columns)
    for record in records:
        yield _psv_line(cells(record, columns))


def _psv_line(texts: Iterable[str]) -> bytes:
    return ("|".join(map(_psv_cell, texts)) + "\n").encode()


def _psv_cell(text: str) -> str:
    # A quote at the beginning would be read as the beginning of a quoted cell.
    return ("\\" if text.startswith('"') else "") + text.translate(_PSV_ESCAPES)


def _jsonl(records: Iterable[Record], columns: Sequence[Column]) -> Iterator[bytes]:
    for record in records:
        yield (canonical_json(record) + "\n").encode("utf-8")


EXPORTERS: dict[str, Writer] = {"csv": _lines(","), "tsv": _lines("\t"), "psv": _psv, "jsonl": _jsonl}


def export_file(path: Path, file_format: str, records: Iterable[Record], columns: Sequence[Column]) -> None:
    """Write one export, whole or not at all."""
    write_atomically(path, EXPORTERS[file_format](records, columns))
