"""Cleaning of cells and headers, and the snapshot made of them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbatch_assets.domain.configuration.input_blocks import Input
from llmbatch_assets.domain.items.cell import Cleaner, EscapedCell
from llmbatch_assets.domain.items.table import RawTable, clean_columns, nearest_first, take_snapshot
from llmbatch_assets.errors import TableError
from llmbatch_assets_tests.domain.strategies import quick


def clean_cell(cell: str, settings: Input) -> str:
    return next(Cleaner(settings, ["a"]).rows([[cell]]))["a"]


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("  plain  ", "plain"),
        # Every way to say "nothing".
        *((cell, "") for cell in ("None", "NaN", "n/a", "NULL", "[None]", " null ", "#N/A", "<NA>", "nil", "")),
        ("\u00a0NaN\ufeff", ""),
        # A word that only begins with a null token is kept.
        ("None of these", "None of these"),
        ("Nathan", "Nathan"),
        ("0", "0"),
        ("-", "-"),
        # One line, whatever the line breaks.
        ("a\nb\tc\r\nd", "a b c d"),
        ("a\u00a0b", "a b"),
        # Cells are never read as templates.
        ("{context} {{x}}", "{context} {{x}}"),
    ],
)
def test_a_cell_is_trimmed_flattened_and_emptied_if_it_means_null(cell: str, expected: str) -> None:
    assert clean_cell(cell, Input()) == expected


@pytest.mark.parametrize(
    ("cell", "escaped", "expected"),
    [
        (r"foo\,bar", ",", "foo,bar"),
        (r"foo\|bar", "|", "foo|bar"),
        # Only this table's delimiter is unescaped.
        (r"foo\,bar", "|", r"foo\,bar"),
        (r"C:\new", ",", r"C:\new"),
    ],
)
def test_an_escaped_delimiter_is_the_delimiter(cell: str, escaped: str, expected: str) -> None:
    assert clean_cell(EscapedCell.of(cell, escaped), Input()) == expected


def test_a_backslash_that_escapes_nothing_stays() -> None:
    assert clean_cell(r"foo\,bar", Input()) == r"foo\,bar"


def test_a_character_that_no_text_file_can_keep_is_refused() -> None:
    with pytest.raises(ValueError, match=r"row 1, column .a.: contains a NUL character"):
        clean_cell("x\0", Input())


def test_line_breaks_stay_where_they_are_wanted() -> None:
    assert clean_cell(" a\n b \n", Input(collapse_whitespace=False)) == "a\n b"


@quick
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_a_clean_cell_is_one_line_and_stays_as_it_is(cell: str) -> None:
    clean = clean_cell(cell, Input())
    assert not set("\n\r\t\v\f\x85\u2028\u2029") & set(clean)
    assert clean_cell(clean, Input()) == clean


def table(*rows: tuple[str, ...], columns: tuple[str, ...] = ("id", "text")) -> RawTable:
    """A table as a reader gives it."""
    return RawTable(columns, rows, "csv")


def test_null_tokens_of_the_user_replace_ours_and_are_compared_without_case() -> None:
    settings = Input(null_tokens=("Unknown",))
    (row,) = take_snapshot(table(("UNKNOWN", "None")), "t.csv", settings).rows
    assert row == {"id": "", "text": "None"}


@pytest.mark.parametrize(
    ("columns", "reported"),
    [
        (("id", "id"), r"t\.csv: columns 1 and 2 are both named 'id'"),
        # They differ only in invisible characters.
        (("id", "text", " id\u00a0"), r"columns 1 and 3 are both named 'id'"),
        (("id", ""), r"column 2 has no name"),
        (("\ufeff", "id"), r"column 1 has no name"),
    ],
)
def test_a_header_with_empty_or_repeated_names_is_refused(columns: tuple[str, ...], reported: str) -> None:
    with pytest.raises(TableError, match=reported):
        clean_columns(columns, "t.csv")


def test_a_header_is_cleaned_and_kept_in_order() -> None:
    assert clean_columns(["\ufeffid", " Course\nCode ", "Id"], "t.csv") == ["id", "Course Code", "Id"]


def test_a_required_column_that_is_missing_is_named_with_those_that_are_there() -> None:
    with pytest.raises(TableError, match=r"t\.csv: required column 'team' is missing; the table has: text, id"):
        take_snapshot(table(), "t.csv", Input(required_columns=("id", "team")))


def test_a_snapshot_has_the_shape_of_its_artifact() -> None:
    made = take_snapshot(table(("1", " a "), ("2", "NaN")), "raw_data/t.csv", Input())
    rows = [{"id": "1", "text": "a"}, {"id": "2", "text": ""}]
    assert made.model_dump() == {
        "meta": {
            "input_path": "raw_data/t.csv",
            "input_format": "csv",
            "n_rows": 2,
            "n_cols": 2,
            "columns": ["id", "text"],
            "cells_changed": {"null_token": {"text": 1}, "trimmed": {"text": 1}},
            "warnings": [],
        },
        "n_rows": 2,
        "n_cols": 2,
        "columns": ["id", "text"],
        "rows": rows,
        "records": rows,
    }


@pytest.mark.parametrize(("alias", "records"), [(True, []), (False, None)])
def test_the_alias_of_the_rows_is_there_if_wanted(alias: bool, records: Any) -> None:
    made = take_snapshot(table(), "t.csv", Input(records_alias=alias))
    assert (made.n_rows, made.rows, made.records) == (0, [], records)


def test_a_message_lists_the_nearest_of_many_columns_first_and_not_all_of_them() -> None:
    columns = [*(f"column {number}" for number in range(17_000)), "Question"]
    listed = nearest_first("question", columns)
    assert listed.startswith("Question (case matters), column 0, ")
    assert listed.endswith(" and 16,901 more")


@pytest.mark.parametrize(
    ("skips", "n_empty", "warning"),
    [
        (True, 1, "1 empty row (row 1) is skipped"),
        (True, 7, "7 empty rows (1, 2, 3, 4, 5, ...) are skipped"),
        (False, 1, "1 empty row (row 1) will cost a call; set input.skip_empty_rows: true"),
        (False, 2, "2 empty rows (1, 2) will each cost a call; set input.skip_empty_rows: true"),
    ],
)
def test_empty_rows_are_counted_and_named(skips: bool, n_empty: int, warning: str) -> None:
    made = take_snapshot(table(*[("", "n/a")] * n_empty, ("1", "a")), "t.csv", Input(skip_empty_rows=skips))
    assert made.meta["warnings"] == [warning]
    # They keep their place.
    assert made.n_rows == n_empty + 1
