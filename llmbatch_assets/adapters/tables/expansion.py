"""A limit on what a compressed table expands to, so that a small file cannot fill the memory."""

from __future__ import annotations

from pathlib import Path

from llmbatch_assets.domain.text import format_bytes
from llmbatch_assets.errors import TableError

_MEGABYTE = 10**6
# A cell in memory while a table is read, without its text.
BYTES_PER_CELL = 32


class ExpansionLimit:
    """Adds up the expanded size of a file's parts. Raises ``TableError`` above ``input.max_expanded_mb``."""

    def __init__(self, path: Path, max_mb: int) -> None:
        self._path = path
        self._limit = max_mb * _MEGABYTE
        self.left = self._limit

    def add(self, n_bytes: int) -> None:
        """Count bytes that were read."""
        self.left -= n_bytes
        self.check(self._limit - self.left, "of data")

    def check(self, n_bytes: int, what: str) -> None:
        """Check a size that was not added up, such as one that the file itself states."""
        if n_bytes > self._limit:
            raise TableError(
                f"{self._path} expands to at least {format_bytes(n_bytes)} {what}, and input.max_expanded_mb allows "
                f"{format_bytes(self._limit)}; raise input.max_expanded_mb if you trust the file"
            )
