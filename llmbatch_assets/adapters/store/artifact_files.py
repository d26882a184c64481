"""Reads output and failure files, and remembers what was parsed."""

from __future__ import annotations

import json
import os
import re
import time
from collections import OrderedDict
from contextlib import suppress
from threading import Lock
from typing import Any

import orjson

from llmbatch_assets.domain.item_state import CheckedOutput
from llmbatch_assets.domain.outcome import FailedAttempt

MAX_CACHED_BYTES = 32 * 1024 * 1024
# Timestamps advance in ticks of a few milliseconds. A file this young could change again within the same tick.
_MIN_AGE_NS = 20_000_000

_LONG_NUMBER = re.compile(rb"[^\"\w]\d{19}")

_Signature = tuple[int, int, int]


class ArtifactFile:
    """The JSON object in one artifact file, None if there is none. Shared by all readers: never modify it.

    ``checked`` and ``failure`` are kept here by those who compute them.
    """

    __slots__ = ("checked", "content", "failure", "signature")

    def __init__(self, signature: _Signature, content: dict[str, Any] | None) -> None:
        self.signature = signature
        self.content = content
        self.checked: CheckedOutput | None = None
        self.failure: FailedAttempt | None = None


class ArtifactCache:
    """Parsed artifact files of this process, so that a command with several stages parses each file once.

    An entry is used only while the file keeps its modification time, size and inode, so files that another process
    replaces are read again. Entries are dropped, least recently used first, when their files exceed ``max_bytes``
    together; in a batch larger than that, each stage reads its files again.
    """

    def __init__(self, max_bytes: int = MAX_CACHED_BYTES) -> None:
        self._max_bytes = max_bytes
        self._files: OrderedDict[str, ArtifactFile] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    def read(self, path: str) -> ArtifactFile:
        """Return the parsed file. Raises ``OSError`` if it cannot be opened."""
        known = self._files.get(path)
        if known is None or known.signature != _signature(os.stat(path)):  # noqa: PTH116  # no Path is made for it
            return self._parse(path)
        with self._lock:
            if path in self._files:
                self._files.move_to_end(path)
        return known

    def clear(self) -> None:
        """Forget all files."""
        with self._lock:
            self._files.clear()
            self._bytes = 0

    def _parse(self, path: str) -> ArtifactFile:
        with open(path, "rb") as file:  # noqa: PTH123  # no Path is made for it
            signature = _signature(os.fstat(file.fileno()))
            artifact = ArtifactFile(signature, _json_object(file.read()))
        with self._lock:
            self._drop(path)
            if time.time_ns() - signature[0] > _MIN_AGE_NS and signature[1] <= self._max_bytes:
                self._keep(path, artifact)
        return artifact

    def _keep(self, path: str, artifact: ArtifactFile) -> None:
        self._files[path] = artifact
        self._bytes += artifact.signature[1]
        while self._bytes > self._max_bytes:
            self._drop(next(iter(self._files)))

    def _drop(self, path: str) -> None:
        dropped = self._files.pop(path, None)
        if dropped is not None:
            self._bytes -= dropped.signature[1]


def _signature(status: os.stat_result) -> _Signature:
    return status.st_mtime_ns, status.st_size, status.st_ino


def _json_object(content: bytes) -> dict[str, Any] | None:
    try:
        value = _parsed(content)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _parsed(content: bytes) -> Any:
    # orjson is faster and shares equal keys between files, which halves the memory. But it turns integers beyond
    # 64 bits into floats, and it refuses lone surrogates.
    if not _LONG_NUMBER.search(content):
        with suppress(orjson.JSONDecodeError):
            return orjson.loads(content)
    return json.loads(content)


ARTIFACTS = ArtifactCache()
