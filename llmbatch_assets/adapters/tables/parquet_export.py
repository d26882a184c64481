"""Exports as Parquet, typed by the schema, the same bytes each time."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from shutil import copyfileobj
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from llmbatch_assets.domain.export.columns import Cell, Column, cell_text

GROUP_ROWS = 10_000
_TYPES = {
    "string": pa.string(),
    "json": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
}
_PYTHON_TYPES: dict[Any, set[type]] = {
    pa.int64(): {int, type(None)},
    pa.float64(): {float, int, type(None)},
    pa.bool_(): {bool, type(None)},
}


class ParquetTable:
    """A Parquet file that is written in groups of rows.

    A column with a value that its type does not hold, such as an integer beyond 64 bits, becomes one of texts as a
    whole, which ``changes`` tells.
    """

    def __init__(self, file: BinaryIO, columns: Sequence[Column], changes: Counter[str]) -> None:
        self._file = file
        self._schema = pa.schema([(column.name, _TYPES[column.type]) for column in columns])
        self._changes = changes
        self._waiting: list[Sequence[Cell]] = []
        self._n_files = 0

    def __enter__(self) -> ParquetTable:
        self._folder = tempfile.TemporaryDirectory()
        self._writer, self._path = self._open()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._folder:
            if kind is None:
                self._flush()
            self._writer.close()
            if kind is None:
                with self._path.open("rb") as written:
                    copyfileobj(written, self._file)

    def add(self, rows: Iterable[Sequence[Cell]]) -> None:
        """Write rows, once there are enough of them."""
        self._waiting.extend(rows)
        if len(self._waiting) >= GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        if not self._waiting:
            return
        columns = list(zip(*self._waiting, strict=True))
        arrays = [_array(cells, field.type) for field, cells in zip(self._schema, columns, strict=True)]
        misfits = [field.name for field, array in zip(self._schema, arrays, strict=True) if array is None]
        if misfits:
            self._widen(misfits)
            arrays = [_array(cells, field.type) for field, cells in zip(self._schema, columns, strict=True)]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))
        self._waiting.clear()

    def _open(self) -> tuple[pq.ParquetWriter, Path]:
        self._n_files += 1
        path = Path(self._folder.name) / f"{self._n_files}.parquet"
        return pq.ParquetWriter(path, self._schema, compression="zstd"), path

    def _widen(self, names: Sequence[str]) -> None:
        """Make columns ones of texts, in what is written already, too."""
        self._changes["columns_as_text"] += len(names)
        fields = [pa.field(field.name, pa.string()) if field.name in names else field for field in self._schema]
        self._schema = pa.schema(fields)
        self._writer.close()
        done = pq.ParquetFile(self._path)
        self._writer, self._path = self._open()
        for group in range(done.num_row_groups):
            table = done.read_row_group(group)
            arrays = [
                _array(table.column(place).to_pylist(), field.type) if field.name in names else table.column(place)
                for place, field in enumerate(self._schema)
            ]
            self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))


def _array(cells: Sequence[Any], kind: pa.DataType) -> pa.Array | None:
    """The cells as a column of the type; None where one of them does not fit."""
    if kind == pa.string():
        return pa.array([None if cell is None else cell_text(cell) for cell in cells], kind)
    # Arrow takes 0.5 for the integer 0.
    if not {type(cell) for cell in cells} <= _PYTHON_TYPES[kind]:
        return None
    try:
        return pa.array(cells, kind)
    except (pa.ArrowInvalid, OverflowError):
        return None
