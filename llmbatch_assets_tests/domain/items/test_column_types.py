"""Original column types: what a data frame, a workbook or a Parquet file says of a column survives the snapshot."""

import datetime as dt
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest

from llmbatch_assets.domain.configuration.input_blocks import Input
from llmbatch_assets.domain.items.column_types import InputType, column_type, typed_cell
from llmbatch_assets.domain.items.table import RawTable, take_snapshot


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ([int, type(None)], "integer"),
        ([int, float], "number"),
        ([Decimal], "number"),
        ([bool, type(None)], "boolean"),
        ([dt.date], "date"),
        ([dt.datetime, type(None)], "timestamp"),
        # A table that mixes them, or says nothing.
        ([bool, int], "string"),
        ([int, str], "string"),
        ([dt.timedelta], "string"),
        ([list], "string"),
        ([type(None)], "string"),
        ([], "string"),
    ],
)
def test_a_column_has_a_type_if_all_its_cells_have_it(kinds: Sequence[type], expected: InputType) -> None:
    assert column_type(kinds) == expected


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (7, "integer"),
        (-(10**30), "integer"),
        (0.1, "number"),
        (True, "boolean"),
        (False, "boolean"),
        (dt.date(2026, 1, 5), "date"),
        (None, "integer"),
        (None, "boolean"),
    ],
)
def test_a_cell_comes_back_from_the_snapshot(value: Any, kind: InputType) -> None:
    snapshot = take_snapshot(RawTable(["x"], [(value,)], "asset"), "table", Input())
    assert typed_cell(snapshot.rows[0]["x"], kind) == value


def test_the_snapshot_of_a_typed_table_names_its_types() -> None:
    rows = [(1, "007", 1.5, None), (None, "8", float("nan"), None)]
    table = RawTable(["id", "zip", "price", "note"], rows, "parquet")
    assert take_snapshot(table, "table", Input()).meta["column_types"] == {"id": "integer", "price": "number"}


def test_the_snapshot_of_a_text_table_is_as_before() -> None:
    assert "column_types" not in take_snapshot(RawTable(["id"], [("1",), ("2",)], "csv"), "table", Input()).meta


def test_empty_cells_do_not_make_a_number_text() -> None:
    # Workbooks give "" for an empty cell, here for more rows than are cleaned in one block.
    cells: list[tuple[Any]] = [("",)] * 150 + [(1.0,)] * 20
    assert take_snapshot(RawTable(["n"], cells, "xlsx"), "table", Input()).meta["column_types"] == {"n": "number"}


def test_one_text_cell_makes_the_column_text() -> None:
    cells: list[tuple[Any]] = [(1,)] * 150 + [("none of these",)] * 150
    assert "column_types" not in take_snapshot(RawTable(["n"], cells, "jsonl"), "table", Input()).meta
