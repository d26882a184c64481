"""The output cache of a batch as it is on disk: the outputs, failures and markers of each cache id."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import orjson

from llmbatch_assets.adapters.files.atomic import read_json
from llmbatch_assets.adapters.files.places import NotAFileError, open_regular
from llmbatch_assets.domain.item_state import (
    CheckedOutput,
    ItemState,
    OutputContract,
    check_output,
    item_state,
    unreadable_failure,
)
from llmbatch_assets.domain.outcome import AcceptedOutput, FailedAttempt
from llmbatch_assets.errors import LlmBatchError

log = logging.getLogger(__name__)


class CacheFolders(NamedTuple):
    """The folders of an output cache."""

    outputs: Path
    failures: Path
    forced: Path
    awaiting_judge: Path


def ignore_broken(path: Path, defect: str) -> None:
    """Leave a broken output where it is."""


@dataclass(frozen=True)
class CacheIndex:
    """One view of an output cache. It lists each folder once and opens files on demand.

    ``contract`` validates edited outputs. ``manifest`` is the manifest of the last run. ``on_broken`` is called with
    the path and the defect of an output that cannot be accepted: runs move the file aside, other commands leave it.
    """

    folders: CacheFolders
    contract: Callable[[], OutputContract] | None = None
    manifest: Path | None = None
    on_broken: Callable[[Path, str], None] = ignore_broken

    # Listings.

    @cached_property
    def accepted(self) -> frozenset[str]:
        """Cache ids that have an output file."""
        return frozenset(name.removesuffix(".json") for name in self._output_names if name.endswith(".json"))

    @cached_property
    def quarantined(self) -> frozenset[str]:
        """Cache ids with an output that was set aside because it was broken."""
        return frozenset(name.partition(".")[0] for name in self._output_names if ".json.broken" in name)

    @cached_property
    def forced(self) -> frozenset[str]:
        """Cache ids that are marked for regeneration."""
        return frozenset(_names(self.folders.forced))

    @cached_property
    def awaiting(self) -> frozenset[str]:
        """Cache ids with an answer that awaits its judge."""
        return frozenset(_stems(self.folders.awaiting_judge))

    @cached_property
    def failed(self) -> dict[str, int]:
        """The number of the last failed attempt by cache id."""
        last: dict[str, int] = {}
        for stem in _stems(self.folders.failures):
            cache_id, _, number = stem.rpartition("__a")
            if number.isdecimal():
                last[cache_id] = max(last.get(cache_id, 0), int(number))
        return last

    @cached_property
    def once_accepted(self) -> frozenset[str]:
        """Cache ids that had an output when the last run ended."""
        if self.manifest is None:
            return frozenset()
        try:
            names = read_json(self.manifest)["outputs"]["success_files"]
        except (LlmBatchError, LookupError, TypeError):
            return frozenset()
        return frozenset(str(name).removesuffix(".json") for name in names)

    @cached_property
    def _output_names(self) -> list[str]:
        return _names(self.folders.outputs)

    # Single items.

    def state(self, cache_id: str, *, trusting: bool = False) -> ItemState:
        """Return the item's state. ``trusting`` takes every output file for an accepted output, unopened."""
        if trusting and cache_id in self.accepted:
            return "accepted"
        output = None if trusting else self.output(cache_id)
        return item_state(output, None if output else self.last_failure(cache_id))

    def output(self, cache_id: str) -> AcceptedOutput | None:
        """Return the accepted output, even if it was written after the folder was listed."""
        checked = self._checked(cache_id)
        if checked.defect:
            self.on_broken(self.output_path(cache_id), checked.defect)
        return checked.output

    def _checked(self, cache_id: str) -> CheckedOutput:
        try:
            file = ARTIFACTS.read(self._output(cache_id))
        except FileNotFoundError:
            is_link = cache_id in self.accepted and os.path.islink(self._output(cache_id))  # noqa: PTH114  # as above
            return CheckedOutput(defect="it is a broken link") if is_link else CheckedOutput()
        except NotAFileError as other:
            return CheckedOutput(defect=f"it {other.strerror}")
        if file.checked is None or file.checked.edited:
            file.checked = check_output(file.content, cache_id, self.contract)
            if file.checked.output and not file.checked.edited:
                # Keeping the other values twice would take half as much memory again.
                file.content = {"meta": file.checked.output.meta}
        return file.checked

    def output_sha(self, cache_id: str) -> str:
        """Return the SHA-1 of the accepted output's file; "" if there is no accepted output."""
        return self._output_file_sha(cache_id) if self.output(cache_id) else ""

    def _output_file_sha(self, cache_id: str) -> str:
        return ARTIFACTS.read(self._output(cache_id)).sha

    def meta(self, cache_id: str) -> dict[str, Any]:
        """Return the ``meta`` of the output or else of the last failed attempt; empty if it cannot be read."""
        if cache_id not in self.accepted:
            return _mapping(self.failure(cache_id).get("meta"))
        return _mapping(_content(self._output(cache_id)).get("meta"))

    def failure(self, cache_id: str) -> dict[str, Any]:
        """Return the content of the last failed attempt's file; empty if it cannot be read."""
        return _content(self._failure(cache_id, self.failed[cache_id]))

    def last_failure(self, cache_id: str) -> FailedAttempt | None:
        """Return the last failed attempt."""
        number = self.failed.get(cache_id)
        return self._attempt(cache_id, number) if number else None

    def failed_attempts(self, cache_id: str) -> Iterator[FailedAttempt]:
        """Yield the failed attempts that have a file, in order."""
        for number in range(1, self.failed.get(cache_id, 0) + 1):
            if os.path.exists(self._failure(cache_id, number)):  # noqa: PTH110  # no Path is made for it
                yield self._attempt(cache_id, number)

    def _attempt(self, cache_id: str, number: int) -> FailedAttempt:
        try:
            file = ARTIFACTS.read(self._failure(cache_id, number))
        except OSError:
            return unreadable_failure(cache_id, number)
        if file.failure is None:
            file.failure = self._parsed_failure(file, cache_id, number)
        return file.failure

    def _parsed_failure(self, file: ArtifactFile, cache_id: str, number: int) -> FailedAttempt:
        try:
            failure = FailedAttempt.model_validate(file.content)
            if (failure.meta.get("cache_id"), failure.meta.get("attempt_outer")) == (cache_id, number):
                return failure
        except (ValueError, RecursionError):
            pass
        log.warning("%s cannot be read; its item counts as failed", self.failure_path(cache_id, number))
        return unreadable_failure(cache_id, number)

    def output_path(self, cache_id: str) -> Path:
        return self.folders.outputs / f"{cache_id}.json"

    def failure_path(self, cache_id: str, attempt: int) -> Path:
        return self.folders.failures / f"{cache_id}__a{attempt}.json"

    # As strings: building a Path for each of tens of thousands of files is slow.

    def _output(self, cache_id: str) -> str:
        return f"{self.folders.outputs}/{cache_id}.json"

    def _failure(self, cache_id: str, number: int) -> str:
        return f"{self.folders.failures}/{cache_id}__a{number}.json"


