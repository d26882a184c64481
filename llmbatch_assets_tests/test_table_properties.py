"""One table is one table: whatever its format, its line ends, and the machine that reads it."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import re
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from llmbatch_assets.adapters.files.atomic import json_bytes
from llmbatch_assets.adapters.tables.export_file import ExportRow
from llmbatch_assets.adapters.tables.formats import EXPORTERS, READERS, exporting, read_table
from llmbatch_assets.domain.configuration.input_blocks import Input
from llmbatch_assets.domain.export.columns import OutputField, cells, export_columns
from llmbatch_assets.domain.export.records import ItemOutcome, Join, NotExported, entries
from llmbatch_assets.domain.grouping_modes import GROUPING_MODES
from llmbatch_assets.domain.items.grouping import plan_work
from llmbatch_assets.domain.items.table import RawTable, Snapshot, clean_columns, take_snapshot
from llmbatch_assets.domain.items.work import work_items_of
from llmbatch_assets.errors import TableError
from llmbatch_assets_tests.domain.strategies import EXOTIC, KEYS, ROW_MODES, make_output, parameters
from llmbatch_assets_tests.memory_storage import kept_in_memory
from llmbatch_assets_tests.project import Project, make_project

Write = Callable[[RawTable, str], bytes]

PATH = "raw_data/input"
DELIMITERS = {"csv": ",", "psv": "|", "tsv": "\t"}

files = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


# How somebody else's programs write each format.


def shown(cell: Any) -> str:
    """A value as a person would type it."""
    match cell:
        case None:
            return ""
        case bool():
            return str(cell).lower()
        case float():
            return f"{cell:.2f}".rstrip("0").rstrip(".")
        case dt.datetime() if cell.time() == dt.time():
            return cell.date().isoformat()
        case dt.date() | dt.time():
            return cell.isoformat()
        case list():
            return json.dumps(cell, ensure_ascii=False, separators=(",", ":"))
    return str(cell)


def lines(table: RawTable, end: str, line: Callable[[list[str]], str]) -> bytes:
    return "".join(line([shown(cell) for cell in row]) + end for row in [table.columns, *table.rows]).encode()


def quoted(delimiter: str, quoting: Any = csv.QUOTE_MINIMAL) -> Write:
    def line(cells: list[str]) -> str:
        # Before Python 3.13 the writer quotes a lone carriage return only if its own line end holds one.
        buffer = io.StringIO(newline="")
        csv.writer(buffer, delimiter=delimiter, quoting=quoting).writerow(cells)
        return buffer.getvalue().removesuffix("\r\n")

    return lambda table, end: lines(table, end, line)


def escaped(table: RawTable, end: str) -> bytes:
    letters = {"\n": "n", "\r": "r", "\t": "t"}

    def cell(text: str) -> str:
        return re.sub(r'[\\|\n\r\t]|^"', lambda found: "\\" + letters.get(found[0], found[0]), text)

    return lines(table, end, lambda cells: "|".join(map(cell, cells)))


def objects(**options: Any) -> Write:
    def write(table: RawTable, end: str) -> bytes:
        rows = (dict(zip(table.columns, row, strict=True)) for row in table.rows)
        return "".join(json.dumps(row, default=shown, **options) + end for row in rows).encode()

    return write


def workbook(table: RawTable, end: str) -> bytes:
    book = openpyxl.Workbook()
    for number, row in enumerate([table.columns, *table.rows], start=1):
        for place, value in enumerate(row, start=1):
            cell = book.active.cell(number, place)
            if not isinstance(value, str | list):
                cell.value = value
                continue
            # As Excel does it: XML would turn a carriage return into a line feed.
            text = re.sub("_(?=x[0-9A-Fa-f]{4}_)", "_x005F_", shown(value)).replace("\r", "_x000D_")
            # Neither a formula nor an error, whatever it begins with.
            cell.value, cell.data_type = text, "s"
    content = io.BytesIO()
    book.save(content)
    return content.getvalue()


def parquet(table: RawTable, end: str) -> bytes:
    content = io.BytesIO()
    columns = zip(*table.rows, strict=True)
    pq.write_table(pa.table(dict(zip(table.columns, map(list, columns), strict=True))), content)
    return content.getvalue()


# Every way in which a format is written, and the line ends that it can have.
WRITERS: dict[str, list[Write]] = {
    "csv": [quoted(","), quoted(",", csv.QUOTE_ALL)],
    "psv": [quoted("|", csv.QUOTE_ALL)],
    "tsv": [quoted("\t"), quoted("\t", csv.QUOTE_ALL)],
    "xlsx": [workbook],
    "jsonl": [objects(), objects(ensure_ascii=False)],
    "parquet": [parquet],
}
LINE_ENDS = {
    **dict.fromkeys(DELIMITERS, ("\n", "\r\n", "\r")),
    "jsonl": ("\n", "\r\n"),
    **dict.fromkeys(("xlsx", "parquet"), ("",)),
}


def test_it_is_known_how_every_format_is_written() -> None:
    assert set(WRITERS) == set(LINE_ENDS) == set(READERS)


def read_back(path: Path, content: bytes, **changes: Any) -> Snapshot:
    """The snapshot of a file. It does not say where the file lay."""
    path.write_bytes(content)
    read = Input.model_validate(changes)
    return take_snapshot(read_table(path, read), PATH, read)


def each_way(folder: Path, kind: str, table: RawTable, **changes: Any) -> Iterator[Snapshot]:
    """The table, read from every way in which a format is written."""
    for write in WRITERS[kind]:
        yield read_back(folder / f"input.{kind}", write(table, LINE_ENDS[kind][0]), **changes)


# What goes in.


def usable(name: str) -> bool:
    try:
        return bool(clean_columns([name], PATH))
    except TableError:
        return False


def named(names: Iterable[str]) -> list[str]:
    return clean_columns(list(names), PATH)


NAMES = st.lists(EXOTIC.filter(usable), min_size=2, max_size=4, unique_by=lambda name: named([name])[0])
WHOLE = st.integers(-(10**12), 10**12)
MOMENTS = st.datetimes(dt.datetime(1905, 1, 1), dt.datetime(2100, 1, 1)).map(
    lambda moment: moment.replace(microsecond=0)
)
KINDS: list[st.SearchStrategy[Any]] = [
    EXOTIC.filter(bool),
    WHOLE,
    WHOLE.map(lambda number: number / 4),
    st.booleans(),
    st.dates(dt.date(1905, 1, 1), dt.date(2100, 1, 1)),
    MOMENTS,
    MOMENTS.map(lambda moment: moment.replace(hour=0, minute=0, second=0)),
    st.times().map(lambda time: time.replace(microsecond=0)),
    st.lists(st.sampled_from(["a", "b|c", 'd"', "é,"]), max_size=2),
]


def whole(rows: Sequence[Sequence[Any]]) -> bool:
    """Whether the last row is not blank: no workbook tells such a one from none."""
    return any(shown(cell).strip() for cell in rows[-1])


@st.composite
def tables(draw: st.DrawFn) -> RawTable:
    """Tables of texts."""
    columns = draw(NAMES)
    rows = st.lists(st.tuples(*[EXOTIC] * len(columns)), min_size=1, max_size=5)
    return RawTable(columns, draw(rows.filter(whole)), "memory")


# Tables with a column for each type of values; everywhere can be nothing.
_TYPED_ROWS = st.lists(st.tuples(*(kind | st.none() for kind in KINDS)), min_size=1, max_size=4).filter(whole)
TYPED_TABLES = _TYPED_ROWS.map(
    lambda rows: RawTable([f"column {place}" for place in range(len(KINDS))], rows, "memory")
)


def texts_of(table: RawTable) -> RawTable:
    """The table with every value as its text, not read from any file."""
    return RawTable(table.columns, [[shown(cell) for cell in row] for row in table.rows], "memory")


# The same rows.


@pytest.mark.parametrize("collapse", [True, False])
@pytest.mark.parametrize("kind", READERS)
@files
@given(table=tables())
@example(
    table=RawTable(["a", "b"], [["", ""], ["=1+1", "#N/A"], ["", ""], ["x\ry", "x\r\ny\rz"], ["-", "@"]], "memory")
)
def test_a_table_has_the_same_rows_in_every_format(tmp_path: Path, kind: str, collapse: bool, table: RawTable) -> None:
    expected = take_snapshot(table, PATH, Input(collapse_whitespace=collapse))
    for snapshot in each_way(tmp_path, kind, table, collapse_whitespace=collapse):
        assert (snapshot.columns, snapshot.rows) == (expected.columns, expected.rows)
        assert snapshot.meta["input_format"] == kind


@pytest.mark.parametrize("kind", READERS)
@files
@given(table=TYPED_TABLES)
def test_a_value_of_any_type_is_the_text_that_a_person_would_type(tmp_path: Path, kind: str, table: RawTable) -> None:
    expected = take_snapshot(texts_of(table), PATH, Input())
    for snapshot in each_way(tmp_path, kind, table):
        assert snapshot.rows == expected.rows


NUMBERS = st.lists(st.tuples(WHOLE | WHOLE.map(lambda number: number / 4), st.just("x")), min_size=2, max_size=4)


@pytest.mark.parametrize("kind", READERS)
@files
@given(table=TYPED_TABLES | NUMBERS.map(lambda rows: RawTable(["mixed", "text"], rows, "memory")))
def test_a_row_has_the_same_texts_whatever_other_rows_hold(tmp_path: Path, kind: str, table: RawTable) -> None:
    # A time with nanoseconds once changed the texts of the others.
    together = [snapshot.rows for snapshot in each_way(tmp_path, kind, table)]
    for place, row in enumerate(table.rows):
        if whole([row]):
            alone = each_way(tmp_path, kind, RawTable(table.columns, [row], "memory"))
            assert [snapshot.rows for snapshot in alone] == [[rows[place]] for rows in together]


@files
@given(table=tables() | TYPED_TABLES, collapse=st.booleans())
def test_a_row_is_cleaned_as_if_it_stood_alone(table: RawTable, collapse: bool) -> None:
    # Enough of them that they are not all looked at together.
    rows = [*table.rows] * 150
    read = Input(collapse_whitespace=collapse)
    together = take_snapshot(RawTable(table.columns, rows, "memory"), PATH, read)
    alone = [take_snapshot(RawTable(table.columns, [row], "memory"), PATH, read) for row in table.rows]
    assert together.rows == [row for snapshot in alone for row in snapshot.rows] * 150
    for kind, counts in together.meta["cells_changed"].items():
        for name, count in counts.items():
            assert count == 150 * sum(one.meta["cells_changed"].get(kind, {}).get(name, 0) for one in alone)


# An export is an input.


def input_part(kind: str, snapshot: Snapshot, columns: list[str]) -> list[dict[str, str]]:
    """The input rows in an export that was read back."""
    nested: dict[str, Callable[[dict[str, str]], Any]] = {
        **dict.fromkeys([*DELIMITERS, "xlsx", "parquet"], lambda row: dict(zip(columns, row.values(), strict=False))),
        "jsonl": lambda row: json.loads(row["input"]),
    }
    return [nested[kind](row) for row in snapshot.rows]


def exported(path: Path, snapshot: Snapshot) -> bytes:
    """An output for every row, exported as a run does it."""
    items = plan_work(snapshot, parameters()).items
    standings = (ItemOutcome(item, make_output(item, {"answer": item.context})) for item in items)
    columns = export_columns(snapshot.columns, [OutputField(("answer",), "string")])
    with exporting({path.suffix[1:]: path}, columns, {}, escape_formulas=True) as put:
        for entry in entries(Join.of(snapshot, parameters()), standings):
            assert not isinstance(entry, NotExported)
            put([ExportRow(entry, cells(entry, columns))])
    return path.read_bytes()


@pytest.mark.parametrize("collapse", [True, False])
@pytest.mark.parametrize("kind", EXPORTERS)
@files
@given(table=tables())
@example(table=RawTable(["meta_model", 'say "id"'], [["=1+1", "\\"], ["x\ry", '"'], ["x\r\ny", ""]], "memory"))
def test_an_export_is_an_input_with_the_same_rows(tmp_path: Path, kind: str, collapse: bool, table: RawTable) -> None:
    given_rows = take_snapshot(table, PATH, Input(collapse_whitespace=collapse))
    path = tmp_path / f"output.{kind}"
    again = read_back(path, exported(path, given_rows), collapse_whitespace=collapse)
    assert input_part(kind, again, given_rows.columns) == given_rows.rows


# The same bytes.


def written(snapshot: Snapshot, mode: str) -> dict[str, bytes]:
    """What later steps start from, as it is written."""
    read = parameters(grouping=ROW_MODES[mode], work_items={"label_column": "text"})
    plan = plan_work(snapshot, read)
    values = {"rows": snapshot.rows, "contexts": plan.contexts, "items": work_items_of(plan, read, "contexts.json")}
    return {name: json_bytes(TypeAdapter(Any).dump_python(value, mode="json")) for name, value in values.items()}


TEAM_TABLES = st.lists(st.tuples(EXOTIC, KEYS, EXOTIC), min_size=1, max_size=5).map(
    lambda rows: RawTable(["id", "team", "text"], [*rows, ("last", "red", "row")], "memory")
)


@pytest.mark.parametrize("kind", READERS)
@files
@given(table=TEAM_TABLES, mode=st.sampled_from(sorted(GROUPING_MODES)), collapse=st.booleans())
def test_work_items_are_the_same_bytes_from_every_format(
    tmp_path: Path, kind: str, table: RawTable, mode: str, collapse: bool
) -> None:
    expected = written(take_snapshot(table, PATH, Input(collapse_whitespace=collapse)), mode)
    for snapshot in each_way(tmp_path, kind, table, collapse_whitespace=collapse):
        assert written(snapshot, mode) == expected


@pytest.mark.parametrize("kind", [kind for kind in READERS if len(LINE_ENDS[kind]) > 1])
@files
@given(table=tables(), collapse=st.booleans())
def test_line_ends_leave_no_trace_in_the_snapshot(tmp_path: Path, kind: str, table: RawTable, collapse: bool) -> None:
    path = tmp_path / f"input.{kind}"
    for write in WRITERS[kind]:
        read = [read_back(path, write(table, end), collapse_whitespace=collapse) for end in LINE_ENDS[kind]]
        # Here meta, too: the format is the same.
        assert len({json_bytes(snapshot.model_dump()) for snapshot in read}) == 1


def one_cell(kind: str, folder: Path, write: Write, text: str, end: str = "\n") -> list[str]:
    """The first cells of a table with this one among them."""
    table = RawTable(["a", "b"], [[text, "1"], ["x", "2"]], "memory")
    return [row["a"] for row in read_back(folder / f"input.{kind}", write(table, end), collapse_whitespace=False).rows]


@pytest.mark.parametrize("kind", DELIMITERS)
@pytest.mark.parametrize("character", ["\v", "\f", "\x1c", "\x85", "\u2028", "\u2029"])
def test_a_character_that_ends_lines_elsewhere_ends_none_of_a_table(tmp_path: Path, kind: str, character: str) -> None:
    # Of psv files with CRLF they once made lines.
    text = f"x{character}y"
    found = [one_cell(kind, tmp_path, write, text, end) for write in WRITERS[kind] for end in LINE_ENDS[kind]]
    assert found == [[text, "x"]] * len(found)


EXAMPLE = RawTable(
    ["id", "team", "question"],
    [
        ["007", "caf\u00e9", "Où est la gare ? 駅は\u2028どこですか"],
        ["1e5", "cafe\u0301", 'I\u0307stanbul\'da "ıssız" mı? a|b,c\td'],
        ["=1+1", "", "two\r\nlines\rand\nmore"],
        ["", "ﬁnal", "שלום 👩\u200d💻"],
        ["", "ﬁnal", "שלום 👩\u200d💻"],
    ],
    "memory",
)
PREPARE = ("run", "--select", "input_snapshot,group_contexts,work_items")


def batch(root: Path, kind: str, end: str) -> Project:
    """A project with the example as its table."""
    path = f"{PATH}.{kind}"
    project = make_project(root, grouping={"enabled": True, "column": "team"}, input={"path": path})
    project.path(path).write_bytes(WRITERS[kind][0](EXAMPLE, end))
    return project


def prepared(project: Project, ended: subprocess.CompletedProcess[str]) -> dict[str, bytes]:
    """What a run has made of the table, without what tells its format."""
    assert ended.returncode == 0, ended.stderr
    cache = project.path("artifacts/cache")
    names = ("pipeline3_work_items.json", "pipeline3_group_contexts.json")
    rows = json_bytes(project.json("artifacts/cache/pipeline2_input.json")["rows"])
    return {"rows": rows} | {name: (cache / name).read_bytes() for name in names}


def run_here(root: Path, kind: str) -> dict[str, bytes]:
    project = batch(root, kind, LINE_ENDS[kind][-1])
    with kept_in_memory(project.path("dagster_home")):
        return prepared(project, project.llmbatch_here(*PREPARE))


@pytest.fixture(scope="module")
def from_jsonl(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What is made of the example as lines of JSON, which leave the least open."""
    return run_here(tmp_path_factory.mktemp("jsonl") / "project", "jsonl")


