"""Which items a process is working on, so that two runs at once pay for none of them twice.

A claim is a lock on one byte of one file, at a place that the item's id gives. The system takes the locks of a process
away when it ends, however it ends: what a dead process had claimed is free.
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

# The largest place that a file can have on systems with 64 bits has 63; ids are far apart in 60.
_DIGITS = 15


class Claims:
    """The claims of this process, kept in one file. Systems without such locks grant every claim."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)

    def claim(self, cache_id: str) -> bool:
        """Whether the item is ours now; not where another process has it. A process has no rival in itself."""
        if sys.platform == "win32":
            return True
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _place(cache_id))
        except (BlockingIOError, PermissionError):
            return False
        return True

    def claim_all(self) -> bool:
        """Whether all items are ours now; not where another process has any."""
        if sys.platform == "win32":
            return True
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def release(self, cache_id: str) -> None:
        """Let others have the item."""
        if sys.platform != "win32":
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _place(cache_id))

    def close(self) -> None:
        """Let others have all items."""
        os.close(self._file)


@contextmanager
def claiming(path: Path) -> Iterator[Claims]:
    """The claims of a run, given up at its end."""
    claims = Claims(path)
    try:
        yield claims
    finally:
        claims.close()


@contextmanager
def claiming_all(path: Path) -> Iterator[None]:
    """Let no run claim anything meanwhile. Raises ``BusyError`` while one has claimed something."""
    claims = Claims(path)
    try:
        if not claims.claim_all():
            raise BusyError("a run is working on this batch; wait until it has ended, or end it")
        yield
    finally:
        claims.close()


def _place(cache_id: str) -> int:
    return int(cache_id[:_DIGITS], 16)
