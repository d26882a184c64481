"""Every type of Arrow has a text, and a value's text depends on the value alone."""

from __future__ import annotations

import datetime as dt
import io
import uuid
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbatch_assets.adapters.tables.arrow_values import cells_of, iso_duration, zone_warnings
from llmbatch_assets.domain.items.cell import cell_text
from llmbatch_assets.errors import TableError
from llmbatch_assets_tests.domain.strategies import quick

ID = uuid.UUID("7ed4bffc-f189-40b0-9090-c58e1cba14b8")
NOON = dt.datetime(2024, 2, 29, 12)
NANOS = 1_709_211_907_123_456_789  # 2024-02-29T13:05:07.123456789


def ext(kind: Any, storage: Any) -> pa.Array:
    return pa.ExtensionArray.from_storage(kind, storage)


COLUMNS: list[tuple[pa.Array, list[str]]] = [
    # Numbers.
    *((pa.array([1, None], kind), ["1", ""]) for kind in (pa.int8(), pa.uint8(), pa.int16(), pa.uint16(), pa.int32())),
    *((pa.array([1, None], kind), ["1", ""]) for kind in (pa.uint32(), pa.int64(), pa.uint64())),
    (pa.array([2**64 - 1], pa.uint64()), [str(2**64 - 1)]),
    (pa.array([0.1, 132.04, 1e20, 1.0, None], pa.float32()), ["0.1", "132.04", "1" + "0" * 20, "1", ""]),
    (pa.array([0.1, None], pa.float16()), ["0.1", ""]),
    (pa.array([0.1, float("nan")], pa.float64()), ["0.1", ""]),
    *(
        (pa.array([Decimal("1.10"), None], kind), ["1.1", ""])
        for kind in (pa.decimal32(5, 2), pa.decimal64(9, 2), pa.decimal128(20, 2), pa.decimal256(50, 2))
    ),
    (pa.array([True, False, None]), ["true", "false", ""]),
    (pa.nulls(1), [""]),
    # Texts and bytes.
    *((pa.array(["é", None], kind), ["é", ""]) for kind in (pa.string(), pa.large_string(), pa.string_view())),
    *((pa.array([b"x", None], kind), ["x", ""]) for kind in (pa.binary(), pa.large_binary(), pa.binary_view())),
    (pa.array([b"ab", None], pa.binary(2)), ["ab", ""]),
    # Times.
    *((pa.array([NOON.date(), None], kind), ["2024-02-29", ""]) for kind in (pa.date32(), pa.date64())),
    *((pa.array([NOON, None], pa.timestamp(unit)), ["2024-02-29T12:00:00", ""]) for unit in ("s", "ms", "us", "ns")),
    (pa.array([NANOS], pa.timestamp("ns")), ["2024-02-29T13:05:07.123456789"]),
    (pa.array([NOON], pa.timestamp("ms", "Asia/Tokyo")), ["2024-02-29T21:00:00+09:00"]),
    (pa.array([NOON], pa.timestamp("ns", "+02:00")), ["2024-02-29T14:00:00+02:00"]),
    (pa.array([NOON, None], pa.timestamp("us", "tzutc()")), ["2024-02-29T12:00:00+00:00", ""]),
    *((pa.array([dt.time(1, 2), None], kind), ["01:02:00", ""]) for kind in (pa.time32("s"), pa.time32("ms"))),
    *((pa.array([dt.time(1, 2), None], kind), ["01:02:00", ""]) for kind in (pa.time64("us"), pa.time64("ns"))),
    *((pa.array([dt.timedelta(1, 5), None], pa.duration(unit)), ["P1DT5S", ""]) for unit in ("s", "ms", "us", "ns")),
    (pa.array([1, -1], pa.duration("ns")), ["PT0.000000001S", "-PT0.000000001S"]),
    (pa.array([(14, -3, 5_400 * 10**9), None], pa.month_day_nano_interval()), ["P1Y2M-3DT1H30M", ""]),
    # Types made of others.
    *(
        (pa.array([[0.1, None], None, []], kind(pa.float32())), ["[0.1,null]", "", "[]"])
        for kind in (pa.list_, pa.large_list, pa.list_view, pa.large_list_view)
    ),
    (pa.array([[1, 2], None], pa.list_(pa.int8(), 2)), ["[1,2]", ""]),
    (
        pa.array([[NANOS], [0]], pa.list_(pa.timestamp("ns"))),
        ['["2024-02-29T13:05:07.123456789"]', '["1970-01-01"]'],
    ),
    (pa.array([[("a", 0.1)], None, []], pa.map_(pa.string(), pa.float32())), ['[["a",0.1]]', "", "[]"]),
    (
        pa.array([{"x": [0.1], "t": 1}, None], pa.struct({"x": pa.list_(pa.float32()), "t": pa.time64("ns")})),
        ['{"t":"00:00:00.000000001","x":[0.1]}', ""],
    ),
    (pa.array(["x", None]).dictionary_encode(), ["x", ""]),
    (pa.array([NANOS, 0], pa.timestamp("ns")).dictionary_encode(), ["2024-02-29T13:05:07.123456789", "1970-01-01"]),
    (pc.run_end_encode(pa.array([0.1, 0.1], pa.float32())), ["0.1", "0.1"]),
    (pa.UnionArray.from_sparse(pa.array([0, 1], pa.int8()), [pa.array([1, 2]), pa.array(["a", "b"])]), ["1", "b"]),
    # Extension types.
    (pa.array([ID.bytes, None], pa.uuid()), [str(ID), ""]),
    (pa.ListArray.from_arrays([0, 1], pa.array([ID.bytes], pa.uuid())), [f'["{ID}"]']),
    (ext(pa.json_(), pa.array(['{"a":1}'])), ['{"a":1}']),
    (ext(pa.bool8(), pa.array([1, 0, None], pa.int8())), ["true", "false", ""]),
    (ext(pa.opaque(pa.string(), "a", "b"), pa.array(["x"])), ["x"]),
    (ext(pa.fixed_shape_tensor(pa.int8(), [2]), pa.array([[1, 2]], pa.list_(pa.int8(), 2))), ["[1,2]"]),
]


