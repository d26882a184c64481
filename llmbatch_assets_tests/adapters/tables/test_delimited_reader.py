"""The header is found where the settings say, and a row that does not fit is explained."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from llmbatch_assets.adapters.tables.formats import READERS, read_table
from llmbatch_assets.domain.configuration.input_blocks import Input
from llmbatch_assets.domain.items.cell import cell_text
from llmbatch_assets.errors import TableError
from llmbatch_assets_tests.tables import workbook

PREAMBLE = ["# exported 2024-01-02", "", "Query results"]
DELIMITERS = {"csv": ",", "psv": "|", "tsv": "\t"}


def read(path: Path, **settings: Any) -> tuple[list[str], list[list[str]], list[str]]:
    table = read_table(path, Input.model_validate(settings))
    rows = [list(map(cell_text, row)) for row in table.rows]
    return list(table.columns), rows, list(table.warnings)


def table_file(folder: Path, kind: str, *rows: list[str]) -> Path:
    """The preamble with a table below it."""
    path = folder / f"t.{kind}"
    if kind == "xlsx":
        path.write_bytes(workbook(*([line] for line in PREAMBLE), *rows))
    else:
        path.write_text("\n".join([*PREAMBLE, *(DELIMITERS[kind].join(row) for row in rows)]) + "\n")
    return path


@pytest.mark.parametrize("kind", [*DELIMITERS, "xlsx"])
@pytest.mark.parametrize("settings", [{"header_row": 4}, {"skip_rows": 3}, {"skip_rows": [1, 2, 3]}])
def test_rows_above_the_header_are_left_out(tmp_path: Path, kind: str, settings: dict[str, Any]) -> None:
    path = table_file(tmp_path, kind, ["id", "a"], ["1", "x"], ["2", "y"])
    assert read(path, **settings) == (["id", "a"], [["1", "x"], ["2", "y"]], [])


@pytest.mark.parametrize("kind", [*DELIMITERS, "xlsx"])
def test_rows_below_the_header_are_left_out_by_their_number_in_the_file(tmp_path: Path, kind: str) -> None:
    path = table_file(tmp_path, kind, ["id", "a"], ["(unit)", "(EUR)"], ["1", "x"], ["total", "1"])
    assert read(path, header_row=4, skip_rows=[5, 7])[1] == [["1", "x"]]


def test_a_row_of_several_lines_is_left_out_by_its_first(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('id,a\n1,"x\ny"\n2,z\n')
    assert read(path, skip_rows=[2])[1] == [["2", "z"]]
    with pytest.raises(TableError, match=r"input\.skip_rows skips every line"):
        read(path, skip_rows=9)
    assert read(path, skip_rows=[3])[1] == [["1", "x\ny"], ["2", "z"]]


def test_lines_above_the_header_may_be_no_csv_at_all(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('sep=;\n"open; quote\nid;a\n1;x\n')
    assert read(path, header_row=3)[:2] == (["id", "a"], [["1", "x"]])


@pytest.mark.parametrize("kind", [*DELIMITERS, "xlsx"])
@pytest.mark.parametrize("row", [2, 9])
def test_a_header_row_without_names_is_reported(tmp_path: Path, kind: str, row: int) -> None:
    path = table_file(tmp_path, kind, ["id", "a"], ["1", "x"])
    with pytest.raises(TableError, match=r"input\.header_row"):
        read(path, header_row=row)


@pytest.mark.parametrize(
    "settings",
    [{"header_row": 2, "skip_rows": 2}, {"header_row": 4, "skip_rows": [4]}, {"skip_rows": -1}, {"skip_rows": [0]}],
)
def test_settings_that_contradict_each_other_are_reported(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Input.model_validate(settings)
    assert Input(header_row=4, skip_rows=2).n_rows_above_header == 3


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "xlsx"])
def test_a_setting_without_effect_is_reported(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"t.{kind}"
    path.write_text('{"a": 1}\n')
    assert kind in READERS
    with pytest.raises(TableError, match=rf"input\.quoting has no effect on {kind} files; remove it"):
        read(path, quoting="none")


@pytest.mark.parametrize("kind", [*DELIMITERS, "xlsx"])
def test_the_advice_names_the_lines_above_the_header(tmp_path: Path, kind: str) -> None:
    path = table_file(tmp_path, kind, ["id", "a"], ["1", "x"], ["2", "y"])
    with pytest.raises(TableError) as refusal:
        read(path)
    assert "1 ('# exported 2024-01-02') looks like a title or comment" in str(refusal.value)
    assert str(refusal.value).endswith("4 ('id, a') seems to name the columns: if so, set input.header_row: 4")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a,b\n1,2,\n3,4,\n", "The row ends with ',', the header does not"),
        ("a,b,\n1,2,\n", "column 3 has no name; name it in the header line; the header ends with ','"),
        ("a,b\n1,x,y\n", "name their column in the header"),
        ("Report,,\n,,\nid,a,b\n1,2,3\n", "column 2 has no name; name it in the header line; line 1 ('Report')"),
    ],
)
def test_a_delimiter_too_many_is_explained(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(TableError) as refusal:
        read(path)
    assert told in str(refusal.value)


def test_two_comment_lines_that_look_like_a_table_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("# by me, today\n# a, b\nid,a\n")
    assert "lines 1 and 2 start with #" in read(path)[2][0]
    path.write_text("#id,a\n1,#b\n")
    assert read(path)[2] == []


# Dialects.

MERGED = 'id\ttext\tn\n1\t"Hello\t3\n2\tworld"\t3\n3\tx\t3\n'


def test_an_escaped_quote_before_a_delimiter_is_reported_and_read_with_a_setting(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('id,label\n1,"TV 55\\", black"\n2,"size 6\\", red"\n')
    with pytest.raises(TableError, match=r"line 2: .*escaped with a backslash \(line 2\).*input\.escape: backslash"):
        read(path)
    for escape in ("backslash", "\\"):
        assert read(path, escape=escape)[1] == [["1", 'TV 55", black'], ["2", 'size 6", red']]


def test_lines_that_plain_quotes_would_merge_are_reported_and_read_with_a_setting(tmp_path: Path) -> None:
    path = tmp_path / "t.tsv"
    path.write_text(MERGED)
    with pytest.raises(TableError, match=r"lines 2 to 3 are read as one row.*input\.quoting: none"):
        read(path)
    assert [row[0] for row in read(path, quoting="none")[1]] == ["1", "2", "3"]
    assert read(path, quoting="quoted")[1:] == ([["1", "Hello\t3\n2\tworld", "3"], ["3", "x", "3"]], [])


@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_two_columns_that_may_be_merged_are_reported_and_read_as_ever(tmp_path: Path, kind: str) -> None:
    path, mark = tmp_path / f"t.{kind}", DELIMITERS[kind]
    path.write_text(f'id{mark}text\n1{mark}"Hello\n2{mark}world"\n')
    _, rows, warnings = read(path)
    assert rows == [["1", f"Hello\n2{mark}world"]]
    assert "lines 2 to 3 are read as one row" in warnings[0]
    # A plain quote elsewhere leaves no doubt.
    path.write_text(f'id{mark}text\n1{mark}"Hello\n2{mark}world"\n3{mark}5" pipe\n')
    with pytest.raises(TableError, match=r"input\.quoting: none"):
        read(path)


@pytest.mark.parametrize(
    "text",
    [
        # A cell that ends with a backslash, cells of several lines, escaped delimiters.
        'id,a\n1,"C:\\dir\\"\n"C:\\",2\n3,foo\\,bar\n',
        'id,a\n1,"two\nlines"\n2,"say ""so"", please\nand, more"\n',
    ],
)
def test_usual_files_are_read_without_a_word(tmp_path: Path, text: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    assert read(path)[2] == []


def test_a_backslash_can_be_plain_text(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,b\nC:\\,D:\\\n")
    assert read(path, escape="none")[1] == [["C:\\", "D:\\"]]


def test_many_escaped_delimiters_and_many_lines_above_the_header_take_a_moment(tmp_path: Path) -> None:
    # Joining the cells one by one took two minutes.
    path = tmp_path / "t.csv"
    path.write_text("# comment\n" * 300_000 + "id,a\n1," + "x\\," * 500_000 + "y\n")
    began = time.monotonic()
    rows = read(path, header_row=300_001)[1]
    assert [len(cell) for cell in rows[0]] == [1, 1_500_001]
    assert time.monotonic() - began < 10