@pytest.mark.parametrize("kind", READERS)
def test_a_run_writes_the_same_artifacts_from_every_format(
    tmp_path: Path, kind: str, from_jsonl: dict[str, bytes]
) -> None:
    assert run_here(tmp_path / "project", kind) == from_jsonl


SURROUNDINGS = (
    {"PYTHONHASHSEED": "1", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"},
    # No UTF-8 anywhere but in what is read and written.
    {"PYTHONHASHSEED": "2", "LANG": "C", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
)


def test_locale_hash_seed_and_line_ends_leave_no_trace(tmp_path: Path, from_jsonl: dict[str, bytes]) -> None:
    projects = [batch(tmp_path / str(number), "csv", end) for number, end in enumerate(("\n", "\r"))]
    with ThreadPoolExecutor() as at_once:
        runs = at_once.map(lambda pair: pair[0].llmbatch(*PREPARE, **pair[1]), zip(projects, SURROUNDINGS, strict=True))
    assert [*map(prepared, projects, runs)] == [from_jsonl, from_jsonl]
    # Within one format the whole snapshot, meta included.
    whole = [project.path("artifacts/cache/pipeline2_input.json").read_bytes() for project in projects]
    assert whole[0] == whole[1]


# Backslashes and quotes.


@pytest.mark.parametrize("kind", DELIMITERS)
def test_a_backslash_before_a_delimiter_stays_in_a_quoted_cell(tmp_path: Path, kind: str) -> None:
    text = f"a\\{DELIMITERS[kind]}b"
    assert one_cell(kind, tmp_path, quoted(DELIMITERS[kind], csv.QUOTE_ALL), text) == [text, "x"]


@pytest.mark.parametrize("kind", [kind for kind in EXPORTERS if kind in DELIMITERS])
def test_a_backslash_before_a_delimiter_stays_in_an_export(tmp_path: Path, kind: str) -> None:
    text = f"a\\{DELIMITERS[kind]}b"
    keep = {"collapse_whitespace": False}
    given_rows = take_snapshot(RawTable(["a", "b"], [[text, ""]], "memory"), PATH, Input.model_validate(keep))
    path = tmp_path / f"output.{kind}"
    assert read_back(path, exported(path, given_rows), **keep).rows[0]["a"] == text


def test_a_bar_before_a_quote_stays_in_an_escaped_file(tmp_path: Path) -> None:
    assert one_cell("psv", tmp_path, escaped, '|"x') == ['|"x', "x"]


def test_a_quoted_cell_may_stand_behind_a_carriage_return(tmp_path: Path) -> None:
    assert one_cell("psv", tmp_path, quoted("|"), "x|y", "\r") == ["x|y", "x"]


@pytest.mark.parametrize("text", ["C:\\Users", "\\d+"])
def test_a_backslash_stays_in_a_psv_file_that_needs_no_quotes(tmp_path: Path, text: str) -> None:
    assert one_cell("psv", tmp_path, quoted("|"), text) == [text, "x"]
