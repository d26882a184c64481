"""Every workbook that calamine reads is accepted, with warnings about what it drops; no zip bomb is expanded."""

from __future__ import annotations

import io
import re
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmbatch_assets.adapters.tables.formats import read_table
from llmbatch_assets.domain.configuration.input_blocks import Input
from llmbatch_assets.domain.items.table import RawTable, take_snapshot
from llmbatch_assets.errors import TableError
from llmbatch_assets_tests.tables import workbook

SHEET = "xl/worksheets/sheet1.xml"
MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
RELATIONS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE = "http://schemas.openxmlformats.org/package/2006/relationships"
STRICT = "http://purl.oclc.org/ooxml/"
# A header, an error, a formula that was never calculated and an empty cell.
ROWS = (
    '<row r="1"><c r="A1" t="str"><v>a</v></c><c r="B1" t="str"><v>b</v></c></row>'
    '<row r="2"><c r="A2" t="e"><v>#N/A</v></c><c r="B2"><f>A1+1</f></c></row>'
    '<row r="3"><c r="A3"><v>1</v></c><c r="B3"/></row>'
)


def sheet(rows: str) -> str:
    return f'<worksheet xmlns="{MAIN}"><sheetData>{rows}</sheetData></worksheet>'


def links(**targets: str) -> str:
    listed = "".join(
        f'<Relationship Id="{kind}" Type="{RELATIONS}/{kind}" Target="{target}"/>' for kind, target in targets.items()
    )
    return f'<Relationships xmlns="{PACKAGE}">{listed}</Relationships>'


def parts(rows: str = ROWS) -> dict[str, str]:
    return {
        "_rels/.rels": links(officeDocument="xl/workbook.xml"),
        "xl/workbook.xml": f'<workbook xmlns="{MAIN}" xmlns:r="{RELATIONS}"><sheets>'
        '<sheet name="S" sheetId="1" r:id="worksheet"/></sheets></workbook>',
        "xl/_rels/workbook.xml.rels": links(worksheet="worksheets/sheet1.xml"),
        SHEET: sheet(rows),
    }


