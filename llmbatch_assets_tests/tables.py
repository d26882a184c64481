"""Tables as bytes: workbooks, Parquet files, and what passes for them."""

from __future__ import annotations

import io
import re
import struct
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq

# What a compound file says where a sector or an entry is not there, ends a chain, or is the table of sectors itself.
_FREE, _END, _TABLE = 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFD


def workbook(*rows: Sequence[Any], change: Callable[[Any, Any], object] | None = None, epoch: Any = None) -> bytes:
    """A workbook with these rows in its sheet ``Data``; ``change`` is shown workbook and sheet before it is saved."""
    book = openpyxl.Workbook()
    book.epoch = epoch or book.epoch
    sheet = book.active
    sheet.title = "Data"
    for row in rows:
        sheet.append(list(row))
    if change:
        change(book, sheet)
    saved = io.BytesIO()
    book.save(saved)
    return saved.getvalue()


def add_sheet(name: str, *rows: Sequence[Any], state: str = "visible") -> Callable[[Any, Any], object]:
    """A change of a workbook: one more sheet."""

    def change(book: Any, _sheet: Any) -> None:
        added = book.create_sheet(name)
        added.sheet_state = state
        for row in rows:
            added.append(list(row))

    return change


def with_part(content: bytes, part: str, old: bytes, new: bytes) -> bytes:
    """The workbook with a text in one of its parts replaced; it must be there."""
    changed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(changed, "w") as target:
        assert old in source.read(part)
        for name in source.namelist():
            text = source.read(name)
            target.writestr(name, text.replace(old, new) if name == part else text)
    return changed.getvalue()


def with_part_names(content: bytes, name_of: Callable[[str], str]) -> bytes:
    """The workbook with other names of its parts."""
    changed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(changed, "w") as target:
        for name in source.namelist():
            target.writestr(name_of(name), source.read(name))
    return changed.getvalue()


def without_references(content: bytes) -> bytes:
    """The workbook with a first sheet whose rows and cells do not say where they are."""
    part = "xl/worksheets/sheet1.xml"
    with zipfile.ZipFile(io.BytesIO(content)) as source:
        text = source.read(part)
    return with_part(content, part, text, re.sub(rb' r="[A-Z]*[0-9]+"', b"", text))


def protected_workbook() -> bytes:
    """What Excel saves with a password: no zip but a compound file, in which the workbook is one encrypted stream."""
    header = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(16) + struct.pack("<5H6x", 0x3E, 3, 0xFFFE, 9, 6)
    header += struct.pack("<10I", 0, 1, 1, 0, 4096, _END, 0, _END, 0, 0) + struct.pack("<I", _FREE) * 108
    sectors = struct.pack("<3I", _TABLE, _END, _END) + struct.pack("<I", _FREE) * 125
    root = _entry("Root Entry", kind=5, child=1, first=_END)
    return header + sectors + root + _entry("EncryptedPackage", kind=2, child=_FREE, first=2) + bytes(2 * 128 + 512)


def _entry(name: str, kind: int, child: int, first: int) -> bytes:
    """An entry of a compound file's directory."""
    raw = f"{name}\0".encode("utf-16-le")
    siblings = (_FREE, _FREE, child)
    return raw.ljust(64, b"\0") + struct.pack("<HBB3I36xIQ", len(raw), kind, 1, *siblings, first, 0)


def parquet(**columns: Any) -> bytes:
    """A Parquet file with these columns: values, or an array of pyarrow."""
    return parquet_of(pa.table({name: pa.array(values) for name, values in columns.items()}))


def parquet_of(table: pa.Table, **settings: Any) -> bytes:
    """A Parquet file with the table of pyarrow."""
    saved = io.BytesIO()
    pq.write_table(table, saved, **settings)
    return saved.getvalue()
