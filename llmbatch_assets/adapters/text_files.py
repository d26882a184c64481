"""Text files of tables: bytes to text, with the place where that fails."""

from __future__ import annotations

import codecs
from pathlib import Path

from llmbatch_assets.errors import TableError

_WIDE_MARKS = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16", codecs.BOM_UTF32_BE: "utf-32"}


def read_table_text(path: Path, encoding: str) -> str:
    """The text of a file. Raises ``TableError`` with byte and line; no other encoding is guessed."""
    content = path.read_bytes()
    try:
        # A byte order mark is no text; "utf-8-sig" takes files with and without it.
        text = content.decode("utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding)
    except UnicodeDecodeError as broken:
        line = content.count(b"\n", 0, broken.start) + 1
        hint = _hint(content)
        raise TableError(
            f"{path}: byte {broken.start} (line {line}) is not {encoding}; tried {encoding} alone{hint}; "
            "set input.encoding or save the file as UTF-8"
        ) from None
    nul = text.find("\0")
    if nul >= 0:
        hint = _hint(content)
        line = text.count("\n", 0, nul) + 1
        raise TableError(f"{path}: line {line} holds a NUL character, so this is no text file in {encoding}{hint}")
    return text


def _hint(content: bytes) -> str:
    named = next((name for mark, name in _WIDE_MARKS.items() if content.startswith(mark)), "")
    return f" (it begins with the mark of {named})" if named else ""
