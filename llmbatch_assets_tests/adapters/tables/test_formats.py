"""Cells as programs write them, and tables that are none."""

import csv
import datetime as dt
import json
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from llmbatch_assets.adapters.tables.formats import read_table
from llmbatch_assets.domain.configuration.input_blocks import Input
from llmbatch_assets.domain.items.table import take_snapshot
from llmbatch_assets.errors import TableError
from llmbatch_assets_tests.tables import add_sheet, parquet, parquet_of, protected_workbook, workbook

DELIMITERS = {"csv": ",", "psv": "|", "tsv": "\t"}
EXOTIC = [
    ["plain", "a,b|c\td", 'say "so"', ""],
    ["two\nlines", "two\r\nlines", "\rreturn", " blanks "],
    ["née 表 🎉", "'", '"', '""'],
    ["=1+1", "\\", "\\n", "#"],
]


def read(path: Path, **settings: object) -> tuple[list[str], list[list[Any]]]:
    table = read_table(path, Input.model_validate(settings))
    return list(table.columns), [list(row) for row in table.rows]


def refused(path: Path, content: bytes, **settings: object) -> str:
    path.write_bytes(content)
    with pytest.raises(TableError) as refusal:
        read(path, **settings)
    assert str(path) in str(refusal.value)
    return str(refusal.value)


@pytest.mark.parametrize("file_format", DELIMITERS)
def test_what_the_standard_library_writes_is_read_back(tmp_path: Path, file_format: str) -> None:
    path = tmp_path / f"input.{file_format}"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=DELIMITERS[file_format]).writerows([list("abcd"), *EXOTIC])
    assert read(path) == (list("abcd"), EXOTIC)


@pytest.mark.parametrize("file_format", DELIMITERS)
def test_an_escaped_delimiter_belongs_to_its_cell(tmp_path: Path, file_format: str) -> None:
    # Seen in exports of programs that do not quote.
    path, delimiter = tmp_path / f"input.{file_format}", DELIMITERS[file_format]
    path.write_text(f"a{delimiter}b\nfoo\\{delimiter}bar{delimiter}2\n")
    columns, rows = read(path)
    assert (columns, [len(row) for row in rows]) == (["a", "b"], [2])


def test_the_format_can_be_named(tmp_path: Path) -> None:
    (tmp_path / "input.txt").write_text("a|b\n1|2\n")
    assert read(tmp_path / "input.txt", format="psv") == (["a", "b"], [["1", "2"]])


def test_a_suffix_in_capitals_is_a_suffix(tmp_path: Path) -> None:
    (tmp_path / "INPUT.CSV").write_text("a\n1\n")
    assert read(tmp_path / "INPUT.CSV") == (["a"], [["1"]])


def test_an_unknown_suffix_is_reported_with_the_formats(tmp_path: Path) -> None:
    assert "set input.format to csv, psv, tsv" in refused(tmp_path / "input.dat", b"a\n1\n")


def test_a_missing_table_is_reported_with_the_key_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"input\.csv does not exist; set input\.path"):
        read(tmp_path / "input.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(TableError, match=r"folder\.csv"):
        read(tmp_path / "folder.csv")


@pytest.mark.parametrize("encoding", ["utf-8", "UTF-8", "utf8", "cp1252", "utf-16"])
def test_encodings_and_byte_order_marks_are_read(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "input.csv").write_text("naïve,b\n1,2\n", encoding="utf-8-sig" if "8" in encoding else encoding)
    assert read(tmp_path / "input.csv", encoding=encoding)[0] == ["naïve", "b"]


def test_a_wrong_encoding_is_reported_with_the_byte(tmp_path: Path) -> None:
    assert "byte 8 (line 2) is not utf-8" in refused(tmp_path / "i.csv", "a,b\n1,na\xefve".encode("cp1252"))
    assert "is not utf-16" in refused(tmp_path / "i.csv", b"a,b\n1,2", encoding="utf-16")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "the file is empty; its first line must name the columns"),
        (b"\n\n", "the file is empty"),
        (b"\xef\xbb\xbf", "the file is empty"),
        (b"a,b\n1,2\n1\n", "row 2 has 1 cell, the header has 2"),
        (b"a,b\n1,2,3\n", "row 1 has 3 cells, the header has 2"),
        (b"a,b\n1,\x00\n", "line 2 holds a NUL character"),
        (b'a,b\n1,"open\n', "in the row that begins on line 2: a quote is not closed"),
        (b'a,b\n1,"x"y\n', "line 2"),
        (b"PK\x03\x04\x00\x00", "is a workbook"),
    ],
)
def test_what_is_no_table_is_reported_with_its_place(tmp_path: Path, content: bytes, told: str) -> None:
    assert told in refused(tmp_path / "input.csv", content)


def test_a_header_alone_is_a_table_without_rows(tmp_path: Path) -> None:
    (tmp_path / "input.csv").write_text("a,b\n")
    assert read(tmp_path / "input.csv") == (["a", "b"], [])