def texts_of(column: pa.Array) -> list[str]:
    return [cell_text(cell) for cell in cells_of("t.parquet", "a", column)]


@pytest.mark.parametrize(("column", "texts"), COLUMNS, ids=lambda value: str(getattr(value, "type", "")))
def test_every_type_has_a_text(column: pa.Array, texts: list[str]) -> None:
    assert texts_of(column) == texts
    # No other row changes a value's text.
    for place, text in enumerate(texts):
        assert texts_of(column.slice(place, 1)) == [text]


@pytest.mark.parametrize(("column", "texts"), COLUMNS, ids=lambda value: str(getattr(value, "type", "")))
def test_a_file_keeps_the_text(column: pa.Array, texts: list[str]) -> None:
    saved = io.BytesIO()
    try:
        pq.write_table(pa.table({"a": column}), saved)
    except pa.ArrowNotImplementedError:
        pytest.skip(f"Parquet has no {column.type}")
    assert texts_of(pq.read_table(saved).column(0).combine_chunks()) == texts


@quick
@given(
    nanos=st.lists(st.integers(-(10**18), 10**18) | st.integers(-(10**9), 10**9).map(lambda n: n * 1000), min_size=1),
    kind=st.sampled_from([pa.timestamp("ns"), pa.timestamp("ns", "Asia/Tokyo"), pa.duration("ns")]),
)
def test_a_time_has_its_own_text_whatever_other_rows_hold(nanos: list[int], kind: pa.DataType) -> None:
    assert texts_of(pa.array(nanos, kind)) == [text for one in nanos for text in texts_of(pa.array([one], kind))]


def test_a_column_without_a_text_is_named_with_its_type_and_a_remedy() -> None:
    twice = pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], names=["x", "x"])
    for column, problem in (
        (twice, "two fields are named 'x'"),
        (pa.array([2**60], pa.timestamp("us")), "out of range"),
    ):
        with pytest.raises(TableError) as refusal:
            texts_of(column)
        assert str(refusal.value).startswith(f"t.parquet: column 'a' ({column.type}) holds a value that cannot be read")
        assert problem in str(refusal.value)
        assert str(refusal.value).endswith("write the column as text")


@pytest.mark.parametrize(
    "kind",
    [
        pa.timestamp("us", "tzutc()"),
        pa.list_(pa.timestamp("us", "tzutc()")),
        pa.dictionary(pa.int8(), pa.timestamp("us", "tzutc()")),
    ],
)
def test_an_unknown_time_zone_is_named_with_its_column(kind: pa.DataType) -> None:
    schema = pa.schema({"a": kind, "b": pa.timestamp("us", "Asia/Tokyo"), "c": pa.timestamp("us")})
    assert zone_warnings(schema) == ["column 'a' has the unknown time zone 'tzutc()'; its times are read in UTC"]


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ((0, 0, 0), "PT0S"),
        ((0, 1, 0), "P1D"),
        ((1, -1, 0), "P1M-1D"),
        ((0, 0, -500_000_000), "PT-0.5S"),
        ((0, 0, -60_500_000_000), "PT-1M-0.5S"),
        ((-13, 0, 3_600 * 10**9), "P-1Y-1MT1H"),
    ],
)
def test_intervals_are_iso_8601(parts: tuple[int, int, int], text: str) -> None:
    assert iso_duration(*parts) == text
