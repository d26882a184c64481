"""Tables as people have them: each gives the rows that its owner sees in it, or one message that says what to do."""

from __future__ import annotations

import csv
import datetime as dt
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pandas as pd
import pyarrow as pa
import pytest
from openpyxl.utils.datetime import CALENDAR_MAC_1904

from llmbatch_assets.stages.checking.preflight import preflight
from llmbatch_assets.stages.project import BatchFile
from llmbatch_assets_tests.memory_storage import kept_in_memory
from llmbatch_assets_tests.project import Project, make_project, settings
from llmbatch_assets_tests.tables import (
    add_sheet,
    parquet,
    parquet_of,
    protected_workbook,
    with_part,
    with_part_names,
    without_references,
    workbook,
)

Content = str | bytes | Callable[[Path], object]
BOM, NBSP, ZERO_WIDTH = "\ufeff", "\u00a0", "\u200b"
DECOMPOSED = "Cate\u0301gorie"
COMPOSED = "Cat\u00e9gorie"
PLAN = ("run", "--select", "input_snapshot,work_items")


@dataclass(frozen=True)
class Awkward:
    """A table, with its name below ``raw_data`` and what the configuration says of it."""

    told: str
    name: str
    content: Content
    input: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    blocks: Mapping[str, Any] = field(default_factory=dict, kw_only=True)

    def put_into(self, project: Project) -> None:
        """Make it the input of the project."""
        path = project.path(f"raw_data/{self.name}")
        project.parameters(**settings(input={"path": f"raw_data/{self.name}", **self.input}, **self.blocks))
        if callable(self.content):
            self.content(path)
        else:
            path.write_bytes(self.content.encode() if isinstance(self.content, str) else self.content)


@dataclass(frozen=True)
class Refused(Awkward):
    """A table that cannot be used: what the message names besides the file, and what it leaves out."""

    named: tuple[str, ...]
    unsaid: tuple[str, ...] = field(default=(), kw_only=True)


