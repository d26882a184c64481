"""Convert Arrow columns to Python values that have a text form.

Each value is converted independently: a nanosecond in one row never changes the text of another row. Values for which
Python has no type of the same precision become text here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from llmbatch_assets.errors import TableError

_NANOS_PER_SECOND = 10**9
_NANOS_PER_DAY = 86_400 * _NANOS_PER_SECOND


def cells_of(source: str, name: str, column: pa.Array) -> list[Any]:
    """Return the values of a column. Raises ``TableError`` with the column's name, its type and what to do."""
    try:
        return _values(column)
    except UnicodeDecodeError as error:
        raise TableError(f"{source}: column {name!r} holds text that is not UTF-8: {error.reason}") from None
    except (ValueError, OverflowError, pa.ArrowNotImplementedError) as error:
        raise TableError(
            f"{source}: column {name!r} ({column.type}) holds a value that cannot be read: {error}; write the column as text"
        ) from None


def zone_warnings(schema: pa.Schema) -> list[str]:
    """Return a warning for each column whose time zone is unknown. ``cells_of`` converts its times to UTC."""
    zones = {field.name: [zone for zone in _zones(field.type) if not _is_known_zone(zone)] for field in schema}
    return [
        f"column {name!r} has the unknown time zone {unknown[0]!r}; its times are read in UTC"
        for name, unknown in zones.items()
        if unknown
    ]


def _zones(kind: pa.DataType) -> list[str]:
    if pa.types.is_timestamp(kind):
        return [kind.tz] if kind.tz else []
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return _zones(kind.value_type)
    return [zone for place in range(kind.num_fields) for zone in _zones(kind.field(place).type)]


@lru_cache(maxsize=256)
def _is_known_zone(zone: str) -> bool:
    try:
        pa.array([0], pa.timestamp("s", zone)).to_pylist()
    except (KeyError, ValueError, OSError, pa.ArrowException):
        return False
    return True


def _values(column: pa.Array) -> list[Any]:
    for is_kind, convert in _CONVERSIONS:
        if is_kind(column.type):
            return convert(column)
    return list(column.to_pylist())


# Nested types.


def _of_extension(column: pa.ExtensionArray) -> list[Any]:
    if column.type.extension_name == "arrow.bool8":
        return list(column.to_pylist())
    if column.type.extension_name == "arrow.uuid":
        return [None if value is None else str(value) for value in column.to_pylist()]
    if column.type.extension_name == "pandas.period":
        return periods(column.storage, column.type.freq)
    return _values(column.storage)


def periods(ordinals: pa.Array, frequency: str) -> list[str | None]:
    """Return periods of pandas, which are stored as numbers, as text such as ``2024-01`` for a month."""
    import pandas as pd

    known = ordinals.fill_null(0).to_pylist()
    texts = map(str, pd.PeriodIndex.from_ordinals(known, freq=frequency))
    return [text if is_valid else None for text, is_valid in zip(texts, ordinals.is_valid().to_pylist(), strict=True)]


def _of_lists(column: pa.Array) -> list[Any]:
    """Return lists. A list view's parts may overlap; ``flatten`` repeats them."""
    parts, start = _values(column.flatten()), 0
    lists: list[list[Any] | None] = []
    for length in pc.list_value_length(column).to_pylist():
        if length is None:
            lists.append(None)
            continue
        lists.append(parts[start : start + length])
        start += length
    return lists


def _of_maps(column: pa.MapArray) -> list[Any]:
    """Return maps as lists of pairs, since a key may be of any type and occur twice."""
    keys, items = _values(column.keys), _values(column.items)
    ends = column.offsets.to_pylist()
    # In a slice, offsets count from the beginning of the whole array, and so do keys and items.
    spans = zip(ends[:-1], ends[1:], column.is_valid().to_pylist(), strict=True)
    return [list(zip(keys[a:b], items[a:b], strict=True)) if is_valid else None for a, b, is_valid in spans]


def _of_structs(column: pa.StructArray) -> list[Any]:
    names = [column.type.field(place).name for place in range(column.type.num_fields)]
    twice = [name for place, name in enumerate(names) if name in set(names[:place])]
    if twice:
        raise ValueError(f"two fields are named {twice[0]!r}")
    fields = [_values(field) for field in column.flatten()]
    rows = zip(*fields, strict=True) if fields else [()] * len(column)
    valid = column.is_valid().to_pylist()
    return [dict(zip(names, row, strict=True)) if is_valid else None for row, is_valid in zip(rows, valid, strict=True)]


# Numbers.


def _of_short_floats(column: pa.Array) -> list[float | None]:
    """Return floats of 16 or 32 bits as the shortest number that represents them: 0.1, not 0.10000000149011612."""
    numbers = column.to_numpy(zero_copy_only=False)
    valid = column.is_valid().to_pylist()
    return [float(str(number)) if is_valid else None for number, is_valid in zip(numbers, valid, strict=True)]


# Times. The finest unit of Python's own times is a microsecond.


