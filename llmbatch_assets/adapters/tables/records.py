"""Tables of records: JSON Lines files, and tables that another Dagster asset returns."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

from llmbatch_assets.adapters.tables.delimited_reader import read_table_text
from llmbatch_assets.adapters.tables.expansion import BYTES_PER_CELL, ExpansionLimit
from llmbatch_assets.adapters.tables.export_file import ExportFile, WriteRows
from llmbatch_assets.domain.canonical import canonical_json
from llmbatch_assets.domain.configuration.input_blocks import Input
from llmbatch_assets.domain.items.table import RawTable
from llmbatch_assets.domain.text import escape_controls
from llmbatch_assets.errors import TableError


def read_records(path: Path, settings: Input) -> RawTable:
    """Read one JSON object per line. Columns are in order of first appearance; an absent value is None."""
    records = list(_objects(path, settings.encoding))
    columns = _columns_of(records)
    if not columns:
        raise TableError(f"{path}: the file has no records; each line must be a JSON object")
    # Ten thousand records, each with a different key, make a hundred million cells.
    n_absent = len(records) * len(columns) - sum(map(len, records))
    ExpansionLimit(path, settings.max_expanded_mb).check(n_absent * BYTES_PER_CELL, "of empty cells")
    return RawTable(columns, _cells_of(records, columns), "jsonl")


def _columns_of(records: Iterable[dict[Any, Any]]) -> list[str]:
    return list(dict.fromkeys(str(name) for record in records for name in record))


def _cells_of(records: Iterable[dict[Any, Any]], columns: Sequence[str]) -> Iterator[list[Any]]:
    return ([record.get(name) for name in columns] for record in records)


def _objects(path: Path, encoding: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(read_table_text(path, encoding).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line, parse_float=Decimal, object_pairs_hook=_with_unique_keys)
        except json.JSONDecodeError as error:
            hint = "; a JSON array is not JSON Lines, write one object per line" if line.lstrip()[0] == "[" else ""
            raise TableError(f"{path}: line {number} is not JSON: {error.msg} at column {error.colno}{hint}") from None
        except KeyError as key:
            raise TableError(f"{path}: line {number} is not JSON: the key {key} occurs twice in one object") from None
        except (ValueError, ArithmeticError, RecursionError):
            raise TableError(f"{path}: line {number} is not JSON: a number is too large or nesting too deep") from None
        if not isinstance(record, dict):
            kind = {list: "a JSON array", str: "a string", bool: "true or false"}.get(type(record), "a single value")
            raise TableError(f"{path}: line {number} holds {kind}, not an object; write one object per line")
        yield record


def _with_unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the pairs as a record. Raises ``KeyError`` with the first key that is repeated."""
    record = dict(pairs)
    if len(record) != len(pairs):
        counts = Counter(name for name, _ in pairs)
        raise KeyError(next(name for name in counts if counts[name] > 1))
    return record


@contextmanager
def export_jsonl(export: ExportFile) -> Iterator[WriteRows]:
    """Write each record as canonical JSON, with everything in it and not only the columns."""
    yield lambda rows: export.put_rows(escape_controls(canonical_json(row.record)) + "\n" for row in rows)


def table_from_asset(value: Any, name: str) -> RawTable:
    """Return the table that the asset ``name`` returned: a data frame, an Arrow table or a list of records.

    Raises ``TableError`` for anything else.
    """
    if hasattr(value, "itertuples"):
        return _table_of_frame(value)
    if hasattr(value, "to_dicts"):
        # polars.
        columns = [str(column) for column in value.columns]
        return RawTable(columns, _cells_of(value.to_dicts(), columns), "asset")
    if hasattr(value, "to_pylist") and hasattr(value, "schema"):
        return _table_of_arrow(value, name)
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        for number, record in enumerate(value, start=1):
            if not isinstance(record, dict):
                raise TableError(
                    f"{name}: record {number} is {type(record).__name__}; each record must be a dict of columns and values"
                )
        columns = _columns_of(value)
        return RawTable(columns, _cells_of(value, columns), "asset")
    raise TableError(
        f"{name} returns {type(value).__name__}; a table is a data frame, an Arrow table or a list of records"
    )


def _table_of_frame(frame: Any) -> RawTable:
    # pandas has special numbers and objects for missing values.
    plain = frame.astype(object).where(frame.notna(), None)
    columns = [plain.iloc[:, place].tolist() for place in range(plain.shape[1])]
    for place, kind in enumerate(frame.dtypes):
        if str(kind).lower() in ("float16", "float32"):
            # As short numbers: 0.1, not 0.10000000149011612.
            numbers = frame.iloc[:, place].to_numpy()
            columns[place] = [
                None if cell is None else float(str(number))
                for cell, number in zip(columns[place], numbers, strict=True)
            ]
    index = [str(name) for name in frame.index.names if name is not None]
    warnings = [
        f"the index {name!r} of the data frame is left out; call reset_index() to make it a column" for name in index
    ]
    rows = zip(*columns, strict=True) if columns else iter(())
    return RawTable([str(column) for column in frame.columns], rows, "asset", warnings)


def _table_of_arrow(table: Any, name: str) -> RawTable:
    from llmbatch_assets.adapters.tables.arrow_table import raw_table

    batches = table.to_batches() if hasattr(table, "to_batches") else [table]
    return raw_table(name, table.schema, table.num_rows, batches, "asset")