def test_blank_lines_are_no_rows(tmp_path: Path) -> None:
    (tmp_path / "input.csv").write_bytes(b"\r\na,b\r\n\r\n1,2\r\n\r\n")
    assert read(tmp_path / "input.csv") == (["a", "b"], [["1", "2"]])


def test_a_cell_may_hold_a_document(tmp_path: Path) -> None:
    # The standard library's own limit is 131,072 characters.
    (tmp_path / "input.csv").write_text(f"a,b\n{'x' * 200_000},2\n")
    assert len(read(tmp_path / "input.csv")[1][0][0]) == 200_000


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="nothing is unreadable for this user")
def test_a_table_that_may_not_be_read_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "input.csv"
    path.write_text("a\n1\n")
    path.chmod(0)
    with pytest.raises(TableError, match=r"input\.csv"):
        read(path)


# Workbooks.


def read_sheet(folder: Path, content: bytes, **settings: object) -> tuple[list[str], list[list[Any]]]:
    (folder / "input.xlsx").write_bytes(content)
    return read(folder / "input.xlsx", **settings)


def test_a_sheet_gives_values_and_not_what_it_shows_of_them(tmp_path: Path) -> None:
    day, moment = dt.date(2024, 2, 29), dt.datetime(2024, 2, 29, 13, 5, 7)

    def show_otherwise(_book: Any, sheet: Any) -> None:
        sheet["A2"].number_format = "000"
        sheet["B2"].number_format = "0%"

    content = workbook("abcdef", (7, 0.5, True, day, moment, "007"), change=show_otherwise)
    assert read_sheet(tmp_path, content) == (list("abcdef"), [[7, 0.5, True, day, moment, "007"]])


def test_cells_around_a_table_that_hold_nothing_are_none_of_it(tmp_path: Path) -> None:
    content = workbook("ab", (1, 2), (None, None), (3, None), (None, ""), (None, None, None, ""))
    assert read_sheet(tmp_path, content) == (["a", "b"], [[1, 2], ["", ""], [3, ""]])


@pytest.mark.parametrize(("sheet", "column"), [("Data", "a"), ("More", "b"), ("3", "c"), (1, "a"), (2, "b"), (3, "c")])
def test_a_sheet_is_found_by_name_and_by_number(tmp_path: Path, sheet: str | int, column: str) -> None:
    def add_two(book: Any, first: Any) -> None:
        add_sheet("More", "b", state="hidden")(book, first)
        add_sheet("3", "c", state="veryHidden")(book, first)

    assert read_sheet(tmp_path, workbook("a", change=add_two), sheet=sheet) == ([column], [])


@pytest.mark.parametrize(
    "content", [b"", b"a,b\n1,2\n", b"PK\x03\x04", workbook("ab")[:500], b"\xd0\xcf\x11\xe0" * 400]
)
def test_what_is_no_workbook_is_reported_as_such(tmp_path: Path, content: bytes) -> None:
    assert "cannot be read as a workbook" in refused(tmp_path / "input.xlsx", content)


def test_a_password_is_reported_as_a_password(tmp_path: Path) -> None:
    assert "protected by a password; save it without one" in refused(tmp_path / "input.xlsx", protected_workbook())
    renamed = protected_workbook().replace(
        "EncryptedPackage".encode("utf-16-le"), "SomethingElse   ".encode("utf-16-le")
    )
    assert "protected" not in refused(tmp_path / "input.xlsx", renamed)


# JSON Lines.


def read_lines(folder: Path, text: str) -> tuple[list[str], list[list[Any]]]:
    (folder / "input.jsonl").write_text(text, encoding="utf-8")
    return read(folder / "input.jsonl")


def test_columns_are_the_keys_of_all_records_in_the_order_in_which_they_are_seen(tmp_path: Path) -> None:
    columns, rows = read_lines(tmp_path, '{"b": 1}\n\n{"a": null, "b": 2}\r\n{"c": "x", "a": ""}')
    assert columns == ["b", "a", "c"]
    assert rows == [[1, None, None], [2, None, None], [None, "", "x"]]


def test_numbers_of_json_keep_all_their_digits(tmp_path: Path) -> None:
    (row,) = read_lines(tmp_path, '{"a": 0.10000000000000000001, "b": 123456789012345678901, "c": 1e2}')[1]
    assert row == [Decimal("0.10000000000000000001"), 123456789012345678901, Decimal("1e2")]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        # No JSON.
        ("{", "line 3 is not JSON"),
        ('{"a": 1},', "line 3 is not JSON"),
        ("{'a': 1}", "line 3 is not JSON"),
        ("[" * 100_000, "line 3 is not JSON"),
        # JSON that is no record.
        ("[1]", "line 3 holds a JSON array, not an object"),
        ("null", "line 3 holds a single value, not an object"),
        # A record of which one half would be lost.
        ('{"a": 1, "a": 1}', "line 3 is not JSON: the key 'a' occurs twice in one object"),
        ('{"a": [{"b": 1, "b": 1}]}', "line 3 is not JSON: the key 'b' occurs twice in one object"),
    ],
)
def test_a_line_that_is_no_record_is_reported_with_its_number(tmp_path: Path, line: str, told: str) -> None:
    # Line breaks inside strings are escaped in JSON; these rare ones are not, and end no line.
    assert told in refused(tmp_path / "i.jsonl", f'{{"a": "x\u2028\x85y"}}\n\n{line}\n{{"a": 2}}\n'.encode())