@dataclass(frozen=True)
class Taken(Awkward):
    """A table that can: its columns, its rows, and what its owner is told. A text stands for its characters."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    warned: tuple[str, ...] = field(default=(), kw_only=True)


def nothing(_path: Path) -> None:
    """There is no such file."""


def is_link_to(target: str) -> Content:
    return lambda path: path.symlink_to(target)


def leads_to_a_version(path: Path) -> None:
    """A link to a table beside it."""
    (path.parent / "versions").mkdir(exist_ok=True)
    (path.parent / "versions/2.csv").write_text("a,b\n1,2\n")
    path.symlink_to("versions/2.csv")


def damaged(content: bytes) -> bytes:
    """The file with its first page gone and its end whole."""
    return content[:4] + b"\xff" * 500 + content[504:]


def not_utf8_in_text() -> bytes:
    """Parquet whose column of texts holds other bytes, as careless writers make it."""
    offsets, data = pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe")
    return parquet(a=pa.Array.from_buffers(pa.string(), 1, [None, offsets, data]))


SMALL = workbook(("a", "b"), (1, 2))
LISTED = workbook(("a",), (1,), change=add_sheet("Lists", ("b",), (2,), state="hidden"))
TWO_SHEETS = workbook(("a",), (1,), change=add_sheet("More", ("b",), (2,)))
LONG_IDS = with_part(
    workbook("a", [1]),
    "xl/worksheets/sheet1.xml",
    b"<v>1</v></c></row>",
    b'<v>1767890123456789123</v></c></row><row r="3"><c r="A3"><v>1767890123456789177</v></c></row>',
)
FORMULA = workbook(("a", "b"), (1, "=A2+1"))
PYARROW_ROWS = pa.table({"a": ["x" * 50] * 2000})

REFUSED: list[Any] = [
    # No table at all.
    Refused("nothing", "i.csv", "", ("empty", "first line must name the columns")),
    Refused("only a mark", "i.csv", BOM, ("empty", "first line must name the columns")),
    Refused("only line breaks", "i.csv", "\n\r\n\n", ("empty", "first line must name the columns")),
    Refused("only blanks", "i.csv", "   \n  \n", ("empty", "first line must name the columns")),
    Refused("a web page", "i.csv", "<!DOCTYPE html>\n<html>\n</html>\n", ("HTML",)),
    Refused("a pointer", "i.csv", "version https://git-lfs.github.com/spec/v1\noid sha256:1\n", ("git lfs pull",)),
    # Column names.
    Refused("same name", "i.csv", "a,b,a\n1,2,3\n", ("columns 1 and 3", "'a'", "rename")),
    Refused("same name trimmed", "i.csv", f"a, a{NBSP}\n1,2\n", ("columns 1 and 2", "'a'", "rename")),
    Refused("same name unseen", "i.csv", f"a,a{ZERO_WIDTH}\n1,2\n", ("columns 1 and 2", "'a'", "rename")),
    Refused("empty name", "i.csv", "a,,b\n1,2,3\n", ("column 2 has no name", "header")),
    Refused("blank name", "i.csv", "a,   \n1,2\n", ("column 2 has no name", "header")),
    Refused("no-break name", "i.csv", f"{NBSP},b\n1,2\n", ("column 1 has no name", "header")),
    Refused("reserved name", "i.csv", "a,__ROW_KV_BLOCK__\n1,2\n", ("column 2", "__ROW_KV_BLOCK__", "rename")),
    Refused("same name composed", "i.csv", f"{COMPOSED},{DECOMPOSED}\n1,2\n", ("columns 1 and 2", "rename")),
    # Rows.
    Refused("too few cells", "i.csv", "a,b\n1,2\n3\n", ("row 2 has 1 cell,", "the header has 2", "'3'")),
    Refused("too many cells", "i.csv", "a,b\n1,2,3\n", ("row 1 has 3 cells", "the header has 2", "Quote", "','")),
    Refused("too few in psv", "i.psv", "a|b\n1|2\n3\n", ("row 2 has 1 cell,", "the header has 2", "'3'")),
    Refused("blanks for a row", "i.csv", "a,b\n1,2\n   \n3,4\n", ("row 2 has 1 cell,", "the header has 2")),
    Refused("ragged after line breaks", "i.csv", 'a,b\n"x\ny",2\n\n3\n', ("row 2", "line 5")),
    Refused(
        "lines above the header",
        "i.csv",
        "# exported 2024-01-02\n# unit: EUR\nid,color\n1,red\n",
        ("line 3", "'# exported 2024-01-02'", "input.header_row: 3"),
        unsaid=("Quote cells",),
    ),
    Refused(
        "comma at the end", "i.csv", "a,b\n1,2,\n", ("row 1 has 3 cells", "ends with ','"), unsaid=("Quote cells",)
    ),
    Refused("no such header row", "i.csv", "a,b\n1,2\n", ("line 7", "input.header_row"), input={"header_row": 7}),
    Refused("header row of records", "i.jsonl", '{"a":1}\n', ("input.header_row", "jsonl"), input={"header_row": 2}),
    Refused(
        "escaped quote",
        "i.csv",
        'id,label\n1,"TV 55\\", black"\n2,"size 6\\", red"\n',
        ("line 2", "input.escape: backslash"),
    ),
    Refused(
        "merged lines",
        "i.tsv",
        'id\ttext\tn\n1\t"Hello\t3\n2\tworld"\t3\n',
        ("lines 2 to 3", "input.quoting: none"),
    ),
    Refused("text after a plain quote", "i.tsv", 'a\tb\n1\t"so" she said\n', ("line 2", "input.quoting: none")),
    Refused("advice for too few", "i.csv", "a,b\n1,2\n3\n", ("row 2",), unsaid=("Quote cells",)),
    # Quotes.
    Refused("open quote", "i.csv", 'a,b\n1,2\n3,"4\n5,6\n', ("line 3", "quote is not closed")),
    Refused("quote closed later", "i.csv", 'a,b\n1,"2\n3,4\n5,"x"\n', ("line 2",)),
    Refused("open quote in header", "i.csv", 'a,"b\n1,2\n', ("line 1", "quote is not closed")),
    Refused("text after quote", "i.csv", 'a,b\n1,"x"y\n', ("line 2",)),
    # Bytes.
    Refused(
        "latin-1",
        "i.csv",
        b"a,b\n1,caf\xe9\n",
        ("byte 9 (line 2)", "is not utf-8; no other encoding was tried", "input.encoding", "UTF-8"),
    ),
    Refused(
        "wrong encoding",
        "i.csv",
        "a,b\n1,2",
        ("byte", "is not utf-16; no other encoding was tried", "input.encoding"),
        input={"encoding": "utf-16"},
    ),
    Refused("UTF-16", "i.csv", "a,b\n1,2\n".encode("utf-16"), ("byte 0 (line 1)", "mark of utf-16", "input.encoding")),
    Refused("NUL", "i.csv", "a,b\n1,\0\n", ("line 2", "NUL", "utf-8")),
    Refused("latin-1 in CR lines", "i.csv", b"a,b\r1,caf\xe9\r", ("byte 9 (line 2)",)),
    Refused("UTF-32", "i.csv", "a,b\n1,2\n".encode("utf-32"), ("mark of utf-32",)),
    Refused("UTF-16 without a mark", "i.csv", "a,b\n1,2\n".encode("utf-16-be"), ("utf-16", "input.encoding")),
    Refused("workbook named csv", "i.csv", SMALL, ("workbook", "input.format: xlsx"), unsaid=("input.encoding",)),
    # Delimiters.
    Refused("semicolons", "i.csv", "a;b\n1;2\n", ("'a;b'", "input.delimiter: ;")),
    Refused("bars", "i.csv", "a|b\n1|2\n", ("'a|b'", "input.format: psv")),
    Refused("tabs", "i.csv", "a\tb\n1\t2\n", ("input.format: tsv",)),
    Refused("commas in tsv", "i.tsv", "a,b\n1,2\n", ("'a,b'", "input.format: csv")),
    Refused("commas in psv", "i.psv", "a,b\n1,2\n", ("'a,b'", "input.format: csv")),
    # Workbooks: which sheet?
    Refused("several sheets", "i.xlsx", TWO_SHEETS, ("several sheets", "'Data', 'More'", "input.sheet")),
    Refused("hidden sheet", "i.xlsx", LISTED, ("several sheets", "'Data', 'Lists'", "input.sheet")),
    Refused("no such sheet", "i.xlsx", TWO_SHEETS, ("'Moer'", "'Data', 'More'"), input={"sheet": "Moer"}),
    Refused("a sheet's case", "i.xlsx", TWO_SHEETS, ("no sheet 'data'", "'Data' (case"), input={"sheet": "data"}),
    Refused("no third sheet", "i.xlsx", TWO_SHEETS, ("input.sheet is 3", "2 sheets", "'Data'"), input={"sheet": 3}),
    Refused("no sheet 0", "i.xlsx", TWO_SHEETS, ("input.sheet is 0", "2 sheets", "'Data'"), input={"sheet": 0}),
    Refused("empty sheet", "i.xlsx", workbook(), ("sheet 'Data' is empty", "first row must name the columns")),
    # Workbooks: their header.
    Refused("merged header", "i.xlsx", workbook(("a", None, "b"), (1, 2, 3)), ("column 2 has no name",)),
    Refused("note beside", "i.xlsx", workbook(("a", "b"), (1, 2, "note")), ("column 3 has no name",)),
    Refused(
        "title above",
        "i.xlsx",
        workbook(("Report",), ("a", "b"), (1, 2)),
        ("column 2 has no name", "input.header_row: 2"),
    ),
    Refused(
        "blank row above", "i.xlsx", workbook((), ("a", "b"), (1, 2)), ("column 1 has no name", "input.header_row: 2")
    ),
    # Workbooks: files that are none.
    Refused("password", "i.xlsx", protected_workbook(), ("protected by a password", "save it without")),
    Refused("cut workbook", "i.xlsx", SMALL[:-40], ("cannot be read as a workbook",)),
    Refused("zip", "i.xlsx", b"PK\5\6" + bytes(18), ("cannot be read as a workbook",)),
    Refused(
        "broken sheet",
        "i.xlsx",
        with_part(SMALL, "xl/worksheets/sheet1.xml", b"</sheetData>", b"</sheetData"),
        ("cannot be read as a workbook",),
    ),
    Refused("page named xlsx", "i.xlsx", "<html><table></table></html>", ("workbook", "save"), unsaid=("EOCD",)),
    Refused("csv named xlsx", "i.xlsx", "a,b\n1,2\n", ("workbook", "input.format"), unsaid=("EOCD",)),
    Refused(
        "expanding workbook",
        "i.xlsx",
        with_part(SMALL, "xl/worksheets/sheet1.xml", b"</worksheet>", b" " * 2_000_000 + b"</worksheet>"),
        ("input.max_expanded_mb", "2.0 MB"),
        input={"max_expanded_mb": 1},
    ),
    Refused(
        "cells far apart",
        "i.xlsx",
        with_part(SMALL, "xl/worksheets/sheet1.xml", b'"B2"', b'"XFD1048576"'),
        ("input.max_expanded_mb",),
    ),
    # JSON Lines.
    Refused("no records", "i.jsonl", "\n \n", ("no record", "JSON object")),
    Refused("empty records", "i.jsonl", "{}\n{}\n", ("no record", "JSON object")),
    Refused("key twice", "i.jsonl", '{"a":1}\n{"a":1,"a":2}\n', ("line 2", "twice")),
    Refused("key twice inside", "i.jsonl", '{"a":{"b":1,"b":2}}\n', ("line 1", "twice")),
    Refused("cut line", "i.jsonl", '{"a":1}\n\n{"a":\n', ("line 3 is not JSON",)),
    Refused("two on a line", "i.jsonl", '{"a":1}{"a":2}\n', ("line 1 is not JSON",)),
    Refused("single quotes", "i.jsonl", "{'a':1}\n", ("line 1 is not JSON",)),
    Refused("a number", "i.jsonl", '{"a":1}\n2\n', ("line 2", "not an object")),
    Refused("a list", "i.jsonl", '[{"a":1},{"a":2}]\n', ("line 1", "not an object")),
    Refused("too deep", "i.jsonl", '{"a":1}\n{"a":' + "[" * 100_000, ("line 2",)),
    Refused("latin-1 in JSON", "i.jsonl", b'{"a":1}\n{"a":"caf\xe9"}\n', ("byte 17 (line 2)", "input.encoding")),
    Refused("same key trimmed", "i.jsonl", '{"a":1}\n{" a":2}\n', ("columns 1 and 2", "'a'", "rename")),
    Refused("empty key", "i.jsonl", '{"a":1}\n{"":2}\n', ("column 2 has no name",)),
    Refused("key twice by name", "i.jsonl", '{"a":1,"bb":1,"bb":2}\n', ("line 1", "'bb'", "twice")),
    Refused("cut line told once", "i.jsonl", '{"a":1}\n{"a":\n', ("line 2", "column"), unsaid=("line 1",)),
    Refused("array", "i.jsonl", '[{"a":1},{"a":2}]\n', ("array", "one object per line")),
    Refused("array over lines", "i.jsonl", '[\n  {"a":1},\n  {"a":2}\n]\n', ("array", "one object per line")),
    Refused("1e5000", "i.jsonl", '\n{"b":0,"a":1e5000}\n', ("row 1", "'a'")),
    Refused("infinite inside", "i.jsonl", '{"b":0}\n' * 150 + '{"b":0,"a":[Infinity]}\n', ("row 151", "'a'")),
    Refused("5000 digits", "i.jsonl", '{"a":' + "9" * 5000 + "}\n", ("line 1",), unsaid=("sys.",)),
    Refused("exponent out of range", "i.jsonl", '{"a":1e99999999999999999999}\n', ("line 1",)),
    Refused("half a character", "i.jsonl", '{"a":"x"}\n{"a":"\\ud800"}\n', ("row 2", "'a'")),
    # Parquet.
    Refused("no Parquet", "i.parquet", "a,b\n1,2\n", ("cannot be read as Parquet",)),
    Refused("empty Parquet", "i.parquet", "", ("cannot be read as Parquet",)),
    Refused("cut Parquet", "i.parquet", parquet(a=["x"] * 100)[:-20], ("cannot be read as Parquet",)),
    Refused("same column", "i.parquet", parquet_of(pa.table([[1], [2]], names=["a", "a"])), ("columns 1 and 2", "'a'")),
    Refused("binary", "i.parquet", parquet(b=[b"x", b"y"], a=[b"abc", b"\xff\xfe"]), ("row 2", "'a'", "UTF-8")),
    Refused("binary in a list", "i.parquet", parquet(a=[[b"\xff"]]), ("row 1", "'a'", "UTF-8")),
    Refused(
        "damaged Parquet",
        "i.parquet",
        damaged(parquet_of(PYARROW_ROWS, use_dictionary=False, compression="none")),
        ("cannot be read as Parquet",),
    ),
    Refused("text not UTF-8", "i.parquet", not_utf8_in_text(), ("'a'", "UTF-8")),
    Refused("year 36812", "i.parquet", parquet(a=pa.array([2**60], pa.timestamp("us"))), ("'a'",)),
    Refused(
        "year with a remedy", "i.parquet", parquet(a=pa.array([2**60], pa.timestamp("us"))), ("timestamp[us]", "text")
    ),
    Refused(
        "expanding Parquet",
        "i.parquet",
        parquet(a=["x" * 2_000] * 1_000),
        ("input.max_expanded_mb", "1.0 MB"),
        input={"max_expanded_mb": 1},
    ),
    Refused(
        "expanding records",
        "i.jsonl",
        "".join(f'{{"k{number}":1}}\n' for number in range(300)),
        ("input.max_expanded_mb",),
        input={"max_expanded_mb": 1},
    ),
    Refused("no columns", "i.parquet", parquet_of(pa.table({})), ("no column",), unsaid=("context.columns",)),
    # Paths.
    Refused("folder", "f.csv", lambda path: path.mkdir(exist_ok=True), ("is a folder", "input.path")),
    Refused("no file", "none.csv", nothing, ("does not exist", "input.path")),
    Refused("dead link", "dead.csv", is_link_to("nowhere.csv"), ("does not exist", "input.path")),
    Refused("link to itself", "loop.csv", is_link_to("loop.csv"), ("does not exist", "input.path")),
    Refused(
        "unknown suffix", "i.dat", "a\n1\n", ("the file extension", "input.format", "csv", "xlsx", "jsonl", "parquet")
    ),
    Refused("old workbook", "i.xls", b"", ("the file extension", "input.format", "xlsx")),
    Refused("packed", "i.csv.gz", b"\x1f\x8b", ("the file extension", "input.format")),
    Refused("no suffix", "table", "a\n1\n", ("the file extension", "input.format")),
    Refused("long path", "x" * 300 + ".csv", nothing, ("input.path",)),
    pytest.param(
        Refused("unreadable", "memory.csv", is_link_to("/proc/self/mem"), ("cannot be read",)),
        id="unreadable",
        marks=[
            pytest.mark.skipif(sys.platform != "linux", reason="a file that nobody can read is found in /proc alone"),
        ],
    ),
    # Columns that the configuration names.
    Refused(
        "grouping column",
        "i.csv",
        "id,Team Name,question\n1,2,3\n",
        ("grouping.column", "'team name'", "it has: Team Name (case matters), id, question"),
        blocks={"grouping": {"enabled": True, "column": "team name"}},
    ),
    Refused(
        "required column",
        "i.csv",
        "id,question,teams\n1,2,3\n",
        ("input.required_columns", "no column 'team'", "it has: teams, id, question"),
        input={"required_columns": ["id", "team"]},
    ),
    Refused(
        "required column of another sheet",
        "i.xlsx",
        TWO_SHEETS,
        ("input.required_columns", "no column 'a'", "it has: b"),
        input={"required_columns": ["a"], "sheet": 2},
    ),
]

MANY = [f"c{number}" for number in range(2000)]
TAKEN: list[Any] = [
    # Lines.
    Taken("header alone", "i.csv", "a,b\n", "ab", [], warned=("header but no rows",)),
    Taken("blank lines", "i.csv", "\n\na,b\n\n1,2\n\n\n3,4\n\n", "ab", ["12", "34"]),
    Taken("CR", "i.csv", "a,b\r1,2\r\r3,4\r", "ab", ["12", "34"]),
    Taken("all line ends", "i.csv", "a,b\r\n1,2\n3,4\r5,6", "ab", ["12", "34", "56"]),
    Taken("CRLF in psv", "i.psv", "a|b\r\n1|2\r\n", "ab", ["12"]),
    Taken("rare line breaks in psv", "i.psv", "a|b\r\n1|x\u2028y\r\n2|x\x0cy\r\n", "ab", [["1", "x y"], ["2", "x y"]]),
    Taken("line breaks in a cell", "i.csv", 'a,b\n"x\r\n  y\tz",2\n', "ab", [["x y z", "2"]]),
    Taken(
        "line breaks kept",
        "i.csv",
        'a,b\n" x\n  y\tz ",2\n',
        "ab",
        [["x\n  y\tz", "2"]],
        input={"collapse_whitespace": False},
    ),
    # Characters that nobody sees.
    Taken("mark", "i.csv", f'{BOM}"a,a",b\n1,2\n', ["a,a", "b"], ["12"]),
    Taken("blanks of all kinds", "i.csv", f"a{NBSP},{ZERO_WIDTH}b\n{NBSP}1 ,x{NBSP}y{BOM}\n", "ab", [["1", "x y"]]),
    Taken("UTF-16 named", "i.csv", "a,é\n1,2\n".encode("utf-16"), "aé", ["12"], input={"encoding": "utf-16"}),
    Taken("cp1252 named", "i.csv", "a,é\n1,€\n".encode("cp1252"), "aé", ["1€"], input={"encoding": "cp1252"}),
    Taken(
        "mark of a named byte order",
        "i.csv",
        f'{BOM}"a,a",b\n1,2\n'.encode("utf-16-le"),
        ["a,a", "b"],
        ["12"],
        input={"encoding": "utf-16-le"},
    ),
    # Cells.
    Taken(
        "null tokens",
        "i.csv",
        "a,b\nNone,N/A\nNathan,-\nNULL,#N/A\n",
        "ab",
        [["", ""], ["Nathan", "-"], ["", ""]],
        warned=("2 empty rows",),
    ),
    Taken("own null tokens", "i.csv", "a,b\nNone,-\n", "ab", [["None", ""]], input={"null_tokens": ["-"]}),
    Taken(
        "escaped delimiter", "i.csv", 'a,b\nfoo\\,bar,2\n"foo\\,bar",2\n', "ab", [["foo,bar", "2"], ["foo\\,bar", "2"]]
    ),
    Taken("backslashes", "i.csv", "a,b\nC:\\new,\\\\host\n", "ab", [["C:\\new", "\\\\host"]]),
    Taken("escapes of psv", "i.psv", "a|b\nfoo\\|bar|y\\\\\n", "ab", [["foo|bar", "y\\"]]),
    Taken("paths in psv", "i.psv", "a|b\n1|C:\\temp\\new\n", "ab", [["1", "C:\\temp\\new"]]),
    Taken(
        "escapes of an export",
        "i.psv",
        "a|meta_cache_id\nx\\ty|x\\ny\n",
        ["a", "meta_cache_id"],
        [["x y", "x y"]],
    ),
    Taken(
        "texts as they are",
        "i.csv",
        'a,b\n007,1.0\n1e5,12345678901234567890\n=1+1,{context}\n"say ""so"", please",-\n',
        "ab",
        [["007", "1.0"], ["1e5", "12345678901234567890"], ["=1+1", "{context}"], ['say "so", please', "-"]],
    ),
    Taken(
        "marks of paragraphs", "i.csv", "a,b\n¶,none ¶ x\n x ¶,¶none¶\n", "ab", [["¶", "none ¶ x"], ["x ¶", "¶none¶"]]
    ),
    Taken("a long cell", "i.csv", f"a,b\n{'x' * 2**20},2\n", "ab", [["x" * 2**20, "2"]]),
    Taken("many columns", "i.csv", f"{','.join(MANY)}\n{','.join(MANY)}\n", MANY, [MANY]),
    Taken(
        "all scripts",
        "i.csv",
        "🎉,שאלה,प्रश्न,A,a\n1,كتاب,ज़,2,3\n",
        ["🎉", "שאלה", "प्रश्न", "A", "a"],
        [["1", "كتاب", "ज़", "2", "3"]],
    ),
    Taken("semicolons named", "i.csv", "a;b\n1,5;2\n", "ab", [["1,5", "2"]], input={"delimiter": ";"}),
    Taken("semicolons in psv", "i.psv", "a;b\n1;2\n", "ab", ["12"], input={"delimiter": ";"}),
    Taken("line for Excel", "i.csv", "sep=;\na;b\n1;2\n", "ab", ["12"], input={"delimiter": ";"}),
    Taken("header row", "i.csv", "Query, results\n\na,b\n1,2\n", "ab", ["12"], input={"header_row": 3}),
    Taken("skipped rows", "i.csv", "# x\na,b\n(m),(s)\n1,2\n", "ab", ["12"], input={"skip_rows": [1, 3]}),
    Taken("title above a sheet", "i.xlsx", workbook(["T"], [], "ab", "12"), "ab", ["12"], input={"skip_rows": 2}),
    Taken("quote escaped", "i.csv", 'a,b\n1,"5\\", x"\n', "ab", [["1", '5", x']], input={"escape": "backslash"}),
    Taken("plain quotes", "i.tsv", 'a\tb\n1\t"x\n2\ty"\n', "ab", [["1", '"x'], ["2", 'y"']], input={"quoting": "none"}),
    Taken(
        "merged lines of two cells",
        "i.tsv",
        'a\tb\n1\t"x\n2\ty"\n',
        "ab",
        [["1", "x 2 y"]],
        warned=("lines 2 to 3", "input.quoting"),
    ),
    Taken("empty row", "i.csv", "a,b\n1,2\n,\n3,4\n", "ab", ["12", ["", ""], "34"], warned=("row", "empty")),
    Taken(
        "empty row of a sheet",
        "i.xlsx",
        workbook("ab", "12", (), "34"),
        "ab",
        ["12", ["", ""], "34"],
        warned=("row", "empty"),
    ),
    Taken(
        "decomposed name",
        "i.csv",
        f"{DECOMPOSED},b\n1,2\n",
        [COMPOSED, "b"],
        ["12"],
        blocks={"grouping": {"enabled": True, "column": COMPOSED}},
    ),
    # Workbooks.
    Taken(
        "values of a sheet",
        "i.xlsx",
        workbook(
            ("text", "whole", "half", "long", "yes", "no", "none"),
            ("007", 1.0, 1.5, 123456789012, True, False, None),
            (" x ", -0.0, 0.1, 10**18, "TRUE", "n/a", "x"),
        ),
        ("text", "whole", "half", "long", "yes", "no", "none"),
        [
            ("007", "1", "1.5", "123456789012", "true", "false", ""),
            ("x", "0", "0.1", "1000000000000000000", "TRUE", "", "x"),
        ],
    ),
    Taken(
        "times of a sheet",
        "i.xlsx",
        workbook(
            ("day", "midnight", "moment", "time"),
            (dt.date(2024, 2, 29), dt.datetime(2024, 2, 29), dt.datetime(2024, 2, 29, 13, 5, 7), dt.time(13, 5)),
        ),
        ("day", "midnight", "moment", "time"),
        [("2024-02-29", "2024-02-29", "2024-02-29T13:05:07", "13:05:00")],
    ),
    Taken(
        "Mac's days", "i.xlsx", workbook("a", [dt.date(2024, 2, 29)], epoch=CALENDAR_MAC_1904), "a", [["2024-02-29"]]
    ),
    Taken(
        "merged cells",
        "i.xlsx",
        workbook("ab", "12", (None, 3), change=lambda _, sheet: sheet.merge_cells("A2:A3")),
        "ab",
        ["12", ["", "3"]],
    ),
    Taken("blank cells around", "i.xlsx", workbook("ab", "12", (None, None), (None, "", None, " ")), "ab", ["12"]),
    Taken("sheet by name", "i.xlsx", TWO_SHEETS, "b", ["2"], input={"sheet": "More"}),
    Taken("sheet by number", "i.xlsx", TWO_SHEETS, "b", ["2"], input={"sheet": 2}),
    Taken("hidden sheet by name", "i.xlsx", LISTED, "b", ["2"], input={"sheet": "Lists"}),
    Taken("macros", "i.xlsm", SMALL, "ab", ["12"]),
    Taken("years in a header", "i.xlsx", workbook((2023, 2024.0, True), (1, 2, 3)), ("2023", "2024", "true"), ["123"]),
    Taken("hours", "i.xlsx", workbook("a", [dt.timedelta(hours=30)]), "a", [["P1DT6H"]]),
    Taken("no values", "i.xlsx", FORMULA, "ab", [["1", ""]], warned=("formula",)),
    Taken("errors", "i.xlsx", workbook("ab", ("#DIV/0!", 1)), "ab", [["", "1"]], warned=("error",)),
    Taken("errors alone", "i.xlsx", workbook("ab", "12", ("#REF!", "#N/A")), "ab", ["12", ["", ""]], warned=("error",)),
    Taken(
        "backslashes in a workbook",
        "i.xlsx",
        with_part_names(workbook("ab", (1, None), (2, 3)), lambda name: name.replace("/", "\\")),
        "ab",
        [["1", ""], ["2", "3"]],
    ),
    Taken(
        "no references",
        "i.xlsx",
        without_references(workbook("abc", (1, "#N/A", "=A2+1"))),
        "abc",
        [["1", "", ""]],
        warned=("1 cell with an error", "B2"),
    ),
    Taken("long ids", "i.xlsx", LONG_IDS, "a", [["1767890123456789123"], ["1767890123456789177"]]),
    Taken(
        "rounded ids",
        "i.xlsx",
        workbook("a", [1.767890123456789e18]),
        "a",
        [["1767890123456789000"]],
        warned=("more than 15 digits", "A2"),
    ),
    # JSON Lines.
    Taken("blank lines in JSON", "i.jsonl", f'{BOM}\n{{"a":1}}\r\n\n{{"a":2}}', "a", ["1", "2"]),
    Taken(
        "ragged keys",
        "i.jsonl",
        '{"a":1}\n{"b":2,"a":3}\n{}\n',
        "ab",
        [["1", ""], ["3", "2"], ["", ""]],
        warned=("row 3",),
    ),
    Taken(
        "values",
        "i.jsonl",
        '{"a":true,"b":null}\n{"a":"007","b":"x\\ny\u2028z"}\n',
        "ab",
        [["true", ""], ["007", "x y z"]],
    ),
    Taken(
        "inside", "i.jsonl", '{"a":{"y":1,"x":[null,true,"é"]},"b":[]}\n', "ab", [['{"x":[null,true,"é"],"y":1}', "[]"]]
    ),
    Taken(
        "numbers",
        "i.jsonl",
        f'{{"a":{10**22},"b":1e400}}\n{{"a":-0.0,"b":1e-7}}\n{{"a":NaN,"b":1.50}}\n',
        "ab",
        [[str(10**22), str(10**400)], ["0", "0.0000001"], ["", "1.5"]],
    ),
    Taken("fractions inside", "i.jsonl", '{"a":[2.5,1.10]}\n', "a", [["[2.5,1.1]"]]),
    Taken("long fraction", "i.jsonl", f'{{"a":{"1" * 30}.5}}\n', "a", [["1" * 30 + ".5"]]),
    Taken("no number inside", "i.jsonl", '{"a":[NaN,1]}\n', "a", [["[null,1]"]]),
    # Parquet.
    Taken(
        "no rows",
        "i.parquet",
        parquet(a=pa.array([], pa.string()), b=pa.array([], pa.int64())),
        "ab",
        [],
        warned=("no rows",),
    ),
    Taken(
        "decimals",
        "i.parquet",
        parquet(a=[Decimal("1.10"), Decimal("100.00"), None]),
        "a",
        [["1.1"], ["100"], [""]],
        warned=("row 3",),
    ),
    Taken(
        "gaps",
        "i.parquet",
        parquet(a=[1.0, None, float("nan")], b=[2**62, None, 3]),
        "ab",
        [["1", str(2**62)], ["", ""], ["", "3"]],
        warned=("row 2",),
    ),
    Taken(
        "time stamps",
        "i.parquet",
        parquet(
            a=[dt.datetime(2024, 2, 29, 13, 5), dt.datetime(2024, 2, 29)],
            b=pa.array([dt.datetime(2024, 2, 29, 13, 5), dt.datetime(2024, 2, 29)], pa.timestamp("us", "Asia/Tokyo")),
        ),
        "ab",
        [["2024-02-29T13:05:00", "2024-02-29T22:05:00+09:00"], ["2024-02-29", "2024-02-29T09:00:00+09:00"]],
    ),
    Taken(
        "lists and structs",
        "i.parquet",
        parquet(a=[[1, None], None], b=[{"y": 1, "x": "é"}, None]),
        "ab",
        [["[1,null]", '{"x":"é","y":1}'], ["", ""]],
        warned=("row 2",),
    ),
    Taken("binary text", "i.parquet", parquet(a=["é".encode(), b"007"]), "a", [["é"], ["007"]]),
    Taken("38 digits", "i.parquet", parquet(a=[Decimal("1" * 34 + ".1234")]), "a", [["1" * 34 + ".1234"]]),
    Taken(
        "one nanosecond",
        "i.parquet",
        parquet(a=pa.array([0, 1, 10**9], pa.timestamp("ns"))),
        "a",
        [["1970-01-01"], ["1970-01-01T00:00:00.000000001"], ["1970-01-01T00:00:01"]],
    ),
    Taken(
        "short floats",
        "i.parquet",
        parquet(a=pa.array([0.1, 132.04], pa.float32()), b=pa.array([[0.1], []], pa.list_(pa.float32()))),
        "ab",
        [["0.1", "[0.1]"], ["132.04", "[]"]],
    ),
    Taken(
        "unknown zone",
        "i.parquet",
        parquet(a=pa.array([0], pa.timestamp("us", "tzutc()"))),
        "a",
        [["1970-01-01T00:00:00+00:00"]],
        warned=("'a'", "'tzutc()'", "UTC"),
    ),
    Taken("uuid", "i.parquet", parquet(a=pa.array([bytes(16)], pa.uuid())), "a", [[f"{UUID(int=0)}"]]),
    Taken(
        "named index",
        "i.parquet",
        lambda path: pd.DataFrame({"a": ["x"]}, index=pd.RangeIndex(7, 8, name="b")).to_parquet(path),
        "ab",
        ["x7"],
    ),
    Taken(
        "unnamed index",
        "i.parquet",
        lambda path: pd.DataFrame({"a": ["x"]}, index=[7]).to_parquet(path),
        "a",
        ["x"],
        warned=("__index_level_0__",),
    ),
    Taken("nanoseconds", "i.parquet", parquet(a=pa.array([123456789], pa.time64("ns"))), "a", [["00:00:00.123456789"]]),
    # Paths.
    Taken("link", "link.csv", leads_to_a_version, "ab", ["12"]),
    Taken("path in all scripts", "tä ble's ✓ प्रश्न.csv", "a,b\n1,2\n", "ab", ["12"]),
]


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A batch that has been run on a good table."""
    root = tmp_path_factory.mktemp("awkward") / "project"
    with kept_in_memory(root / "dagster_home"):
        project = make_project(root)
        assert project.llmbatch_here("run").returncode == 0
        yield project


