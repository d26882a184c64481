"""A table that an asset hands over is the table that a file would have been."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

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
