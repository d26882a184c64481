"""Cells that break tables: every export is read back, by somebody else's reader where the format is text."""

import csv
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmbatch_assets.adapters.tables.export_file import ExportRow
from llmbatch_assets.adapters.tables.formats import EXPORTERS, exporting, read_table
from llmbatch_assets.domain.configuration.input_blocks import Input
from llmbatch_assets.domain.export.columns import EXPORT_MARK, Column, Record, cell_text, cells

UNESCAPED = {'\\"': '"', "\\\\": "\\", "\\|": "|", "\\n": "\n", "\\r": "\r", "\\t": "\t"}
TEXTS = [
    "plain",
    "",
    "née 表 🎉",
    " blanks around ",
    'say "so"',
    '"',
    "a,b;c|d\te",
    "two\nlines",
    "two\r\nlines",
    "a lone\rreturn",
    "\n",
    "\\",
    "\\|",
    "\\n is no line break",
    "ends in \\",
    "=1+1",
    "#",
    "a\x0bb\x0cc\x1cd\x85e\u2028f\u2029g",
    "\ufeffmark",
    "Gemini 1.5 Flash\x00\x00",
    "\x1b]0;title\x07\x1b[2J\x9b31m",
    "\u202egnp.exe\u2066\u2069",
    r"\x{1b} and \u001b are only text",
    "\ufdd0 \U0001ffff",
]


def columns_of(width: int) -> list[Column]:
    return [Column(f"c{number}", "parsed", (f"c{number}",)) for number in range(width)]


def record(*values: Any) -> Record:
    return {"parsed": {f"c{number}": value for number, value in enumerate(values)}, "judge": None}


def export_file(
    path: Path, file_format: str, records: Iterable[Record], columns: list[Column], **settings: bool
) -> Counter[str]:
    """One export of the records; gives what was changed."""
    changes: dict[str, Counter[str]] = {}
    with exporting({file_format: path}, columns, changes, **{"escape_formulas": False} | settings) as put:
        for one in records:
            put([ExportRow(one, cells(one, columns))])
    return changes[file_format]


def exported(folder: Path, file_format: str, rows: list[list[Any]], columns: list[Column] | None = None) -> Path:
    path = folder / f"output.{file_format}"
    export_file(path, file_format, (record(*row) for row in rows), columns or columns_of(len(rows[0])))
    return path


def read_psv(path: Path) -> list[list[str]]:
    """One record per line, cells between bars that no backslash stands before."""
    lines = path.read_bytes().decode().split("\n")
    assert lines.pop() == ""
    cells = [re.findall(r"(?:^|\|)((?:\\.|[^\\|])*)", line) for line in lines]
    return [[re.sub(r"\\(u....|.)", unescaped, cell) for cell in line] for line in cells]


def unescaped(found: re.Match[str]) -> str:
    escape = found[1]
    return chr(int(escape[1:], 16)) if len(escape) > 1 else UNESCAPED[found[0]]


def read_csv(path: Path, delimiter: str) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        lines = list(csv.reader(file, delimiter=delimiter, strict=True))
    return [[re.sub(r"\\x\{(\w+)\}", lambda found: chr(int(found[1], 16)), cell) for cell in line] for line in lines]


def read_back(path: Path) -> list[list[Any]]:
    """The cells below the header."""
    match path.suffix:
        case ".psv":
            return read_psv(path)[1:]
        case ".jsonl":
            lines = path.read_bytes().decode().split("\n")
            assert lines.pop() == ""
            return [list(json.loads(line)["parsed"].values()) for line in lines]
        case ".xlsx" | ".parquet":
            return [["" if cell is None else cell for cell in row] for row in read_table(path, Input()).rows]
    return read_csv(path, {".csv": ",", ".tsv": "\t"}[path.suffix])[1:]


# Every format.


