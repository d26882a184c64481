"""Cells as programs write them, and tables that are none."""

import csv
import os
from pathlib import Path

import pytest

from llmbatch_assets.adapters.readers import read_table
from llmbatch_assets.domain.parameters import Input
from llmbatch_assets.errors import TableError

DELIMITERS = {"csv": ",", "psv": "|", "tsv": "\t"}
EXOTIC = [
    ["plain", "a,b|c\td", 'say "so"', ""],
    ["two\nlines", "two\r\nlines", "\rreturn", " blanks "],
    ["née 表 🎉", "'", '"', '""'],
    ["=1+1", "\\", "\\n", "#"],
]


def read(path: Path, **settings: object) -> tuple[list[str], list[list[str]]]:
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


def test_an_unknown_suffix_is_told_with_the_formats(tmp_path: Path) -> None:
    assert "set input.format to csv, psv, tsv" in refused(tmp_path / "input.dat", b"a\n1\n")


def test_a_missing_table_is_told_with_the_key_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"input\.csv does not exist; set input\.path"):
        read(tmp_path / "input.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(TableError, match=r"folder\.csv"):
        read(tmp_path / "folder.csv")


@pytest.mark.parametrize("encoding", ["utf-8", "UTF-8", "utf8", "cp1252", "utf-16"])
def test_encodings_and_byte_order_marks_are_read(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "input.csv").write_text("naïve,b\n1,2\n", encoding="utf-8-sig" if "8" in encoding else encoding)
    assert read(tmp_path / "input.csv", encoding=encoding)[0] == ["naïve", "b"]


def test_a_wrong_encoding_is_told_with_the_byte(tmp_path: Path) -> None:
    assert "byte 8 (line 2) is not utf-8" in refused(tmp_path / "i.csv", "a,b\n1,na\xefve".encode("cp1252"))
    assert "is not utf-16" in refused(tmp_path / "i.csv", b"a,b\n1,2", encoding="utf-16")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "the file is empty; its first line must name the columns"),
        (b"\n\n", "the file is empty"),
        (b"\xef\xbb\xbf", "the file is empty"),
        (b"a,b\n1,2\n1\n", "row 2 has 1 cells, the header has 2"),
        (b"a,b\n1,2,3\n", "row 1 has 3 cells, the header has 2"),
        (b"a,b\n1,\x00\n", "line 2 holds a NUL character"),
        (b'a,b\n1,"open\n', "in the row that begins on line 2: a quote is not closed"),
        (b'a,b\n1,"x"y\n', "line 2"),
        (b"PK\x03\x04\x00\x00", "NUL character"),
    ],
)
def test_what_is_no_table_is_told_with_its_place(tmp_path: Path, content: bytes, told: str) -> None:
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
def test_a_table_that_may_not_be_read_is_told(tmp_path: Path) -> None:
    path = tmp_path / "input.csv"
    path.write_text("a\n1\n")
    path.chmod(0)
    with pytest.raises(TableError, match=r"input\.csv"):
        read(path)
