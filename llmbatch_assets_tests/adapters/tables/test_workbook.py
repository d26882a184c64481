"""Workbooks: what Excel cannot hold is told, what looks like markup is text, and the bytes are the same each time."""

from __future__ import annotations

import io
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbatch_assets.adapters.tables.export_file import ExportFile, ExportRow
from llmbatch_assets.adapters.tables.formats import read_table
from llmbatch_assets.adapters.tables.workbook import WorkbookWriter
from llmbatch_assets.domain.configuration.input_blocks import Input
from llmbatch_assets.domain.export.columns import Column
from llmbatch_assets.domain.export.limits import XLSX_CHARS, XLSX_COLUMNS
from llmbatch_assets.domain.text import CUT_MARK
from llmbatch_assets.errors import ConfigError
from llmbatch_assets_tests.domain.strategies import quick

MARKUP = [
    "<r>",
    "</r>",
    "<t>x</t>",
    "_x005F_",
    "_x000D_",
    "x000D_",
    "_x0041_",
    "&lt;",
    "\r",
    "\x01",
    "🎉",
    "=1",
    "\n",
    " ",
]


def written(rows: Sequence[Sequence[Any]], changes: Counter[str] | None = None, **limits: int) -> bytes:
    file = io.BytesIO()
    columns = [Column(f"c{place}", "parsed", ()) for place in range(len(rows[0]))]
    export = ExportFile(file, columns, False, Counter() if changes is None else changes)
    with WorkbookWriter(export, **limits) as write:
        write([ExportRow({}, row) for row in rows])
    return file.getvalue()


def read(folder: Path, content: bytes, sheet: str | int = "") -> list[list[Any]]:
    path = folder / "t.xlsx"
    path.write_bytes(content)
    return [list(row) for row in read_table(path, Input(sheet=sheet)).rows]


def test_numbers_are_numbers_and_texts_are_texts(tmp_path: Path) -> None:
    row = ["=1+1", "http://a.example", "007", 5, -0.5, True, None, "2026-01-01"]
    sheet = openpyxl.load_workbook(io.BytesIO(written([row]))).active
    assert [cell.value for cell in sheet[2]] == row
    assert [cell.data_type for cell in sheet[2]] == [
        "s" if isinstance(cell, str) else "b" if cell is True else "n" for cell in row
    ]
    assert all(cell.hyperlink is None for cell in sheet[2])


def test_a_number_that_excel_would_round_is_a_text(tmp_path: Path) -> None:
    row = [10**15, 0.1 + 0.2, 10**15 - 1, 0.1]
    assert read(tmp_path, written([row])) == [["1000000000000000", "0.30000000000000004", 10**15 - 1, 0.1]]


@quick
@given(text=st.lists(st.sampled_from(MARKUP), min_size=1, max_size=6).map("".join))
def test_what_looks_like_markup_is_text(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    assert read(tmp_path_factory.getbasetemp(), written([[text, "end"]])) == [[text, "end"]]


@pytest.mark.parametrize("text", ["<r><t>x</t></r>", "<r></r>", "<r>\n&amp;</r>"])
def test_markup_in_a_text_is_text_for_others_too(text: str) -> None:
    assert openpyxl.load_workbook(io.BytesIO(written([[text]]))).active["A2"].value == text


def test_a_text_of_full_length_that_looks_like_markup_is_whole(tmp_path: Path) -> None:
    text = f"<r>{'&' * (XLSX_CHARS - 7)}</r>"
    assert read(tmp_path, written([[text]])) == [[text]]


@pytest.mark.parametrize("character", ["x", "🎉"])
def test_a_text_that_is_too_long_is_cut_and_counted(tmp_path: Path, character: str) -> None:
    changes = Counter[str]()
    longest = character * (XLSX_CHARS // (2 if character > "\uffff" else 1))
    (whole,), (cut,) = read(tmp_path, written([[longest], [longest + character]], changes))
    assert whole == longest
    assert cut.endswith(CUT_MARK)
    assert longest.startswith(cut.removesuffix(CUT_MARK))
    assert XLSX_CHARS - 1 <= len(cut.encode("utf-16-le")) // 2 <= XLSX_CHARS
    assert changes == {"cut_at_32767_characters": 1}


def test_rows_without_room_go_onto_further_sheets_and_are_counted(tmp_path: Path) -> None:
    changes = Counter[str]()
    content = written([[number] for number in range(5)], changes, max_rows=3)
    assert [read(tmp_path, content, sheet) for sheet in (1, 2, 3)] == [[[0], [1]], [[2], [3]], [[4]]]
    assert changes == {"rows_on_further_sheets": 3}


def test_more_columns_than_a_sheet_has_are_refused() -> None:
    with pytest.raises(ConfigError, match="remove xlsx"):
        WorkbookWriter(ExportFile(io.BytesIO(), [Column("x", "parsed", ())] * (XLSX_COLUMNS + 1), False, Counter()))


def test_the_bytes_do_not_depend_on_time_and_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    made = set()
    for zone in ("UTC", "Asia/Kathmandu", "America/St_Johns"):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        made.add(written([["a", 1]]))
    monkeypatch.undo()
    time.tzset()
    assert len(made) == 1