@pytest.mark.parametrize("file_format", EXPORTERS)
@pytest.mark.parametrize("text", TEXTS)
def test_every_text_comes_back_as_it_went(tmp_path: Path, file_format: str, text: str) -> None:
    # Before Python 3.13 the csv writer leaves a lone carriage return unquoted unless its own line end holds one.
    rows = [["before", text, "after"], [text, "x", text]]
    assert read_back(exported(tmp_path, file_format, rows)) == rows


@pytest.mark.parametrize("file_format", EXPORTERS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.lists(
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufffe\uffff'")),
            min_size=2,
            max_size=2,
        ),
        min_size=1,
        max_size=4,
    )
)
def test_any_table_comes_back_as_it_went(tmp_path: Path, file_format: str, rows: list[list[str]]) -> None:
    # Apostrophes are in the tests of formulas. No record is empty in every column, as the last rows of a workbook may be.
    rows = [[*row, "end"] for row in rows]
    assert read_back(exported(tmp_path, file_format, rows)) == rows


@pytest.mark.parametrize("file_format", ["csv", "tsv", "psv", "jsonl", "parquet"])
def test_a_row_of_one_empty_cell_is_a_row(tmp_path: Path, file_format: str) -> None:
    assert read_back(exported(tmp_path, file_format, [["x"], [""], ["y"]])) == [["x"], [""], ["y"]]


@pytest.mark.parametrize("file_format", EXPORTERS)
def test_the_same_records_are_the_same_bytes(tmp_path: Path, file_format: str) -> None:
    first = exported(tmp_path / "a", file_format, [TEXTS]).read_bytes()
    assert exported(tmp_path / "b", file_format, [TEXTS]).read_bytes() == first


@pytest.mark.parametrize("file_format", EXPORTERS)
def test_an_export_that_breaks_off_leaves_the_old_one(tmp_path: Path, file_format: str) -> None:
    def broken() -> Iterator[Record]:
        yield record("new")
        raise ValueError("no more")

    path = exported(tmp_path, file_format, [["old"]])
    before = path.read_bytes()
    with pytest.raises(ValueError, match="no more"):
        export_file(path, file_format, broken(), columns_of(1))
    assert (path.read_bytes(), list(tmp_path.iterdir())) == (before, [path])


@pytest.mark.parametrize("file_format", EXPORTERS)
def test_every_value_that_an_artifact_can_hold_can_be_exported(tmp_path: Path, file_format: str) -> None:
    # An integer of a schema has no bounds of its own.
    [row] = read_back(exported(tmp_path, file_format, [[2**80, -(2**70), "x"]]))
    assert [str(cell) for cell in row] == [str(2**80), str(-(2**70)), "x"]


# The formats that have no form for a character.
NOT_IN = {"\ud83d": ("xlsx", "parquet"), "\ufffe": ("xlsx",), "\uffff": ("xlsx",)}


@pytest.mark.parametrize("file_format", EXPORTERS)
@pytest.mark.parametrize("character", NOT_IN)
def test_a_character_that_the_format_cannot_hold_is_replaced_and_counted(
    tmp_path: Path, file_format: str, character: str
) -> None:
    path, columns = tmp_path / f"output.{file_format}", [Column("v", "parsed", ("c0",))]
    changes = export_file(path, file_format, [record(f"a{character}b"), record([f"a{character}b"])], columns)
    text, nested = [row[0] for row in read_back(path)]
    is_replaced = file_format in NOT_IN[character]
    assert text == (f"a\\u{ord(character):04x}b" if is_replaced else f"a{character}b")
    # In JSON the escape is the character.
    assert (nested if file_format == "jsonl" else json.loads(nested)) == [f"a{character}b"]
    assert bool(changes["characters_escaped"]) == (
        is_replaced or (file_format in ("csv", "psv", "tsv") and character < "\uf000")
    )


# What people look at in a terminal.
ACTIVE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]|\r(?!\n)")


