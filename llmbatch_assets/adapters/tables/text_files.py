"""Text files of tables: bytes to text, with the place where that fails."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

from llmbatch_assets.errors import TableError

# The longer mark first: that of UTF-32 begins like that of UTF-16.
_WIDE_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# What is often saved under a table's name, by how it begins, and what to do about it.
_NO_TABLES = {
    rb"PK\x03\x04|\xd0\xcf\x11\xe0": "a workbook; set input.format: xlsx",
    rb"PAR1": "a Parquet file; set input.format: parquet",
    rb"\x1f\x8b": "a compressed file; unpack it first",
    rb"\s*<(?i:!doctype html|html|head|body)": "a web page (HTML), maybe one that asks for a login; download the table again",
    rb"version https://git-lfs": "a pointer of git-lfs; fetch the file itself with: git lfs pull",
}
_LINE_BREAK = re.compile(rb"\r\n|\r|\n")


def read_table_text(path: Path, encoding: str) -> str:
    """The text of a file. Raises ``TableError`` with byte and line; no other encoding is guessed."""
    content = path.read_bytes()
    for beginning, what in _NO_TABLES.items():
        if re.match(beginning, content[:200]):
            raise TableError(f"{path} is {what}")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as broken:
        line = len(_LINE_BREAK.findall(content, 0, broken.start)) + 1
        raise TableError(
            f"{path}: byte {broken.start} (line {line}) is not {encoding}; tried {encoding} alone{_hint(content)}; "
            "set input.encoding or save the file as UTF-8"
        ) from None
    nul = text.find("\0")
    if nul >= 0:
        line = text.count("\n", 0, nul) + 1
        raise TableError(
            f"{path}: line {line} holds a NUL character, so this is no text file in {encoding}{_hint(content)}; "
            "set input.encoding or save the file as UTF-8"
        )
    # A byte order mark is no text.
    return text.removeprefix("\ufeff")


def _hint(content: bytes) -> str:
    named = next((name for mark, name in _WIDE_MARKS.items() if content.startswith(mark)), "")
    if named:
        return f" (it begins with the mark of {named})"
    zeros = content[:200].count(0)
    return " (every other byte is zero, as in utf-16)" if zeros and zeros * 3 > len(content[:200]) else ""