def _of_timestamps(column: pa.Array) -> list[Any]:
    kind = column.type
    if kind.tz and not _is_known_zone(kind.tz):
        # The stored numbers are UTC, whatever the zone.
        kind = pa.timestamp(kind.unit, "UTC")
        column = column.cast(kind)
    if kind.unit != "ns":
        return list(column.to_pylist())
    return _with_nanoseconds(column, pa.timestamp("us", kind.tz), _arrow_text)


def _of_times(column: pa.Array) -> list[Any]:
    return _with_nanoseconds(column, pa.time64("us"), _arrow_text)


def _of_durations(column: pa.Array) -> list[Any]:
    return _with_nanoseconds(column, pa.duration("us"), _duration_texts)


def _with_nanoseconds(column: pa.Array, coarser: pa.DataType, texts_of: Callable[[pa.Array], list[str]]) -> list[Any]:
    """Return Python's times, and text for the values that have nanoseconds."""
    counts = column.cast(pa.int64())
    # Integer division rounds towards zero, and so does the cast.
    is_fine = pc.not_equal(pc.multiply(pc.divide(counts, 1000), 1000), counts).fill_null(False)
    cells: list[Any] = list(pc.if_else(is_fine, pa.scalar(None, column.type), column).cast(coarser).to_pylist())
    places = pc.indices_nonzero(is_fine)
    for place, text in zip(places.to_pylist(), texts_of(column.take(places)), strict=True):
        cells[place] = text
    return cells


def _arrow_text(column: pa.Array) -> list[str]:
    return list(pc.replace_substring(column.cast(pa.string()), " ", "T", max_replacements=1).to_pylist())


def _duration_texts(column: pa.Array) -> list[str]:
    counts = column.cast(pa.int64()).to_pylist()
    return [("-" if nanos < 0 else "") + iso_duration(0, *divmod(abs(nanos), _NANOS_PER_DAY)) for nanos in counts]


def _of_intervals(column: pa.Array) -> list[str | None]:
    return [None if value is None else iso_duration(*value) for value in column.to_pylist()]


def iso_duration(months: int, days: int, nanos: int) -> str:
    """Return an interval in ISO 8601. Each part has its own sign: a month less a day is ``P1M-1D``."""
    years, months = _parts(months, 12)
    seconds, nanos = _parts(nanos, _NANOS_PER_SECOND)
    minutes, seconds = _parts(seconds, 60)
    hours, minutes = _parts(minutes, 60)
    fraction = f".{abs(nanos):09}".rstrip("0") if nanos else ""
    sign = "-" if nanos < 0 and not seconds else ""
    date = _named(((years, "Y"), (months, "M"), (days, "D")))
    time = _named(((hours, "H"), (minutes, "M"))) + (f"{sign}{seconds}{fraction}S" if seconds or nanos else "")
    return f"P{date}T{time}" if time else f"P{date or 'T0S'}"


def _parts(number: int, unit: int) -> tuple[int, int]:
    """Divide towards zero, so that both parts have the number's sign."""
    whole, rest = divmod(abs(number), unit)
    return (-whole, -rest) if number < 0 else (whole, rest)


def _named(parts: Sequence[tuple[int, str]]) -> str:
    return "".join(f"{number}{letter}" for number, letter in parts if number)


def intervals_of_bytes(column: pa.Array) -> list[str | None]:
    """Return Parquet's own intervals: months, days and milliseconds, in 12 bytes."""
    return [
        None
        if value is None
        else iso_duration(
            *(int.from_bytes(value[at : at + 4], "little") * unit for at, unit in ((0, 1), (4, 1), (8, 10**6)))
        )
        for value in column.to_pylist()
    ]


def uuids_of_bytes(column: pa.Array) -> list[str | None]:
    """Return Parquet's own UUIDs: 16 bytes."""
    from uuid import UUID

    return [None if value is None else str(UUID(bytes=value)) for value in column.to_pylist()]


def _is_list(kind: pa.DataType) -> bool:
    types = pa.types
    return any(
        is_kind(kind)
        for is_kind in (
            types.is_list,
            types.is_large_list,
            types.is_fixed_size_list,
            types.is_list_view,
            types.is_large_list_view,
        )
    )


def _is_fine(kind: pa.DataType) -> bool:
    return getattr(kind, "unit", "") == "ns"


# The first match is used. All other types have Python values of the same precision.
_CONVERSIONS: list[tuple[Callable[[pa.DataType], bool], Callable[[Any], list[Any]]]] = [
    (lambda kind: isinstance(kind, pa.BaseExtensionType), _of_extension),
    (pa.types.is_dictionary, lambda column: _values(column.dictionary_decode())),
    (pa.types.is_run_end_encoded, lambda column: _values(pc.run_end_decode(column))),
    (pa.types.is_map, _of_maps),
    (_is_list, _of_lists),
    (pa.types.is_struct, _of_structs),
    (pa.types.is_timestamp, _of_timestamps),
    (lambda kind: pa.types.is_time(kind) and _is_fine(kind), _of_times),
    (lambda kind: pa.types.is_duration(kind) and _is_fine(kind), _of_durations),
    (pa.types.is_interval, _of_intervals),
    (lambda kind: pa.types.is_float16(kind) or pa.types.is_float32(kind), _of_short_floats),
]
