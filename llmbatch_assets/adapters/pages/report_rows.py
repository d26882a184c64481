"""The table of items as data inside pages: as many pages as it takes for each to stay small."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from types import TracebackType
from typing import IO, NamedTuple, Self

import orjson

from llmbatch_assets.domain.report.rows import ItemRow

# Pages of 30 MB and more are slow to open. The rest of a page is small.
PAGE_BYTES = 22_000_000
_PIECE_BYTES = 1 << 20
# Inside a script element `</script` and `<!--` would mean something, and the separators are line breaks to some.
_ESCAPES = (
    (b"<", b"\\u003c"),
    (b">", b"\\u003e"),
    (b"&", b"\\u0026"),
    (b"\xe2\x80\xa8", b"\\u2028"),
    (b"\xe2\x80\xa9", b"\\u2029"),
)


class Slice(NamedTuple):
    """The rows of one page: where their bytes begin and end, how many rows come before, how many they are."""

    start: int
    stop: int
    n_before: int
    n_rows: int


@dataclass
class RowSpool:
    """Takes rows one by one and gives them back as the JSON lists of pages. They wait in a temporary file."""

    page_bytes: int = PAGE_BYTES
    _file: IO[bytes] = field(default_factory=tempfile.TemporaryFile)
    _ends: list[tuple[int, int]] = field(default_factory=list)
    _begin: int = 0
    _size: int = 0
    _n_rows: int = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, row: ItemRow) -> None:
        """Take a row."""
        line = script_json(row)
        if self._size > self._begin and self._size + len(line) - self._begin > self.page_bytes:
            self._end_page()
        if self._size > self._begin:
            line = b",\n" + line
        self._file.write(line)
        self._size += len(line)
        self._n_rows += 1

    def _end_page(self) -> None:
        self._ends.append((self._size, self._n_rows))
        self._begin = self._size

    def slices(self) -> list[Slice]:
        """What each page holds; there is at least one."""
        ends = [(0, 0), *self._ends, (self._size, self._n_rows)]
        return [Slice(start, stop, before, upto - before) for (start, before), (stop, upto) in pairwise(ends)]

    def json(self, part: Slice) -> Iterator[bytes]:
        """The rows of a page as a JSON list, in pieces."""
        yield b"["
        self._file.seek(part.start)
        left = part.stop - part.start
        while left > 0:
            piece = self._file.read(min(left, _PIECE_BYTES))
            left -= len(piece)
            yield piece
        yield b"]"


def script_json(value: object) -> bytes:
    """A value as JSON that a script element can hold: whatever its texts are, they cannot end the element."""
    try:
        encoded = orjson.dumps(value, default=tuple)
    except TypeError:
        # Halves of surrogate pairs, and integers beyond 64 bits.
        encoded = json.dumps(value).encode()
    for character, escaped in _ESCAPES:
        encoded = encoded.replace(character, escaped)
    return encoded