def read_meta(path: Path) -> dict[str, Any]:
    """Return the ``meta`` of an output or failure file; empty if it cannot be read."""
    return _mapping(_content(str(path)).get("meta"))


def _content(path: str) -> dict[str, Any]:
    try:
        return _mapping(ARTIFACTS.read(path).content)
    except OSError:
        return {}


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _names(folder: Path) -> list[str]:
    # Names beginning with a dot are files being written. Listing names is faster than making paths.
    return [name for name in (os.listdir(folder) if folder.is_dir() else ()) if not name.startswith(".")]  # noqa: PTH208


def _stems(folder: Path) -> Iterator[str]:
    return (name.removesuffix(".json") for name in _names(folder) if name.endswith(".json"))


MAX_CACHED_BYTES = 32 * 1024 * 1024
# Timestamps advance in ticks of a few milliseconds. A file this young could change again within the same tick.
_MIN_AGE_NS = 20_000_000

_LONG_NUMBER = re.compile(rb"[^\"\w]\d{19}")

_Signature = tuple[int, int, int]


@dataclass(slots=True)
class ArtifactFile:
    """The JSON object in one artifact file, None if there is none. Shared by all readers: never modify it.

    ``sha`` is the SHA-1 of its bytes. ``checked`` and ``failure`` cache what readers compute from it.
    """

    signature: _Signature
    content: dict[str, Any] | None
    sha: str
    checked: CheckedOutput | None = None
    failure: FailedAttempt | None = None


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
        with open_regular(path) as file:
            signature = _signature(os.fstat(file.fileno()))
            content = file.read()
        artifact = ArtifactFile(
            signature, _json_object(content), hashlib.sha1(content, usedforsecurity=False).hexdigest()
        )
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
