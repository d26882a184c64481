"""The item table as JSON inside the report's pages, split so that no page becomes too large."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import IO, NamedTuple

import orjson

from llmbatch_assets.domain.report.items import ItemRow
from llmbatch_assets.domain.text import escape_controls

# Pages of 30 MB and more open slowly. The rest of a page takes little space.
PAGE_BYTES = 22_000_000
_PIECE_BYTES = 1 << 20
# `</script` and `<!--` have a meaning inside a script element, and some parsers treat the last two as line breaks.
_ESCAPES = (
    (b"<", b"\\u003c"),
    (b">", b"\\u003e"),
    (b"&", b"\\u0026"),
    (b"\xe2\x80\xa8", b"\\u2028"),
    (b"\xe2\x80\xa9", b"\\u2029"),
)


class Slice(NamedTuple):
    """The rows of one page: their byte range, the number of rows before them, and their number."""

    start: int
    stop: int
    n_before: int
    n_rows: int


@dataclass
class RowSpool(AbstractContextManager["RowSpool"]):
    """Collects rows in a temporary file and returns them as one JSON list per page."""

    page_bytes: int = PAGE_BYTES
    _file: IO[bytes] = field(default_factory=tempfile.TemporaryFile)
    # For each complete page, the number of bytes and of rows up to its end.
    _ends: list[tuple[int, int]] = field(default_factory=lambda: [(0, 0)])
    _size: int = 0
    _n_rows: int = 0

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, row: ItemRow) -> None:
        line = _script_json(row)
        page_size = self._size - self._ends[-1][0]
        if page_size and page_size + len(line) > self.page_bytes:
            self._ends.append((self._size, self._n_rows))
        elif page_size:
            line = b",\n" + line
        self._file.write(line)
        self._size += len(line)
        self._n_rows += 1

    def slices(self) -> list[Slice]:
        """The slices of the pages, at least one."""
        ends = [*self._ends, (self._size, self._n_rows)]
        return [Slice(start, stop, before, upto - before) for (start, before), (stop, upto) in pairwise(ends)]

    def json(self, part: Slice) -> Iterator[bytes]:
        """The rows of a page as a JSON list, in pieces."""
        yield b"["
        self._file.seek(part.start)
        for place in range(part.start, part.stop, _PIECE_BYTES):
            yield self._file.read(min(part.stop - place, _PIECE_BYTES))
        yield b"]"


def _script_json(value: object) -> bytes:
    """Encode a value for a script element, so that no text in it can end the element."""
    try:
        encoded = orjson.dumps(value, default=tuple)
    except TypeError:
        # orjson refuses lone surrogates and integers beyond 64 bits.
        encoded = json.dumps(value).encode()
    for character, escaped in _ESCAPES:
        encoded = encoded.replace(character, escaped)
    return encoded if encoded.isascii() else escape_controls(encoded.decode()).encode()
