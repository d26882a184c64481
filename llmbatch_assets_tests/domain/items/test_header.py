"""Advice names the row of column names only where one stands out."""

from __future__ import annotations

import pytest

from llmbatch_assets.domain.items.header import NumberedRow, header_advice, width_advice


def advised(*rows: list[str]) -> str:
    advice = header_advice([NumberedRow(number, cells) for number, cells in enumerate(rows, start=1)], "line")
    return advice.rpartition("input.header_row: ")[2]


@pytest.mark.parametrize(
    ("rows", "number"),
    [
        ([["# exported 2024-01-02"], ["# unit: EUR"], ["id", "color"], ["1", "red"]], "3"),
        ([["Query results"], ["id", "color"], ["1", "red"]], "2"),
        # As spreadsheets save a title.
        ([["Report", "", ""], ["", "", ""], ["id", "color", "size"], ["1", "red", ""]], "3"),
        ([["# a", "b"], ["# c"], ["id", "color", "size"], ["1", "red", "2"], ["1", "red", "2"]], "3"),
        # The header is the first row.
        ([["id", "color"], ["1", "red"], ["2", "blue", "x"]], ""),
        ([["id", "color"]], ""),
        ([["id"], ["1"], ["x", "y"]], ""),
        # The header lacks a name for the row numbers, or rows end with a delimiter.
        ([["id", "color"], ["a", "b", "red"], ["c", "d", "red"]], ""),
        ([["id", "color"], ["1", "red", ""], ["2", "blue", ""]], ""),
        # The header lacks a name, and a row of texts looks like names.
        ([["id", "", "color"], ["a", "b", "red"]], ""),
        # Nothing looks like names.
        ([["Report"], ["1", "2"], ["3", "4"]], ""),
        ([["id", "", "size"], ["1", "2", "3"]], ""),
    ],
)
def test_the_row_of_column_names_is_the_first_that_looks_like_it(rows: list[list[str]], number: str) -> None:
    assert advised(*rows) == number


@pytest.mark.parametrize(
    ("cells", "advice"),
    [
        (["1"], "Add the missing cells"),
        (["1", "2", ""], "The row ends with ','"),
        (["1", "2", "3"], "name their column in the header"),
        (["a", "2", "3"], "Quote cells that contain ','"),
        (["1", "2", "3", "4"], "Quote cells that contain ','"),
    ],
)
def test_a_row_of_another_width_is_explained(cells: list[str], advice: str) -> None:
    assert advice in width_advice(cells, 2, ",")
