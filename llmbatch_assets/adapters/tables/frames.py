"""Typed tables as pandas DataFrames and Arrow tables."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
import pyarrow as pa

from llmbatch_assets.domain.canonical import canonical_json
from llmbatch_assets.domain.export.typed_table import TypedTable, ValueType

# Nullable types, so that the dtype of a column depends on the schema and not on whether a value is missing.
_DTYPES: dict[ValueType, str] = {"string": "string", "integer": "Int64", "boolean": "boolean", "number": "float64"}
_ARROW_TYPES: dict[ValueType, pa.DataType] = {
    "string": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
}


def data_frame(table: TypedTable) -> pd.DataFrame:
    """Return the table as a DataFrame. Lists and objects are Python lists and dicts."""
    columns = _columns(table)
    series = [_series(values, column.type) for column, values in zip(table.columns, columns, strict=True)]
    frame = pd.concat(series, axis=1) if series else pd.DataFrame()
    frame.columns = pd.Index([column.name for column in table.columns])
    return frame


def arrow_table(table: TypedTable) -> pa.Table:
    """Return the table as an Arrow table. Lists and objects are Arrow's, or JSON text if their types are mixed."""
    columns = _columns(table)
    arrays = [_array(values, column.type) for column, values in zip(table.columns, columns, strict=True)]
    return pa.Table.from_arrays(arrays, names=[column.name for column in table.columns])


# By the name of the class that an asset's parameter is annotated with.
FRAMES: dict[str, Callable[[TypedTable], Any]] = {"pandas.DataFrame": data_frame, "pyarrow.Table": arrow_table}


def _columns(table: TypedTable) -> list[Sequence[Any]]:
    return [*zip(*table.rows, strict=True)] if table.rows else [()] * len(table.columns)


def _series(values: Sequence[Any], kind: ValueType) -> pd.Series[Any]:
    if kind == "timestamp":
        return _timestamps(values).to_pandas()
    try:
        # Databases cannot tell the type of an object column without values.
        return pd.Series(values, dtype=_DTYPES.get(kind, "object" if _has_values(values) else "string"))
    except (TypeError, ValueError, OverflowError):
        # An integer beyond 64 bits, for example.
        return pd.Series(values, dtype="object")


def _has_values(values: Sequence[Any]) -> bool:
    return any(value is not None for value in values)


def _timestamps(values: Sequence[Any]) -> pa.Array:
    # Microseconds, since nanoseconds end in 2262, and tables have dates such as 9999-12-31.
    moments = [dt.datetime.fromisoformat(value) if value else None for value in values]
    if not any(moment and moment.tzinfo for moment in moments):
        return pa.array(moments, pa.timestamp("us"))
    # Offsets may differ within a column, so times with a zone become UTC.
    with_zone = (moment and moment.replace(tzinfo=moment.tzinfo or dt.UTC) for moment in moments)
    return pa.array(with_zone, pa.timestamp("us", tz="UTC"))


def _array(values: Sequence[Any], kind: ValueType) -> pa.Array:
    if kind == "timestamp":
        return _timestamps(values)
    try:
        return pa.array(values, _ARROW_TYPES.get(kind, None if _has_values(values) else pa.string()))
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError):
        return pa.array([one if one is None or isinstance(one, str) else canonical_json(one) for one in values])
