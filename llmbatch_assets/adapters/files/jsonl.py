"""Append-only JSONL files: one JSON object per line, appended and never changed."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Self, TypeVar

from pydantic import TypeAdapter, ValidationError

from llmbatch_assets.adapters.files.atomic import parse_json
from llmbatch_assets.adapters.files.places import clear_place

log = logging.getLogger(__name__)
T = TypeVar("T")


class JsonlWriter:
    """Appends lines to a file. Several processes may append at once: each line is one write.

    Each line goes to the kernel at once, so killing the process loses none. A power failure loses at most the last
    ``sync_every`` lines. A file that does not exist is created with the first line.
    """

    def __init__(self, path: Path, sync_every: int = 1) -> None:
        self._path = path
        self._sync_every = sync_every
        self._handle = -1
        self._unsynced = 0

    def __enter__(self) -> Self:
        """Raises ``OSError`` if the file exists and cannot be appended to."""
        if self._path.exists():
            self.open()
        return self

    def __exit__(self, *error: object) -> None:
        if self._handle >= 0:
            if self._unsynced:
                os.fsync(self._handle)
            os.close(self._handle)
            self._handle = -1

    def append(self, line: bytes) -> None:
        """Append a line, given without its line break. Raises ``OSError`` if it cannot be written as a whole."""
        self.open()
        self._write(line + b"\n")
        self._unsynced += 1
        if self._unsynced >= self._sync_every:
            os.fsync(self._handle)
            self._unsynced = 0

    def open(self) -> None:
        """Open the file, or create it, if it is not open yet. Raises ``OSError``."""
        if self._handle >= 0:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        clear_place(self._path)
        self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        size = os.fstat(self._handle).st_size
        if size and os.pread(self._handle, 1, size - 1) != b"\n":
            # The last line was cut off. End it, so that it does not corrupt the next one.
            self._write(b"\n")

    def _write(self, content: bytes) -> None:
        try:
            n_written = os.write(self._handle, content)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._path)) from None
        if n_written < len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))


def read_jsonl(path: Path, kind: type[T]) -> Iterator[T]:
    """Yield the lines as values of a pydantic model or NamedTuple. Unreadable lines are skipped with a warning."""
    if not path.is_file():
        return
    validate = TypeAdapter(kind).validate_python
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                if line.strip():
                    yield validate(parse_json(line))
            except (ValueError, ValidationError, RecursionError):
                log.warning("line %d of %s cannot be read and is skipped; its writer was interrupted", number, path)