@pytest.mark.parametrize("file_format", ["csv", "tsv", "psv", "jsonl"])
def test_no_text_file_holds_what_a_terminal_obeys(tmp_path: Path, file_format: str) -> None:
    columns = [*columns_of(len(TEXTS)), Column("\x1b[31m\u202e", "parsed", ("c1",))]
    records = [record(*TEXTS), record(*([text, {text: text}] for text in TEXTS))]
    changes = export_file(path := tmp_path / f"output.{file_format}", file_format, records, columns)
    assert not ACTIVE.search(path.read_bytes().decode())
    n_active = sum(map(bool, map(ACTIVE.search, TEXTS)))
    # csv and tsv: also the heading, and the text that looks like an escape. psv: also the heading, but no carriage return.
    expected = {"csv": n_active + 2, "tsv": n_active + 2, "psv": n_active, "jsonl": 0}
    assert changes["characters_escaped"] == expected[file_format]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=[]))
    | st.text(st.sampled_from(list("\x00\x1b\r\n\t\\{}x1b|\"',=\ud83d\ude00\ufffe\u202e "))),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
    # As answers are read: two halves of a pair become one character.
).map(lambda value: json.loads(json.dumps(value)))


@pytest.mark.parametrize("file_format", EXPORTERS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(JSON, min_size=1, max_size=3))
def test_every_output_that_json_allows_is_read_back_by_our_own_reader(
    tmp_path: Path, file_format: str, values: list[Any]
) -> None:
    path = tmp_path / f"output.{file_format}"
    columns = [Column("v", "parsed", ("c0",)), Column(EXPORT_MARK, "parsed", ("c1",))]
    export_file(path, file_format, [record(value, "id") for value in values], columns, escape_formulas=True)
    table = read_table(path, Input())
    rows = [row[table.columns.index("parsed" if file_format == "jsonl" else "v")] for row in table.rows]
    assert len(rows) == len(values)
    for value, cell in zip(values, rows, strict=True):
        read = cell["c0"] if file_format == "jsonl" else cell
        if isinstance(value, str):
            assert (read or "") == held_by(file_format, value)
        elif value is None:
            assert read in (None, "")
        elif file_format != "jsonl":
            # Numbers, lists and objects are JSON.
            assert json.loads(cell_text(read) if not isinstance(read, str) else read) == value


def held_by(file_format: str, text: str) -> str:
    for character, formats in NOT_IN.items():
        if file_format in formats and character != "\ud83d":
            text = text.replace(character, f"\\u{ord(character):04x}")
    return (
        re.sub("[\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", text)
        if file_format in NOT_IN["\ud83d"]
        else text
    )


def write_badly(paths: dict[str, Path]) -> None:
    with exporting(paths, columns_of(1), {}, escape_formulas=True) as put:
        put([ExportRow(record("c"), ["c"]), ExportRow(record(object()), ["c"])])


def test_all_formats_are_written_at_once_or_none_is(tmp_path: Path) -> None:
    paths = {name: tmp_path / f"output.{name}" for name in EXPORTERS}
    with exporting(paths, columns_of(1), {}, escape_formulas=True) as put:
        put([ExportRow(record("a"), ["a"]), ExportRow(record("b"), ["b"])])
    assert [read_back(path) for path in paths.values()] == [[["a"], ["b"]]] * len(paths)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(TypeError):
        write_badly(paths)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


# The byte order mark.


@pytest.mark.parametrize("file_format", EXPORTERS)
def test_a_byte_order_mark_begins_csv_and_tsv_alone_and_is_no_part_of_the_table(
    tmp_path: Path, file_format: str
) -> None:
    path, columns = tmp_path / f"output.{file_format}", [Column("größe", "parsed", ("c0",))]
    export_file(path, file_format, [record("ä")], columns, csv_bom=True)
    assert path.read_bytes().startswith(b"\xef\xbb\xbf") == (file_format in ("csv", "tsv"))
    if file_format != "jsonl":
        table = read_table(path, Input())
        assert (table.columns, list(map(list, table.rows))) == (["größe"], [["ä"]])


# Formulas.


