"""Frames: the dtype of a column comes from the schema, whatever the values are, and no value is lost."""

import datetime as dt
from collections.abc import Sequence
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from llmbatch_assets.adapters.tables.frames import arrow_table, data_frame
from llmbatch_assets.domain.export.typed_table import TypedColumn, TypedTable, ValueType


def table_of(kind: ValueType, *values: Any) -> TypedTable:
    return TypedTable([TypedColumn("x", kind, "parsed")], [(value,) for value in values])


@pytest.mark.parametrize(
    ("kind", "values", "dtype", "arrow"),
    [
        ("string", ["a", None], "string", pa.string()),
        ("string", [None, None], "string", pa.string()),
        ("integer", [1, None], "Int64", pa.int64()),
        ("integer", [1, 2], "Int64", pa.int64()),
        ("number", [1, 0.5, None], "float64", pa.float64()),
        ("boolean", [True, None], "boolean", pa.bool_()),
        ("date", [dt.date(2026, 1, 5), None], "object", pa.date32()),
        ("timestamp", ["2026-01-05", "2026-01-06T08:30:00.123456", None], "datetime64[us]", pa.timestamp("us")),
        (
            "timestamp",
            ["2026-03-29T01:00:00+01:00", "2026-03-29T03:00:00+02:00"],
            "datetime64[us, UTC]",
            pa.timestamp("us", tz="UTC"),
        ),
        ("json", [["a"], []], "object", pa.list_(pa.string())),
        # A column of lists without a value has no type in a database, so it is text.
        ("json", [None], "string", pa.string()),
        ("json", [{"a": 1}, None], "object", pa.struct({"a": pa.int64()})),
        # No row at all.
        ("integer", [], "Int64", pa.int64()),
        ("string", [], "string", pa.string()),
        ("timestamp", [], "datetime64[us]", pa.timestamp("us")),
    ],
)
def test_a_column_has_the_type_of_its_schema(
    kind: ValueType, values: Sequence[Any], dtype: str, arrow: pa.DataType
) -> None:
    table = table_of(kind, *values)
    assert str(data_frame(table)["x"].dtype) == dtype
    assert arrow_table(table).schema.field("x").type == arrow


def test_times_with_different_offsets_are_the_same_instants_in_utc() -> None:
    frame = data_frame(table_of("timestamp", "2026-03-29T01:00:00+01:00", "2026-03-29T03:00:00+02:00"))
    assert frame["x"].dt.hour.tolist() == [0, 1]


def test_a_date_beyond_nanoseconds_is_kept() -> None:
    # pandas' own nanoseconds end in 2262. Nanoseconds themselves are cut.
    table = table_of("timestamp", "9999-12-31", "2026-01-05T08:30:00.123456789", None)
    assert data_frame(table)["x"].dt.year.tolist()[:2] == [9999, 2026]
    assert arrow_table(table)["x"].to_pylist()[1] == dt.datetime(2026, 1, 5, 8, 30, 0, 123456)


def test_an_integer_beyond_64_bits_is_kept() -> None:
    table = table_of("integer", 10**30, 1)
    assert data_frame(table)["x"].tolist() == [10**30, 1]
    assert arrow_table(table)["x"].to_pylist() == [str(10**30), "1"]


def test_values_of_mixed_kinds_are_json_in_arrow() -> None:
    table = table_of("json", ["a"], {"b": 1}, "text", None)
    assert data_frame(table)["x"].tolist() == [["a"], {"b": 1}, "text", None]
    assert arrow_table(table)["x"].to_pylist() == ['["a"]', '{"b":1}', "text", None]


def test_columns_may_share_a_name_with_an_attribute_of_a_frame() -> None:
    columns = [TypedColumn(name, "integer", "parsed") for name in ("count", "index")]
    frame = data_frame(TypedTable(columns, [(1, 2)]))
    assert frame["count"].tolist() == [1]
    assert isinstance(frame, pd.DataFrame)
