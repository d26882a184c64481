"""The ledger of calls as a file: one line each, appended and never changed."""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import orjson
from pydantic import ValidationError

from llmbatch_assets.domain.canonical import canonical_json
from llmbatch_assets.domain.ledger import CallRecord
from llmbatch_assets.errors import RunPermanentError, StopCause

log = logging.getLogger(__name__)

# The kernel has each line at once, so a killed process loses none. Only a power failure can take what was not synced,
# and a sync for every call would cost more than such a line is worth.
SYNC_LINES = 100


class UsageLedger:
    """Appends records to ``usage.jsonl``. Several processes may: each line is one write. The file is made by the first."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle = -1
        self._unsynced = 0

    def __enter__(self) -> Self:
        """Raises ``RunPermanentError`` where no line could be appended to what there is."""
        try:
            if self._path.exists():
                self._open()
        except OSError as refused:
            raise RunPermanentError(
                StopCause.DISK, f"{self._path} cannot be written to ({refused.strerror}); no call was made"
            ) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._handle >= 0:
            os.fsync(self._handle)
            os.close(self._handle)
            self._handle = -1

    def write(self, record: CallRecord) -> None:
        """Append one line. Raises ``OSError`` where it cannot be written whole."""
        if self._handle < 0:
            self._open()
        self._append(_line(record))
        self._unsynced += 1
        if self._unsynced >= SYNC_LINES:
            os.fsync(self._handle)
            self._unsynced = 0

    def _open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        if _ends_within_a_line(self._handle):
            # A line that was cut off spoils itself, not the next one.
            self._append(b"\n")

    def _append(self, line: bytes) -> None:
        if os.write(self._handle, line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))


def _line(record: CallRecord) -> bytes:
    fields = dict(record)
    try:
        return orjson.dumps(fields, option=orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE)
    except TypeError:
        # Half of a surrogate pair in a provider's name for the call.
        return canonical_json(fields).encode("utf-8", "backslashreplace") + b"\n"


def _ends_within_a_line(handle: int) -> bool:
    size = os.fstat(handle).st_size
    return size > 0 and os.pread(handle, 1, size - 1) != b"\n"


def read_ledger(path: Path) -> Iterator[CallRecord]:
    """The records, in the order in which they were written. A line that cannot be read is told and left out."""
    if not path.is_file():
        return
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield CallRecord.model_validate(json.loads(line))
            except (ValueError, ValidationError, RecursionError):
                log.warning("line %d of %s cannot be read and is not counted; its writer was cut short", number, path)