def artifacts(project: Project) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in project.path("artifacts").rglob("*") if path.is_file()}


def warnings_of(logged: pytest.LogCaptureFixture) -> list[str]:
    """What the user was told besides the progress."""
    return [record.getMessage() for record in logged.records if record.levelname in ("WARNING", "ERROR")]


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.told)
def test_a_table_that_cannot_be_used_is_told_and_costs_nothing_that_was_there(batch: Project, case: Refused) -> None:
    case.put_into(batch)
    before = artifacts(batch)

    ended = batch.llmbatch_here(*PLAN)

    assert ended.returncode == 2, ended.stderr
    assert ended.stdout == ""
    assert ended.stderr.count("llmbatch: ") == ended.stderr.count("\n") == 1
    assert case.blocks or f"raw_data/{case.name}: " in ended.stderr or f"raw_data/{case.name} " in ended.stderr
    for part in case.named:
        assert part in ended.stderr
    for part in case.unsaid:
        assert part not in ended.stderr
    assert artifacts(batch) == before


@pytest.mark.parametrize("case", TAKEN, ids=lambda case: case.told)
def test_an_awkward_table_gives_the_rows_that_its_owner_sees(batch: Project, case: Taken) -> None:
    """As the check before a run finds them, which keeps the table for the run."""
    case.put_into(batch)
    batch_file = BatchFile(batch.config)

    found = preflight(batch_file, ("input_snapshot", "work_items"))

    snapshot = batch_file.load().read_snapshot(is_last_use=True)
    assert snapshot.columns == list(case.columns)
    assert [[row[name] for name in case.columns] for row in snapshot.rows] == [list(row) for row in case.rows]
    # An empty row keeps its place and costs nothing.
    assert found.work is not None
    assert len(found.work.items) == sum(any(row) for row in case.rows)
    assert bool(found.warnings) == bool(case.warned)
    for part in case.warned:
        assert part in found.warnings[0]


