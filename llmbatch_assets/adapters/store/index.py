"""The output cache of a batch as it is on disk: the outputs, failures and markers of each cache id."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from llmbatch_assets.adapters.files.atomic import read_json
from llmbatch_assets.adapters.files.file_version import file_version
from llmbatch_assets.adapters.files.places import NotAFileError
from llmbatch_assets.adapters.store.artifact_cache import ARTIFACTS, ArtifactFile
from llmbatch_assets.adapters.store.known_outputs import KnownOutput, KnownOutputs
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
    """One view of an output cache. It lists each folder once, and opens only files that it does not know already.

    ``known_file`` is the database of known outputs; ``remember`` adds to it. ``contract`` validates edited outputs.
    ``manifest`` is the manifest of the last run. ``on_broken`` is called with the path and the defect of an output that
    cannot be accepted: runs move the file aside, other commands leave it.
    """

    folders: CacheFolders
    contract: Callable[[], OutputContract] | None = None
    manifest: Path | None = None
    on_broken: Callable[[Path, str], None] = ignore_broken
    known_file: Path | None = None
    _learned: dict[str, KnownOutput] = field(default_factory=dict, init=False, repr=False, compare=False)

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

    def state(self, cache_id: str) -> ItemState:
        """Return the item's state."""
        if self._known(cache_id):
            return "accepted"
        output = self.output(cache_id) if self._is_listed(cache_id) else None
        return item_state(output, None if output else self.last_failure(cache_id))

    def _is_listed(self, cache_id: str) -> bool:
        """Return whether there is, or was when the folder was listed, something in the place of an output."""
        return cache_id in self.accepted or cache_id in self._learned

    def output(self, cache_id: str) -> AcceptedOutput | None:
        """Return the accepted output, even if it was written after the folder was listed."""
        return self.output_and_sha(cache_id)[0]

    def output_and_sha(self, cache_id: str) -> tuple[AcceptedOutput | None, str]:
        """Return the accepted output with the SHA-1 of the file that it was read from; None and "" without one."""
        checked, sha = self._checked(cache_id)
        if checked.defect:
            self.on_broken(self.output_path(cache_id), checked.defect)
        return checked.output, sha if checked.output else ""

    def _checked(self, cache_id: str) -> tuple[CheckedOutput, str]:
        path = self._output(cache_id)
        try:
            os.stat(path)  # noqa: PTH116  # as above; faster than trying to open it
        except FileNotFoundError:
            is_link = cache_id in self.accepted and os.path.islink(path)  # noqa: PTH114  # as above
            return CheckedOutput(defect="it is a broken link") if is_link else CheckedOutput(), ""
        except OSError:
            # Opening it says what is wrong.
            pass
        try:
            file = ARTIFACTS.read(path)
        except FileNotFoundError:
            return CheckedOutput(), ""
        except NotAFileError as other:
            return CheckedOutput(defect=f"it {other.strerror}"), ""
        if file.checked is None or file.checked.edited:
            file.checked = check_output(file.content, cache_id, self.contract)
            if file.checked.output and not file.checked.edited:
                # Keeping the other values twice would take half as much memory again.
                file.content = {"meta": file.checked.output.meta}
        if file.checked.output and not file.checked.edited and file.version.is_settled:
            self._learned[cache_id] = KnownOutput(file.version, file.sha, file.checked.output.judge_score)
        return file.checked, file.sha

    # Known outputs.

    @cached_property
    def _stored(self) -> KnownOutputs | None:
        return KnownOutputs(self.known_file) if self.known_file else None

    def _known(self, cache_id: str) -> KnownOutput | None:
        """Return what is known about an accepted output whose file has not changed since."""
        if not self._is_listed(cache_id):
            return None
        known = self._learned.get(cache_id) or (self._stored.get(cache_id) if self._stored else None)
        return known if known and known.version == file_version(self._output(cache_id)) else None

    def learn_saved(self, output: AcceptedOutput, content: bytes) -> None:
        """Learn about an output that was just saved with this content."""
        cache_id = output.meta["cache_id"]
        if version := file_version(self._output(cache_id)):
            sha = hashlib.sha1(content, usedforsecurity=False).hexdigest()
            self._learned[cache_id] = KnownOutput(version, sha, output.judge_score)

    def remember(self) -> None:
        """Store what was learned about outputs, so that later commands need not read them."""
        stored = self._stored
        if stored is not None and self._learned:
            stored.store({one: known for one, known in self._learned.items() if stored.get(one) != known})

    def output_sha(self, cache_id: str) -> str:
        """Return the SHA-1 of the accepted output's file; "" if there is no accepted output."""
        if known := self._known(cache_id):
            return known.sha
        return self.output_and_sha(cache_id)[1] if self._is_listed(cache_id) else ""

    def judge_score(self, cache_id: str) -> float | None:
        """Return the judge's score of the accepted output; None without one."""
        if known := self._known(cache_id):
            return known.score
        output = self.output(cache_id)
        return output.judge_score if output else None

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

    def failure_shas(self, cache_id: str) -> list[str]:
        """Return the SHA-1 of each failed attempt's file, in order; "" for a file that cannot be read."""
        return [
            self._failure_sha(self._failure(cache_id, number)) for number in range(1, self.failed.get(cache_id, 0) + 1)
        ]

    def _failure_sha(self, path: str) -> str:
        try:
            return ARTIFACTS.read(path).sha
        except OSError:
            return ""

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