@pytest.mark.parametrize("file_format", EXPORTERS)
@pytest.mark.parametrize("escape_formulas", [True, False])
def test_formulas_are_neutral_in_csv_and_tsv_alone_and_come_back_exactly(
    tmp_path: Path, file_format: str, escape_formulas: bool
) -> None:
    path = tmp_path / f"output.{file_format}"
    columns = [*columns_of(1), Column("=2+2", "parsed", ("c1",)), Column(EXPORT_MARK, "parsed", ("c2",))]
    texts = ["=1+1", "'=1+1", "+49 30 1234", "- text", "@x", "\t=1"]
    found = export_file(
        path, file_format, (record(t, "-1", "id") for t in texts), columns, escape_formulas=escape_formulas
    )
    touched = file_format in ("csv", "tsv")
    assert found["formulas_escaped"] == (0 if not touched else 5 if escape_formulas else 1)
    if touched:
        delimiter = {"csv": ",", "tsv": "\t"}[file_format]
        lines = read_csv(path, delimiter)
        mark = "'" if escape_formulas else ""
        assert lines[0][1] == f"{mark}=2+2"
        shown = [mark + "=1+1", "''=1+1", "+49 30 1234", "- text", mark + "@x", mark + "\t=1"]
        assert [line[0] for line in lines[1:]] == shown
    if file_format != "jsonl":
        table = read_table(path, Input())
        assert table.columns == ["c0", "=2+2", EXPORT_MARK]
        assert [row[0] for row in table.rows] == texts


@pytest.mark.parametrize("file_format", ["csv", "tsv"])
def test_a_table_that_is_no_export_keeps_its_apostrophes(tmp_path: Path, file_format: str) -> None:
    path = tmp_path / f"input.{file_format}"
    path.write_text("c0\n'=1+1\n")
    assert list(read_table(path, Input()).rows) == [["'=1+1"]]


# Tables.


@pytest.mark.parametrize("file_format", ["csv", "tsv", "psv"])
def test_tables_have_a_header_and_name_every_column(tmp_path: Path, file_format: str) -> None:
    columns = [Column("a|b,c\td", "parsed", ("c0",)), Column("judge_score", "judge", ("score",))]
    path = exported(tmp_path, file_format, [["x"]], columns)
    lines = read_psv(path) if file_format == "psv" else read_csv(path, {"csv": ",", "tsv": "\t"}[file_format])
    assert lines == [["a|b,c\td", "judge_score"], ["x", ""]]


@pytest.mark.parametrize("file_format", ["csv", "tsv", "psv"])
def test_a_table_without_records_is_its_header(tmp_path: Path, file_format: str) -> None:
    path = tmp_path / "output"
    export_file(path, file_format, (), columns_of(1))
    assert path.read_bytes() == b"c0\n"


@pytest.mark.parametrize("file_format", ["csv", "tsv", "psv"])
def test_lists_objects_and_numbers_are_json_in_their_cells(tmp_path: Path, file_format: str) -> None:
    values = [["a|b", "c,d"], {"k\t": None}, True, 0, 1.5, None, []]
    [cells] = read_back(exported(tmp_path, file_format, [values]))
    assert [json.loads(cell) if cell else None for cell in cells] == values
    assert cells[5] == ""


def test_a_psv_record_is_always_one_line(tmp_path: Path) -> None:
    content = exported(tmp_path, "psv", [TEXTS, TEXTS]).read_bytes()
    assert content.count(b"\n") == 3
    assert b"\r" not in content


def test_jsonl_records_hold_everything_and_not_only_the_columns(tmp_path: Path) -> None:
    path = tmp_path / "output.jsonl"
    whole: Record = {"parsed": {"a": 1}, "input": {"b": "2"}, "judge": {"verdict": "PASS"}, "meta": {"model": "m"}}
    export_file(path, "jsonl", [whole], [Column("a", "parsed", ("a",))])
    assert json.loads(path.read_bytes()) == whole


def test_jsonl_without_records_is_empty(tmp_path: Path) -> None:
    export_file(tmp_path / "output.jsonl", "jsonl", (), columns_of(1))
    assert (tmp_path / "output.jsonl").read_bytes() == b""
