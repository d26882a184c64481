"""Claims on items, so that concurrent runs do not pay for the same item twice.

A claim is a lock on one byte of one file, at an offset derived from the item's id. The operating system releases a
process's locks when it ends, however it ends.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from llmbatch_assets.adapters.files.places import clear_place
from llmbatch_assets.errors import BusyError

if sys.platform != "win32":
    import fcntl

# File offsets have 63 bits; 60 bits keep ids apart.
_DIGITS = 15


class FileClaims:
    """The claims of this process, as locks in one file. Windows has no such locks; there every claim succeeds."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        clear_place(path)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)

    def claim(self, cache_id: str) -> bool:
        """Return whether this process now holds the item; false if another one does."""
        return self._lock(1, _offset(cache_id))

    def claim_all(self) -> bool:
        """Return whether this process now holds all items; false if another one holds any."""
        return self._lock()

    def _lock(self, length: int = 0, offset: int = 0) -> bool:
        if sys.platform == "win32":
            return True
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, length, offset)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def release(self, cache_id: str) -> None:
        if sys.platform != "win32":
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _offset(cache_id))

    def close(self) -> None:
        """Give up all items."""
        os.close(self._file)


@contextmanager
def claiming(path: Path) -> Iterator[FileClaims]:
    """Hold the claims of a run until the block ends."""
    with closing(FileClaims(path)) as claims:
        yield claims


@contextmanager
def claiming_all(path: Path) -> Iterator[None]:
    """Keep runs from claiming anything during the block. Raises ``BusyError`` if one holds a claim."""
    with claiming(path) as claims:
        if not claims.claim_all():
            raise BusyError("a run is working on this batch; wait until it has ended, or end it")
        yield


def _offset(cache_id: str) -> int:
    return int(cache_id[:_DIGITS], 16)