# Parquet.


def read_parquet(folder: Path, content: bytes) -> tuple[list[str], list[list[Any]]]:
    (folder / "input.parquet").write_bytes(content)
    return read(folder / "input.parquet")


def test_rows_of_all_batches_and_row_groups_come_in_their_order(tmp_path: Path) -> None:
    numbers = list(range(25_001))
    content = parquet_of(pa.table({"b": numbers, "a": [str(number) for number in numbers]}), row_group_size=7_000)
    columns, rows = read_parquet(tmp_path, content)
    assert columns == ["b", "a"]
    assert rows == [[number, str(number)] for number in numbers]


def test_values_of_parquet_are_those_of_python(tmp_path: Path) -> None:
    noon = dt.datetime(2024, 2, 29, 12, tzinfo=dt.UTC)
    content = parquet(a=[True, None], b=[Decimal("1.10"), None], c=[[1], None], d=[{"x": None}, None], e=[noon, None])
    assert read_parquet(tmp_path, content)[1] == [
        [True, Decimal("1.10"), [1], {"x": None}, noon],
        [None] * 5,
    ]


def test_a_text_that_is_stored_once_is_a_text(tmp_path: Path) -> None:
    stored_once = pa.array(["x", "y", "x", None]).dictionary_encode()
    assert read_parquet(tmp_path, parquet(a=stored_once)) == (["a"], [["x"], ["y"], ["x"], [None]])


def test_a_parquet_file_without_rows_has_columns(tmp_path: Path) -> None:
    assert read_parquet(tmp_path, parquet(a=pa.array([], pa.string()), b=[])) == (["a", "b"], [])


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"PAR1" * 3, parquet(a=[1])[:-1], parquet(a=[1])[4:-8]])
def test_what_is_no_parquet_is_reported_as_such(tmp_path: Path, content: bytes) -> None:
    assert "cannot be read as Parquet" in refused(tmp_path / "input.parquet", content)


WITHOUT_PANDAS = """
import sys
from pathlib import Path


class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "pandas":
            raise ImportError(name)


sys.meta_path.insert(0, Missing())
from llmbatch_assets.adapters.tables.formats import read_table
from llmbatch_assets.domain.items.cell import cell_text
from llmbatch_assets.domain.configuration.input_blocks import Input

(row,) = read_table(Path(sys.argv[1]), Input()).rows
print(*map(cell_text, row))
"""


def test_nanoseconds_are_read_where_there_is_no_pandas(tmp_path: Path) -> None:
    # Data frames of older pandas are saved like this, and pandas comes with our dev extra alone.
    path = tmp_path / "input.parquet"
    path.write_bytes(parquet(a=pa.array([1709211907123456789], pa.timestamp("ns"))))
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT_PANDAS, str(path)], capture_output=True, text=True, check=False
    )
    assert ended.stdout == "2024-02-29T13:05:07.123456789\n", ended.stderr


# All formats.


def test_one_table_gives_the_same_rows_from_every_format(tmp_path: Path) -> None:
    rows = [("007", "a,b|c\td", "née 表 🎉"), ("", "two\nlines", " None "), ("=1+1", 'say "so"', "C:\\new")]
    for file_format, delimiter in DELIMITERS.items():
        with (tmp_path / f"input.{file_format}").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, delimiter=delimiter).writerows([list("abc"), *rows])

    def as_text(_book: Any, sheet: Any) -> None:
        sheet["A4"].data_type = "s"

    (tmp_path / "input.xlsx").write_bytes(workbook("abc", *rows, change=as_text))
    (tmp_path / "input.jsonl").write_text(
        "".join(json.dumps(dict(zip("abc", row, strict=True))) + "\n" for row in rows)
    )
    (tmp_path / "input.parquet").write_bytes(
        parquet(**dict(zip("abc", map(list, zip(*rows, strict=True)), strict=True)))
    )
    paths = sorted(tmp_path.iterdir())
    taken = {path.name: take_snapshot(read_table(path, Input()), "input", Input()).rows for path in paths}
    assert len(taken) == 6
    assert taken["input.csv"][1] == {"a": "", "b": "two lines", "c": ""}
    differing = [name for name, found in taken.items() if found != taken["input.csv"]]
    assert differing == []
