"""Claims on items, so that two runs at once pay for none of them twice.

A claim is a lock on one byte of one file, at an offset derived from the item's id. The operating system releases a
process's locks when it ends, however it ends.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llmbatch_assets.errors import BusyError

if sys.platform != "win32":
    import fcntl

# File offsets have 63 bits; 60 bits keep ids apart.
_DIGITS = 15


class FileClaims:
    """The claims of this process, as locks in one file. Windows has no such locks; there every claim succeeds."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)

    def claim(self, cache_id: str) -> bool:
        """Return whether this process now holds the item; false if another one does."""
        if sys.platform == "win32":
            return True
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _place(cache_id))
        except (BlockingIOError, PermissionError):
            return False
        return True

    def claim_all(self) -> bool:
        """Return whether this process now holds all items; false if another one holds any."""
        if sys.platform == "win32":
            return True
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def release(self, cache_id: str) -> None:
        """Give up the item."""
        if sys.platform != "win32":
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _place(cache_id))

    def close(self) -> None:
        """Give up all items."""
        os.close(self._file)


@contextmanager
def claiming(path: Path) -> Iterator[FileClaims]:
    """Hold the claims of a run until the block ends."""
    claims = FileClaims(path)
    try:
        yield claims
    finally:
        claims.close()


@contextmanager
def claiming_all(path: Path) -> Iterator[None]:
    """Keep runs from claiming anything during the block. Raises ``BusyError`` if one holds a claim."""
    claims = FileClaims(path)
    try:
        if not claims.claim_all():
            raise BusyError("a run is working on this batch; wait until it has ended, or end it")
        yield
    finally:
        claims.close()


def _place(cache_id: str) -> int:
    return int(cache_id[:_DIGITS], 16)
