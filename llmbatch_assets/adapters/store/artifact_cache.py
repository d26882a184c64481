"""Parsed artifact files of this process."""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock
from typing import Any

from llmbatch_assets.adapters.files.atomic import parse_json
from llmbatch_assets.adapters.files.file_version import FileVersion, file_version, version_of
from llmbatch_assets.adapters.files.places import open_regular
from llmbatch_assets.domain.item_state import CheckedOutput
from llmbatch_assets.domain.outcome import FailedAttempt

MAX_CACHED_BYTES = 32 * 1024 * 1024

_DIGITS_TO_ZERO = bytes(48 if 48 <= byte < 58 else 32 for byte in range(256))
_LONG_RUN = b"0" * 19


@dataclass(slots=True)
class ArtifactFile:
    """The JSON object in one artifact file, None if there is none. Shared by all readers: never modify it.

    ``sha`` is the SHA-1 of its bytes. ``checked`` and ``failure`` cache what readers compute from it.
    """

    version: FileVersion
    content: dict[str, Any] | None
    sha: str
    checked: CheckedOutput | None = None
    failure: FailedAttempt | None = None


class ArtifactCache:
    """Parsed artifact files of this process, so that a command with several stages parses each file once.

    An entry is used only while the file keeps its version, so files that another process replaces are read again. Entries
    are dropped, least recently used first, when their files exceed ``max_bytes`` together; in a batch larger than that,
    each stage reads its files again.
    """

    def __init__(self, max_bytes: int = MAX_CACHED_BYTES) -> None:
        self._max_bytes = max_bytes
        self._files: OrderedDict[str, ArtifactFile] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    def read(self, path: str) -> ArtifactFile:
        """Return the parsed file. Raises ``OSError`` if it cannot be opened."""
        known = self._files.get(path)
        if known is None or known.version != file_version(path):
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
        with open_regular(path) as file:
            version = version_of(os.fstat(file.fileno()))
            content = file.read()
        artifact = ArtifactFile(
            version, _json_object(content), hashlib.sha1(content, usedforsecurity=False).hexdigest()
        )
        with self._lock:
            self._drop(path)
            if version.is_settled and version.size <= self._max_bytes:
                self._keep(path, artifact)
        return artifact

    def _keep(self, path: str, artifact: ArtifactFile) -> None:
        self._files[path] = artifact
        self._bytes += artifact.version.size
        while self._bytes > self._max_bytes:
            self._drop(next(iter(self._files)))

    def _drop(self, path: str) -> None:
        dropped = self._files.pop(path, None)
        if dropped is not None:
            self._bytes -= dropped.version.size


def _json_object(content: bytes) -> dict[str, Any] | None:
    try:
        value = parse_json(content)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


ARTIFACTS = ArtifactCache()
