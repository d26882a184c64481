"""The table that the check before a run has read, kept for the run. A large table takes seconds to read."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from llmbatch_assets.domain.configuration.input_blocks import Input
from llmbatch_assets.domain.items.table import Snapshot


class TableVersion(NamedTuple):
    """What a snapshot depends on: the state of the table's file, and the settings of ``input``."""

    path: Path
    inode: int
    size: int
    changed_ns: int
    settings: str


# At most one table, since it can be large.
_kept: dict[TableVersion, Snapshot] = {}


def table_version(path: Path, settings: Input) -> TableVersion | None:
    """Return the version of the table now; None if there is no file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return TableVersion(path, status.st_ino, status.st_size, status.st_mtime_ns, settings.model_dump_json())


def keep_snapshot(version: TableVersion | None, snapshot: Snapshot) -> None:
    """Keep a snapshot of the table that had this version before it was read."""
    _kept.clear()
    if version:
        _kept[version] = snapshot


def kept_snapshot(path: Path, settings: Input, *, is_last_use: bool) -> Snapshot | None:
    """Return the snapshot that was kept of the table as it is now, if any. Its last use frees the memory."""
    version = table_version(path, settings) if _kept else None
    snapshot = _kept.get(version) if version else None
    if is_last_use:
        _kept.clear()
    return snapshot
