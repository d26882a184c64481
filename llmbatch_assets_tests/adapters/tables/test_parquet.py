"""Parquet: columns have the types of the schema, and a value that does not fit costs the type and not the value."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmbatch_assets.adapters.tables.export_file import ExportFile, ExportRow
from llmbatch_assets.adapters.tables.parquet import BATCH_ROWS, ParquetTableWriter
from llmbatch_assets.domain.export.columns import Column, ColumnType

TYPES: dict[ColumnType, Any] = {
    "string": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
    "json": pa.string(),
}


def written(columns: Sequence[ColumnType], *chunks: Sequence[Sequence[Any]]) -> tuple[pa.Table, Counter[str], bytes]:
    file, changes = io.BytesIO(), Counter[str]()
    named = [Column(f"c{place}", "parsed", (), kind) for place, kind in enumerate(columns)]
    with ParquetTableWriter(ExportFile(file, named, False, changes)) as write:
        for chunk in chunks:
            write([ExportRow({}, row) for row in chunk])
    return pq.read_table(io.BytesIO(file.getvalue())), changes, file.getvalue()


def test_columns_have_the_types_of_the_schema() -> None:
    row = ["a", 5, 0.5, True, '["x"]']
    table, changes, _ = written(list(TYPES), [row, [None] * len(row)])
    assert [field.type for field in table.schema] == list(TYPES.values())
    assert [list(column) for column in zip(*[table.column(n).to_pylist() for n in range(5)], strict=True)] == [
        row,
        [None] * 5,
    ]
    assert changes == {}


def test_a_table_without_rows_has_its_columns() -> None:
    table, _, _ = written(list(TYPES))
    assert (table.num_rows, [field.type for field in table.schema]) == (0, list(TYPES.values()))


@pytest.mark.parametrize(
    ("kind", "value", "text"), [("integer", 2**63, str(2**63)), ("boolean", "x", "x"), ("integer", 0.5, "0.5")]
)
def test_a_column_with_a_value_that_does_not_fit_is_text_from_the_first_row_on(
    kind: ColumnType, value: Any, text: str
) -> None:
    fits: Any = {"integer": 7, "boolean": True}[kind]
    rows = [[fits, 1]] * BATCH_ROWS
    table, changes, _ = written([kind, "integer"], rows, [[value, 2]])
    assert [field.type for field in table.schema] == [pa.string(), pa.int64()]
    shown = {7: "7", True: "true"}[fits]
    assert table.column(0).to_pylist() == [shown] * BATCH_ROWS + [text]
    assert table.column(1).to_pylist() == [1] * BATCH_ROWS + [2]
    assert changes == {"columns_as_text": 1}


def test_the_same_rows_are_the_same_bytes_however_they_come() -> None:
    rows = [[str(number), number] for number in range(BATCH_ROWS)]
    together, apart = written(["string", "integer"], rows), written(["string", "integer"], rows[:10], rows[10:])
    assert together[2] == apart[2]
