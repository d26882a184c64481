"""The version of a file, by which a changed file is recognized without reading it."""

from __future__ import annotations

import os
import time
from typing import NamedTuple

# Timestamps advance in ticks of a few milliseconds. A file this young could change again within the same tick.
_MIN_AGE_NS = 20_000_000


class FileVersion(NamedTuple):
    """What differs when a file was edited, replaced or restored.

    Times are in nanoseconds. ``changed_ns`` is when the file system last changed its record of the file, which no program
    can set back.
    """

    size: int
    modified_ns: int
    changed_ns: int
    inode: int

    @property
    def is_settled(self) -> bool:
        """Whether a later change is certain to show in the version."""
        return time.time_ns() - self.changed_ns > _MIN_AGE_NS


def file_version(path: str | os.PathLike[str]) -> FileVersion | None:
    """Return the version of a file now; None if there is nothing that can be looked at."""
    try:
        return version_of(os.stat(path))  # noqa: PTH116  # called for every item, so no Path is made
    except OSError:
        return None


def version_of(status: os.stat_result) -> FileVersion:
    """Return the version in the status of a file."""
    return FileVersion(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
