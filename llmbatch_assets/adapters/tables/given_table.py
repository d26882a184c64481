"""Tables that another asset hands over instead of a file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from llmbatch_assets.domain.items.table import RawTable
from llmbatch_assets.errors import TableError


def given_table(value: Any, name: str) -> RawTable:
    """A data frame (pandas, polars), an Arrow table or a list of records as a table; ``name`` says whose it is.

    Raises ``TableError`` for anything else.
    """
    if hasattr(value, "itertuples"):
        # Missing values of pandas are numbers or objects of its own.
        plain = value.astype(object).where(value.notna(), None)
        return RawTable([str(column) for column in value.columns], plain.itertuples(index=False, name=None), "asset")
    for method in ("to_dicts", "to_pylist"):
        if hasattr(value, method):
            return _of_records(getattr(value, method)(), name, _columns(value))
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return _of_records(value, name, [])
    raise TableError(
        f"{name} gives {type(value).__name__}; a table is a data frame, an Arrow table or a list of records"
    )


def _columns(value: Any) -> list[str]:
    return [str(column) for column in getattr(value, "column_names", None) or value.columns]


def _of_records(records: Iterable[Any], name: str, columns: list[str]) -> RawTable:
    rows = list(records)
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise TableError(f"{name}: record {number} is {type(row).__name__}; each must be a dict of column to value")
    names = columns or list(dict.fromkeys(str(key) for row in rows for key in row))
    return RawTable(names, ([row.get(one) for one in names] for row in rows), "asset")
