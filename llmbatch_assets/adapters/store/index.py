"""The output cache of a batch as it is on disk: the outputs, failures and markers of each cache id."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from llmbatch_assets.adapters.files.atomic import read_json
from llmbatch_assets.adapters.store.artifact_files import ARTIFACTS, ArtifactFile
from llmbatch_assets.domain.item_state import (
    CheckedOutput,
    OutputContract,
    check_output,
    item_state,
    unreadable_failure,
)
from llmbatch_assets.domain.outcome import AcceptedOutput, FailedAttempt
from llmbatch_assets.domain.plan.selection import State
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
    the path and the defect of an output that cannot be accepted: runs move it out of the way, all else only looks.
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

    def state(self, cache_id: str, *, trusting: bool = False) -> State:
        """Return the item's state. ``trusting`` takes every output file for an accepted output, unopened."""
        if trusting and cache_id in self.accepted:
            return "accepted"
        output = None if trusting else self.output(cache_id)
        return item_state(output, None if output else self.last_failure(cache_id))

    def output(self, cache_id: str) -> AcceptedOutput | None:
        """Return the accepted output, even if it was written after the folder was listed."""
        output, defect = self._checked(cache_id)
        if defect:
            self.on_broken(self.output_path(cache_id), defect)
        return output

    def _checked(self, cache_id: str) -> CheckedOutput:
        try:
            file = ARTIFACTS.read(f"{self._outputs}/{cache_id}.json")
        except FileNotFoundError:
            return CheckedOutput()
        if file.checked is None:
            file.checked = check_output(file.content, cache_id, self.contract)
            if file.checked.output:
                # Keeping the other values twice would take half as much memory again.
                file.content = {"meta": file.checked.output.meta}
        return file.checked

    def meta(self, cache_id: str) -> dict[str, Any]:
        """Return the ``meta`` of the output or else of the last failed attempt; empty if it cannot be read."""
        if cache_id not in self.accepted:
            return _mapping(self.failure(cache_id).get("meta"))
        return _mapping(_content(f"{self._outputs}/{cache_id}.json").get("meta"))

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

    @cached_property
    def _outputs(self) -> str:
        # Building a Path for each of tens of thousands of files is slow.
        return str(self.folders.outputs)

    @cached_property
    def _failures(self) -> str:
        return str(self.folders.failures)

    def _failure(self, cache_id: str, number: int) -> str:
        return f"{self._failures}/{cache_id}__a{number}.json"


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
