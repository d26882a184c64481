"""Parquet tables."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from llmbatch_assets.domain.items.table import RawTable
from llmbatch_assets.errors import TableError

BATCH_ROWS = 10_000


def read_parquet_file(path: Path) -> RawTable:
    """A Parquet file, read in batches."""
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as broken:
        raise TableError(f"{path} cannot be read as Parquet: {broken}") from None
    return RawTable(file.schema_arrow.names, _parquet_rows(path, file), "parquet")


def _parquet_rows(path: Path, file: pq.ParquetFile) -> Iterator[tuple[Any, ...]]:
    try:
        for batch in file.iter_batches(batch_size=BATCH_ROWS):
            columns = zip(batch.schema.names, batch.columns, strict=True)
            yield from zip(*(_values(path, name, column) for name, column in columns), strict=True)
    except (pa.ArrowException, OSError) as broken:
        reason = str(broken).splitlines()[0]
        raise TableError(f"{path} cannot be read as Parquet, it is damaged ({reason}); write it again") from None


def _values(path: Path, name: str, column: pa.Array) -> list[Any]:
    kind = column.type
    if pa.types.is_temporal(kind) and getattr(kind, "unit", "") == "ns":
        # Python's own times end at microseconds.
        column = _without_nanoseconds(column)
    try:
        return list(column.to_pylist())
    except UnicodeDecodeError as broken:
        raise TableError(f"{path}: column {name!r} holds a text that is not UTF-8: {broken.reason}") from None
    except (ValueError, OverflowError) as broken:
        raise TableError(f"{path}: column {name!r} ({kind}) holds what cannot be written out: {broken}") from None


def _without_nanoseconds(column: pa.Array) -> pa.Array:
    kind = column.type
    zone = {"tz": kind.tz} if pa.types.is_timestamp(kind) else {}
    coarser = {"timestamp": pa.timestamp, "time": pa.time64, "duration": pa.duration}[_family(kind)]("us", **zone)
    try:
        return column.cast(coarser)
    except pa.ArrowInvalid:
        # A few nanoseconds are left: the text that Arrow makes of it has them all.
        text = column.cast(pa.string())
        return pc.replace_substring(text, " ", "T", max_replacements=1)


def _family(kind: pa.DataType) -> str:
    return "timestamp" if pa.types.is_timestamp(kind) else "time" if pa.types.is_time(kind) else "duration"
