"""Read Parquet tables, and export them with typed columns. The same rows always give the same bytes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from shutil import copyfileobj
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from llmbatch_assets.adapters.tables.arrow_table import Convert, raw_table
from llmbatch_assets.adapters.tables.arrow_values import intervals_of_bytes, uuids_of_bytes
from llmbatch_assets.adapters.tables.expansion import ExpansionLimit
from llmbatch_assets.adapters.tables.export_file import ExportFile, ExportRow, WriteRows
from llmbatch_assets.domain.configuration.input_blocks import Input
from llmbatch_assets.domain.export.columns import Cell, cell_text
from llmbatch_assets.domain.items.table import RawTable
from llmbatch_assets.domain.text import without_surrogates
from llmbatch_assets.errors import TableError

BATCH_ROWS = 10_000
# Smaller batches for reading: a file can store a long text once and repeat it in every row, and a batch is only measured
# after it has been read.
_READ_ROWS = 1_000
# The minimum that a cell takes in memory.
_BYTES_PER_VALUE = 8


def read_parquet(path: Path, settings: Input) -> RawTable:
    """Read a Parquet file in batches. Raises ``TableError``."""
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise TableError(f"{path} cannot be read as Parquet: {error}") from None
    limit = ExpansionLimit(path, settings.max_expanded_mb)
    metadata = file.metadata
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    limit.check(sum(group.total_byte_size for group in groups), "of data")
    limit.check(metadata.num_rows * metadata.num_columns * _BYTES_PER_VALUE, "of cells")
    return raw_table(
        str(path), file.schema_arrow, metadata.num_rows, _batches(path, file, limit), "parquet", _conversions(file)
    )


def _batches(path: Path, file: pq.ParquetFile, limit: ExpansionLimit) -> Iterator[pa.RecordBatch]:
    try:
        for batch in file.iter_batches(batch_size=_READ_ROWS):
            limit.add(batch.nbytes)
            yield batch
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise TableError(f"{path} cannot be read as Parquet, it is damaged ({reason}); write it again") from None


def _conversions(file: pq.ParquetFile) -> dict[str, Convert]:
    """Return conversions for the Parquet types that Arrow reads as bytes."""
    found: dict[str, Convert] = {}
    types = {field.name: field.type for field in file.schema_arrow}
    for place in range(len(file.schema)):
        column = file.schema.column(place)
        names = (column.converted_type, column.logical_type.type)
        of_bytes = next((_OF_BYTES[name] for name in names if name in _OF_BYTES), None)
        if of_bytes and column.path in types and pa.types.is_fixed_size_binary(types[column.path]):
            found[column.path] = of_bytes
    return found


_OF_BYTES: dict[str, Convert] = {"INTERVAL": intervals_of_bytes, "UUID": uuids_of_bytes}

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


class ParquetTableWriter:
    """Writes a Parquet file in groups of rows.

    A column with a value that does not fit its type, such as an integer beyond 64 bits, becomes a string column from the
    first row on. It is counted as a change.
    """

    def __init__(self, export: ExportFile) -> None:
        self._export = export
        self._schema = pa.schema([(column.name, _TYPES[column.type]) for column in export.columns])
        self._waiting: list[Sequence[Cell]] = []
        self._n_files = 0

    def __enter__(self) -> WriteRows:
        self._folder = tempfile.TemporaryDirectory()
        self._writer, self._path = self._open()
        return self._add

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._folder:
            if kind is None:
                self._flush()
            self._writer.close()
            if kind is None:
                with self._path.open("rb") as written:
                    copyfileobj(written, self._export.file)

    def _add(self, rows: Sequence[ExportRow]) -> None:
        self._waiting.extend(row.cells for row in rows)
        if len(self._waiting) >= BATCH_ROWS:
            self._flush()

    def _flush(self) -> None:
        if not self._waiting:
            return
        columns = [self._encodable(cells) for cells in zip(*self._waiting, strict=True)]
        arrays = [_array(cells, field.type) for field, cells in zip(self._schema, columns, strict=True)]
        misfits = [field.name for field, array in zip(self._schema, arrays, strict=True) if array is None]
        if misfits:
            self._change_to_text(misfits)
            texts = (_array(cells, pa.string()) for cells in columns)
            arrays = [text if array is None else array for array, text in zip(arrays, texts, strict=True)]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))
        self._export.count_rows(len(self._waiting))
        self._waiting.clear()

    def _encodable(self, cells: Sequence[Cell]) -> list[Cell]:
        escape = self._export.representable
        return [escape(cell, without_surrogates) if isinstance(cell, str) else cell for cell in cells]

    def _open(self) -> tuple[pq.ParquetWriter, Path]:
        self._n_files += 1
        path = Path(self._folder.name) / f"{self._n_files}.parquet"
        return pq.ParquetWriter(path, self._schema, compression="zstd"), path

    def _change_to_text(self, names: Sequence[str]) -> None:
        """Make columns string columns, also in the rows that are already written."""
        self._export.changes["columns_as_text"] += len(names)
        fields = [pa.field(field.name, pa.string()) if field.name in names else field for field in self._schema]
        self._schema = pa.schema(fields)
        self._writer.close()
        written = pq.ParquetFile(self._path)
        self._writer, self._path = self._open()
        for group in range(written.num_row_groups):
            table = written.read_row_group(group)
            arrays = [
                _array(column.to_pylist(), field.type) if field.name in names else column
                for field, column in zip(self._schema, table.columns, strict=True)
            ]
            self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))


def _array(cells: Sequence[Any], kind: pa.DataType) -> pa.Array | None:
    """Return the cells as a column of the type, or None if one of them does not fit."""
    if kind == pa.string():
        return pa.array([None if cell is None else cell_text(cell) for cell in cells], kind)
    # Arrow would convert 0.5 to the integer 0.
    if not {type(cell) for cell in cells} <= _PYTHON_TYPES[kind]:
        return None
    try:
        return pa.array(cells, kind)
    except (pa.ArrowInvalid, OverflowError):
        return None