@pytest.mark.parametrize(
    "case", {Path(case.name).suffix: case for case in TAKEN if case.warned}.values(), ids=lambda case: case.told
)
def test_a_run_writes_the_rows_and_passes_the_warnings_on(
    batch: Project, case: Taken, caplog: pytest.LogCaptureFixture
) -> None:
    case.put_into(batch)

    ended = batch.llmbatch_here(*PLAN)

    assert (ended.returncode, ended.stderr) == (0, "")
    snapshot = batch.json("artifacts/cache/pipeline2_input.json")
    assert snapshot["columns"] == list(case.columns)
    assert [[row[name] for name in case.columns] for row in snapshot["rows"]] == [list(row) for row in case.rows]
    n_items = sum(any(row) for row in case.rows)
    assert (snapshot["n_rows"], len(batch.work_items())) == (len(case.rows), n_items)
    (told,) = warnings_of(caplog)
    for part in case.warned:
        assert part in told


def test_empty_rows_cost_nothing_and_leave_the_others_as_they_were(
    batch: Project, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [("1", "a"), ("", ""), ("2", "b"), ("", ""), ("", "NULL")]
    plain = settings(input={"skip_empty_rows": False})
    batch.parameters(**plain)
    batch.table(rows, ("id", "text"))
    assert batch.llmbatch_here("run", "--offline").returncode == 0
    paid = {item["row_index"]: item["work_id"] for item in batch.work_items()}
    assert sorted(paid) == [0, 1, 2, 3, 4]
    caplog.clear()

    batch.parameters(**settings())
    ended = batch.llmbatch_here("run", "--offline")

    assert "0 new, 2 from cache" in ended.stdout
    assert {item["row_index"]: item["work_id"] for item in batch.work_items()} == {0: paid[0], 2: paid[2]}
    (told,) = warnings_of(caplog)
    assert told.endswith("3 empty rows (2, 4, 5) are skipped")


# From the table to the export.


WIDE = [f"c{number}" for number in range(300)]
SCRIPTS = ["🎉", "שאלה", "प्रश्न", "a|b, c"]


@pytest.mark.parametrize(
    ("columns", "row", "shown"),
    [
        (SCRIPTS, ["é 表", "كتاب", "ज़ | ,", '"x"'], SCRIPTS),
        (WIDE, ["x" * 3000] * 300, WIDE),
        # Names that are ours, too.
        (
            ["meta_work_id", "parsed", "judge_verdict", "answer"],
            list("1234"),
            ["input_meta_work_id", "parsed", "input_judge_verdict", "answer"],
        ),
        pytest.param(
            ["judge_verdict", "input_judge_verdict"],
            ["1", "2"],
            ["input_input_judge_verdict", "input_judge_verdict"],
        ),
    ],
    ids=["scripts", "wide", "our names", "our prefix"],
)
def test_an_awkward_table_comes_back_whole_beside_its_outputs(
    batch: Project, columns: list[str], row: list[str], shown: list[str]
) -> None:
    batch.parameters(**settings())
    batch.table([row, row], columns)

    assert batch.llmbatch_here("run", "--offline").returncode == 0

    with batch.path("artifacts/outputs/output.csv").open(newline="", encoding="utf-8") as file:
        header, *records = csv.reader(file)
    assert len(set(header)) == len(header)
    for name, value in zip(shown, row, strict=True):
        assert [record[header.index(name)] for record in records] == [value, value], name


def test_a_table_that_lost_its_rows_keeps_the_outputs_that_were_paid_for(
    batch: Project, caplog: pytest.LogCaptureFixture
) -> None:
    batch.parameters(**settings())
    batch.table([("1", "2")], ("a", "b"))
    assert batch.llmbatch_here("run", "--offline").returncode == 0
    outputs = batch.outputs()
    caplog.clear()

    batch.table([], ("a", "b"))
    assert batch.llmbatch_here("run", "--offline").returncode == 0

    (told,) = warnings_of(caplog)
    assert "raw_data/input.csv: has a header but no rows" in told
    assert batch.outputs() == outputs
    assert batch.path("artifacts/outputs/output.csv").read_text().count("\n") == 1

    batch.table([("1", "2")], ("a", "b"))
    again = batch.llmbatch_here("run", "--offline")
    assert "0 new, 1 from cache" in again.stdout


def test_rows_without_a_group_are_told_where_the_run_is_started(
    batch: Project, caplog: pytest.LogCaptureFixture
) -> None:
    batch.parameters(**settings(grouping={"enabled": True, "column": "team"}))
    batch.table([("1", "red"), ("2", ""), ("3", "Red")], ("id", "team"))

    ended = batch.llmbatch_here(*PLAN)

    told = "\n".join([ended.stdout, ended.stderr, *warnings_of(caplog)])
    assert told.count("1 row without a value in 'team'") == 1
    assert told.count("differ only in case") == 1


def test_nothing_but_the_message_is_told_by_the_command_itself(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    Refused("password", "i.xlsx", protected_workbook(), ()).put_into(project)

    ended = project.llmbatch("run")

    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.endswith("raw_data/i.xlsx is protected by a password; save it without one\n")
    assert ended.stderr.count("\n") == 1
