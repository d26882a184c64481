"""A table that an asset hands over is the table that a file would have been."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from llmbatch_assets.adapters.tables.records import read_records, table_from_asset
from llmbatch_assets.domain.configuration.input_blocks import Input
from llmbatch_assets.domain.items.table import take_snapshot
from llmbatch_assets.errors import TableError
from llmbatch_assets_tests.growth import assert_linear

RECORDS: list[dict[str, Any]] = [
    {"id": 1, "name": "Ada", "born": datetime(1815, 12, 10), "score": 0.5},
    {"id": 2, "name": None, "born": None, "score": None},
]
ROWS = [
    {"id": "1", "name": "Ada", "born": "1815-12-10", "score": "0.5"},
    {"id": "2", "name": "", "born": "", "score": ""},
]


@pytest.mark.parametrize("made", [list, pd.DataFrame, pa.Table.from_pylist])
def test_data_frames_arrow_tables_and_records_are_tables(made: Callable[[Any], Any]) -> None:
    snapshot = take_snapshot(table_from_asset(made(RECORDS), "asset a"), "asset a", Input())
    assert snapshot.columns == ["id", "name", "born", "score"]
    assert [{**row, "born": row["born"].removesuffix("T00:00:00")} for row in snapshot.rows] == ROWS
    assert snapshot.meta["input_format"] == "asset"


def test_a_column_that_some_records_lack_is_nothing_there() -> None:
    snapshot = take_snapshot(table_from_asset([{"a": 1}, {"b": 2}], "asset a"), "asset a", Input())
    assert snapshot.rows == [{"a": "1", "b": ""}, {"a": "", "b": "2"}]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (UUID(int=0), str(UUID(int=0))),
        (np.float32(0.1), "0.1"),
        (np.float32("nan"), ""),
        (np.int64(7), "7"),
        (np.array([[0.1, 2]], np.float32), "[[0.1,2]]"),
        ({"a": [UUID(int=0), np.float32(0.1)]}, f'{{"a":["{UUID(int=0)}",0.1]}}'),
        (pd.Timestamp(1), "1970-01-01T00:00:00.000000001"),
    ],
)
def test_values_of_other_libraries_have_a_text(value: Any, text: str) -> None:
    snapshot = take_snapshot(table_from_asset([{"a": value}], "asset a"), "asset a", Input())
    assert snapshot.rows == [{"a": text}]


@pytest.mark.parametrize("value", [{1, 2}, object(), 1j, np.datetime64("2020-01-01")])
def test_a_value_without_a_text_is_named_with_row_column_and_type(value: Any) -> None:
    for cell in (value, [value]):
        with pytest.raises(
            TableError, match=f"row 1, column 'a': is of type {type(value).__name__}.*convert it to text"
        ):
            take_snapshot(table_from_asset([{"a": cell}], "asset a"), "asset a", Input())


@pytest.mark.parametrize(
    ("value", "problem"), [(7, "asset a returns int"), ("text", "returns str"), ([1], "record 1 is int")]
)
def test_what_is_no_table_is_refused(value: Any, problem: str) -> None:
    with pytest.raises(TableError, match=problem):
        table_from_asset(value, "asset a")


def test_a_repeated_key_of_a_wide_record_is_found_at_once(tmp_path: Path) -> None:
    def reading(size: int) -> Any:
        path = tmp_path / f"{size}.jsonl"
        path.write_text("{" + "".join(f'"k{number}": 1, ' for number in range(size)) + f'"k{size - 1}": 2}}')

        def read() -> None:
            with pytest.raises(TableError, match="occurs twice"):
                read_records(path, Input())

        return read

    assert_linear(reading, 3_000)