def zipped(content: dict[str, str]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as book:
        for name, text in content.items():
            book.writestr(name, text)
    return file.getvalue()


def read(folder: Path, content: bytes, **settings: Any) -> RawTable:
    path = folder / "t.xlsx"
    path.write_bytes(content)
    return read_table(path, Input.model_validate(settings))


def texts(table: RawTable) -> list[dict[str, str]]:
    return take_snapshot(table, "t.xlsx", Input()).rows


def renamed(change: Callable[[str], str]) -> Callable[[dict[str, str]], dict[str, str]]:
    return lambda content: {change(name): text for name, text in content.items()}


def replaced(old: str, new: str) -> Callable[[dict[str, str]], dict[str, str]]:
    return lambda content: {name: text.replace(old, new) for name, text in content.items()}


def without_references(content: dict[str, str]) -> dict[str, str]:
    return {**content, SHEET: re.sub(' r="[A-Z]*[0-9]+"', "", content[SHEET])}


def with_prefix(content: dict[str, str]) -> dict[str, str]:
    text = re.sub(r"<(/?)(\w)", r"<\1x:\2", content[SHEET]).replace("xmlns=", "xmlns:x=")
    return {**content, SHEET: text}


WRITTEN_OTHERWISE: dict[str, Callable[[dict[str, str]], dict[str, str]]] = {
    "as usual": dict,
    "backslashes": renamed(lambda name: name.replace("/", "\\")),
    "other case": renamed(lambda name: name.replace("sheet1", "Sheet1")),
    "absolute target": replaced('Target="worksheets', 'Target="/xl/worksheets'),
    "no references": without_references,
    "prefix": with_prefix,
    "single quotes": lambda content: {**content, SHEET: content[SHEET].replace('"', "'")},
    "types before references": lambda content: {
        **content,
        SHEET: re.sub(r' (r="\w+") (t="\w+")', r" \2 \1", content[SHEET]),
    },
    "strict": replaced("http://schemas.openxmlformats.org/officeDocument/2006/", f"{STRICT}officeDocument/"),
}


@pytest.mark.parametrize("change", WRITTEN_OTHERWISE.values(), ids=WRITTEN_OTHERWISE)
def test_a_workbook_gives_rows_and_warnings_however_it_is_written(
    tmp_path: Path, change: Callable[[dict[str, str]], dict[str, str]]
) -> None:
    table = read(tmp_path, zipped(change(parts())))
    assert texts(table) == [{"a": "", "b": ""}, {"a": "1", "b": ""}]
    assert [warning.rpartition(": ")[2] for warning in table.warnings] == ["A2", "B2"]


def test_parts_at_the_root_are_found_if_calamine_finds_them(tmp_path: Path) -> None:
    content = {name.replace("xl/", ""): text.replace("xl/", "") for name, text in parts().items()}
    try:
        table = read(tmp_path, zipped(content))
    except TableError as refusal:
        # Older versions of calamine look below xl alone.
        pytest.skip(str(refusal))
    assert len(table.warnings) == 2


def test_a_broken_link_costs_the_warnings_and_not_the_table(tmp_path: Path) -> None:
    from llmbatch_assets.adapters.tables.expansion import ExpansionLimit
    from llmbatch_assets.adapters.tables.workbook_parts import NO_NOTES, WorkbookParts

    path = tmp_path / "t.xlsx"
    for change in (
        {"xl/_rels/workbook.xml.rels": "<"},
        {"xl/workbook.xml": "<a/>"},
        {"xl/_rels/workbook.xml.rels": links(worksheet="x")},
    ):
        path.write_bytes(zipped(parts() | change))
        assert WorkbookParts(path, ExpansionLimit(path, 10)).notes("S") == NO_NOTES
    path.write_bytes(b"\xd0\xcf\x11\xe0" * 1_000)
    assert WorkbookParts(path, ExpansionLimit(path, 10)).notes("S") == NO_NOTES


# Numbers.


def column(*numbers: str) -> str:
    rows = [f'<row r="{row}"><c r="A{row}"><v>{number}</v></c></row>' for row, number in enumerate(numbers, start=2)]
    return '<row r="1"><c r="A1" t="str"><v>a</v></c></row>' + "".join(rows)


@pytest.mark.parametrize(
    ("numbers", "cells", "warned"),
    [
        # Exact digits, as other programs than Excel write them: once both were ...789000.
        (["1767890123456789123", "1767890123456789177"], ["1767890123456789123", "1767890123456789177"], ""),
        (["-1767890123456789123"], ["-1767890123456789123"], ""),
        (["1" + "0" * 18], ["1" + "0" * 18], ""),
        # Rounded before they were saved.
        (["1.767890123456789E+18", "12"], ["1767890123456789000", "12"], "A2"),
        (["1.2345678901234501E+18"], ["1234567890123450000"], "A2"),
        (["1234567890123450", "1234567890123460"], ["1234567890123450", "1234567890123460"], "A2, A3"),
        # No ids.
        (["0.30000000000000004", "1E+20", "1.1000000000000001"], ["0.30000000000000004", "1" + "0" * 20, "1.1"], ""),
        (["123456789012345"], ["123456789012345"], ""),
    ],
)
def test_long_numbers_have_exact_digits_or_a_warning(
    tmp_path: Path, numbers: list[str], cells: list[str], warned: str
) -> None:
    table = read(tmp_path, zipped(parts(column(*numbers))))
    assert [row["a"] for row in texts(table)] == cells
    assert [warning.rpartition(": ")[2] for warning in table.warnings] == ([warned] if warned else [])


def test_a_number_has_its_own_text_whatever_other_rows_hold(tmp_path: Path) -> None:
    numbers = ["1", "1.5", "1767890123456789123", "1.767890123456789E+18", "1234567890123450", "0.1"]
    together = [row["a"] for row in texts(read(tmp_path, zipped(parts(column(*numbers)))))]
    alone = [texts(read(tmp_path, zipped(parts(column(number)))))[0]["a"] for number in numbers]
    assert together == alone


# Size.


def with_stated_size(content: bytes, stated: int) -> bytes:
    """The zip file with another size of its largest part in both directories."""
    with zipfile.ZipFile(io.BytesIO(content)) as book:
        largest = max(info.file_size for info in book.infolist())
    return content.replace(struct.pack("<I", largest), struct.pack("<I", stated))


BOMB = zipped(parts(ROWS + " " * 5_000_000))


@pytest.mark.parametrize("content", [BOMB, with_stated_size(BOMB, 100)], ids=["stated", "lied about"])
def test_a_small_workbook_that_expands_beyond_the_limit_is_refused(tmp_path: Path, content: bytes) -> None:
    assert len(content) < 10_000
    with pytest.raises(TableError, match=r"expands to at least \d\.\d MB of data.*raise input\.max_expanded_mb"):
        read(tmp_path, content, max_expanded_mb=1)
    assert len(texts(read(tmp_path, BOMB, max_expanded_mb=10))) == 2


def test_four_gigabytes_are_refused_at_once_and_without_memory(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "t.xlsx", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as book:
        for name, text in parts().items():
            book.writestr(name, text)
        with book.open("xl/sharedStrings.xml", "w") as part:
            part.write(b" " * 10_000_000)
    content = with_stated_size((tmp_path / "t.xlsx").read_bytes(), 2**32 - 2)
    began = time.monotonic()
    with pytest.raises(TableError, match=r"expands to at least 4\.3 GB of data, .*allows 1\.0 GB"):
        read(tmp_path, content)
    assert time.monotonic() - began < 1


@pytest.mark.parametrize(
    "far",
    [
        '<row r="1048576"><c r="XFD1048576"><v>1</v></c></row>',
        '<row r="2"><c r="XFD1048576"><v>1</v></c></row>',
        "<row/>" * 200_000 + '<row><c r="XFD200001"><v>1</v></c></row>',
        "<row/>" * 500_000 + "<row>" + "<c><v>1</v></c>" * 200 + "</row>",
    ],
    ids=["row", "cell", "reference only at the end", "no reference"],
)
def test_two_cells_far_apart_are_refused_and_do_not_end_the_process(tmp_path: Path, far: str) -> None:
    # The reader makes all cells between them: 17 billion.
    rows = '<row r="1"><c r="A1" t="str"><v>a</v></c></row>' + far
    with pytest.raises(TableError, match=r"of cells.*input\.max_expanded_mb"):
        read(tmp_path, zipped(parts(rows)))


def test_entities_in_a_workbook_do_not_expand(tmp_path: Path) -> None:
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12))
    bomb = f'<!DOCTYPE x [<!ENTITY e0 "x">{entities}]>'
    content = parts()
    content["xl/workbook.xml"] = bomb + content["xl/workbook.xml"].replace("<sheets>", "<sheets><y>&e11;</y>")
    began = time.monotonic()
    assert len(texts(read(tmp_path, zipped(content)))) == 2
    assert time.monotonic() - began < 5


def test_a_large_zip_file_that_is_damaged_is_called_damaged(tmp_path: Path) -> None:
    content = workbook("ab", (1, "x"))
    with pytest.raises(TableError, match="truncated, damaged"):
        read(tmp_path, content[:2000] + bytes(2_000_000), max_expanded_mb=1)
