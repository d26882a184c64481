"""Limits of exports are reported before any calls, as far as the table and schema show them."""

from __future__ import annotations

from typing import Any

import pytest

from llmbatch_assets.domain.configuration.output_blocks import Explode
from llmbatch_assets.domain.export.columns import Column, OutputSchema
from llmbatch_assets.domain.export.limits import XLSX_CHARS, XLSX_COLUMNS, XLSX_ROWS, require_columns_fit, size_warnings
from llmbatch_assets.domain.export.records import Join, JoinMode
from llmbatch_assets.domain.items.table import Snapshot
from llmbatch_assets.errors import ConfigError


def join_of(rows: list[dict[str, str]], mode: JoinMode = "rows", most: int = 0) -> Join:
    columns = list(rows[0]) if rows else ["text"]
    snapshot = Snapshot(meta={}, n_rows=len(rows), n_cols=len(columns), columns=columns, rows=rows)
    return Join(snapshot, "team", mode, Explode(), most)


def columns_of(*names: str) -> list[Column]:
    return [Column(name, "input", (name,)) for name in names]


@pytest.mark.parametrize("formats", [["xlsx"], ["csv", "xlsx"]])
def test_more_columns_than_a_sheet_has_are_a_mistake(formats: list[str]) -> None:
    require_columns_fit(formats, columns_of("x") * XLSX_COLUMNS)
    with pytest.raises(
        ConfigError, match="the export has 16,385 columns, but an xlsx sheet holds at most 16,384; remove xlsx"
    ):
        require_columns_fit(formats, columns_of("x") * (XLSX_COLUMNS + 1))


def test_other_formats_hold_any_number_of_columns_and_rows() -> None:
    formats = ["csv", "tsv", "psv", "jsonl", "parquet"]
    require_columns_fit(formats, columns_of("x") * 100_000)
    assert size_warnings(formats, columns_of("x" * 40_000), join_of([{"text": "x" * 40_000}] * 2_000_000)) == []


@pytest.mark.parametrize(
    ("mode", "most", "rows", "n_sheets"),
    [
        ("rows", 0, [{"team": "a"}] * (XLSX_ROWS - 1), 0),
        ("rows", 0, [{"team": "a"}] * XLSX_ROWS, 2),
        ("rows", 0, [{"team": "a"}] * (2 * XLSX_ROWS), 3),
        ("expand", 0, [{"team": "a"}] * XLSX_ROWS, 2),
        ("expand", 10, [{"team": "a"}] * XLSX_ROWS, 0),
        ("one", 0, [{"team": "a"}] * XLSX_ROWS, 0),
        # The outputs decide how many there are.
        ("explode", 0, [{"team": "a"}] * XLSX_ROWS, 0),
    ],
)
def test_rows_beyond_a_sheet_are_reported(mode: JoinMode, most: int, rows: list[dict[str, str]], n_sheets: int) -> None:
    told = size_warnings(["xlsx"], columns_of("team"), join_of(rows, mode, most))
    assert [line.split(" need ")[1].split(",")[0] for line in told] == ([f"{n_sheets} xlsx sheets"] if n_sheets else [])


def test_cells_and_names_that_excel_cuts_are_reported_by_column() -> None:
    name = "n" * (XLSX_CHARS + 1)
    rows = [
        {"text": "x" * XLSX_CHARS, name: ""},
        {"text": "x" * (XLSX_CHARS + 1), name: ""},
        # Excel counts such a character as two.
        {"text": "🎉" * (XLSX_CHARS // 2 + 1), name: "y" * 50_000},
    ]
    told = size_warnings(["xlsx"], columns_of("text", name), join_of(rows))
    assert len(told) == 3
    assert told[0].startswith(f"outputs.formats: the name of column '{'n' * 60} …[cut]' will be cut in xlsx at 32,767")
    assert told[1].startswith("outputs.formats: 2 cells of column 'text' will be cut in xlsx at 32,767 characters")
    assert all(len(line) < 300 for line in told)


def test_a_schema_that_flattens_into_very_many_columns_is_refused_at_once() -> None:
    # Each object has eight fields of the next one: 8 to the power of 20 columns.
    definitions: dict[str, Any] = {
        "M20": {"type": "object", "properties": {"x": {"type": "string"}}, "additionalProperties": False}
    }
    for level in range(20):
        fields = {f"f{number}": {"$ref": f"#/$defs/M{level + 1}"} for number in range(8)}
        definitions[f"M{level}"] = {"type": "object", "properties": fields, "additionalProperties": False}
    schema = OutputSchema({"$ref": "#/$defs/M0", "$defs": definitions})
    with pytest.raises(ConfigError, match=r"more than 100,000 columns; set outputs\.nested: json"):
        join_of([]).columns(schema, {}, flatten=True)
