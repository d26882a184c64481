"""A table of Arrow has the columns that pandas shows of it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmbatch_assets.adapters.tables.formats import read_table
from llmbatch_assets.adapters.tables.records import table_from_asset
from llmbatch_assets.domain.configuration.input_blocks import Input
from llmbatch_assets.domain.items.table import take_snapshot

LEFT_OUT = "the unnamed index of the data frame (__index_level_0__) is left out; name it to make it a column"


def snapshot_of(folder: Path, content: bytes) -> Any:
    path = folder / "t.parquet"
    path.write_bytes(content)
    return take_snapshot(read_table(path, Input()), "t.parquet", Input())


def saved(frame: pd.DataFrame) -> bytes:
    return bytes(frame.to_parquet())


FRAME = pd.DataFrame({"q": ["x", "y", "z"]})


@pytest.mark.parametrize(
    ("frame", "columns", "first", "warnings"),
    [
        (FRAME, ["q"], ["x"], []),
        (FRAME.set_index(pd.RangeIndex(101, 104, name="ticket")), ["q", "ticket"], ["x", "101"], []),
        (FRAME.set_index(pd.Index([7, 8, 9], name="ticket")), ["q", "ticket"], ["x", "7"], []),
        (FRAME[FRAME.q != "x"], ["q"], ["y"], [LEFT_OUT]),
    ],
    ids=["no index", "named range", "named index", "filtered"],
)
def test_a_named_index_is_a_column_and_an_unnamed_one_is_not(
    tmp_path: Path, frame: pd.DataFrame, columns: list[str], first: list[str], warnings: list[str]
) -> None:
    snapshot = snapshot_of(tmp_path, saved(frame))
    assert (snapshot.columns, list(snapshot.rows[0].values())) == (columns, first)
    assert snapshot.meta["warnings"] == warnings
    # The same table from another asset.
    assert table_from_asset(pa.Table.from_pandas(frame), "asset a").columns == columns


def test_a_range_counts_on_over_batches(tmp_path: Path) -> None:
    frame = pd.DataFrame({"q": ["x"] * 25_000}, index=pd.RangeIndex(0, 50_000, 2, name="n"))
    assert [row["n"] for row in snapshot_of(tmp_path, saved(frame)).rows] == [str(n) for n in range(0, 50_000, 2)]


@pytest.mark.parametrize("metadata", [b"{}", b"[", b'{"index_columns": 5}', b'{"index_columns": [{"kind": "range"}]}'])
def test_other_metadata_of_pandas_changes_nothing(tmp_path: Path, metadata: bytes) -> None:
    table = pa.table({"q": ["x"], "__index_level_0__": [1]}).replace_schema_metadata({b"pandas": metadata})
    content = io.BytesIO()
    pq.write_table(table, content)
    assert snapshot_of(tmp_path, content.getvalue()).columns == ["q", "__index_level_0__"]


def test_periods_are_what_pandas_shows(tmp_path: Path) -> None:
    frame = pd.DataFrame({"month": pd.period_range("2024-01", periods=2, freq="M"), "q": ["x", "y"]})
    assert [row["month"] for row in snapshot_of(tmp_path, saved(frame)).rows] == ["2024-01", "2024-02"]


def test_intervals_and_uuids_of_other_writers_are_read(tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    path = tmp_path / "d.parquet"
    duckdb.sql(
        "select interval '1 month 2 days 3 seconds' as i, uuid '7ed4bffc-f189-40b0-9090-c58e1cba14b8' as u"
    ).write_parquet(str(path))
    (row,) = snapshot_of(tmp_path, path.read_bytes()).rows
    assert row == {"i": "P1M2DT3S", "u": "7ed4bffc-f189-40b0-9090-c58e1cba14b8"}


def test_an_index_of_a_frame_that_an_asset_returns_is_named_as_left_out() -> None:
    table = table_from_asset(FRAME.set_index(pd.Index([7, 8, 9], name="ticket")), "asset a")
    assert table.columns == ["q"]
    assert table.warnings == [
        "the index 'ticket' of the data frame is left out; call reset_index() to make it a column"
    ]


def test_floats_of_32_bits_are_short_in_every_table() -> None:
    frame = pd.DataFrame({"p": pd.array([0.1, 132.04, None], dtype="float32")})
    arrow = pa.table({"p": pa.array([0.1, 132.04, None], pa.float32())})
    for value in (frame, frame.astype("Float32"), arrow, [{"p": p} for p in frame.p.to_numpy()]):
        snapshot = take_snapshot(table_from_asset(value, "asset a"), "asset a", Input())
        assert [row["p"] for row in snapshot.rows] == ["0.1", "132.04", ""]
