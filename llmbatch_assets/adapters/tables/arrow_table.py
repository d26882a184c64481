"""Tables of Arrow: their cells, and the index that pandas stores with them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import pyarrow as pa

from llmbatch_assets.adapters.tables.arrow_values import cells_of, periods, zone_warnings
from llmbatch_assets.domain.items.table import RawTable

# The name under which pandas stores an unnamed index.
_UNNAMED_INDEX = re.compile(r"__index_level_\d+__")
Convert = Callable[[pa.Array], list[Any]]


class PandasIndex(NamedTuple):
    """The index of the data frame that was stored as this table."""

    # Columns that only number the rows.
    unnamed: list[str]
    # Named, and stored as a range without a column.
    ranges: dict[str, range]


def raw_table(
    source: str,
    schema: pa.Schema,
    n_rows: int,
    batches: Iterable[pa.RecordBatch],
    file_format: str,
    conversions: Mapping[str, Convert] | None = None,
) -> RawTable:
    """Return the table with these batches. ``conversions`` are for columns whose Arrow type is not specific enough."""
    index = _pandas_index(schema, n_rows)
    conversions = {**_period_conversions(schema), **(conversions or {})}
    names = schema.names
    kept = [place for place, name in enumerate(names) if name not in index.unnamed]
    warnings = zone_warnings(schema)
    if index.unnamed:
        listed = ", ".join(index.unnamed)
        warnings.append(f"the unnamed index of the data frame ({listed}) is left out; name it to make it a column")
    converted = [conversions.get(names[place], partial(cells_of, source, names[place])) for place in kept]
    columns = [*(names[place] for place in kept), *index.ranges]
    return RawTable(columns, _rows(batches, kept, converted, index), file_format, warnings)


def _rows(
    batches: Iterable[pa.RecordBatch], kept: list[int], converted: list[Convert], index: PandasIndex
) -> Iterator[tuple[Any, ...]]:
    start = 0
    for batch in batches:
        columns = [convert(batch.column(place)) for convert, place in zip(converted, kept, strict=True)]
        end = start + batch.num_rows
        columns += [list(values[start:end]) for values in index.ranges.values()]
        yield from zip(*columns, strict=True)
        start = end


def _pandas_index(schema: pa.Schema, n_rows: int) -> PandasIndex:
    """Find the index in the metadata that pandas writes: https://pandas.pydata.org/docs/development/developer.html."""
    try:
        stored = json.loads((schema.metadata or {})[b"pandas"])["index_columns"]
        unnamed = [name for name in stored if isinstance(name, str) and _UNNAMED_INDEX.fullmatch(name)]
        named = [one for one in stored if isinstance(one, dict) and one["kind"] == "range" and one["name"] is not None]
        values = {str(one["name"]): range(one["start"], one["stop"], one["step"]) for one in named}
    except (ValueError, KeyError, TypeError):
        # Not pandas' metadata.
        return PandasIndex([], {})
    # Like pandas, ignore a range of another length: the file was cut or joined after pandas wrote it.
    usable = {name: one for name, one in values.items() if len(one) == n_rows and name not in schema.names}
    return PandasIndex(unnamed, usable)


def _period_conversions(schema: pa.Schema) -> dict[str, Convert]:
    """Return conversions of pandas' periods, which are plain numbers until pandas is imported."""
    found: dict[str, Convert] = {}
    for field in schema:
        metadata = field.metadata or {}
        if metadata.get(b"ARROW:extension:name") == b"pandas.period" and pa.types.is_int64(field.type):
            frequency = json.loads(metadata[b"ARROW:extension:metadata"])["freq"]
            found[field.name] = partial(periods, frequency=frequency)
    return found
