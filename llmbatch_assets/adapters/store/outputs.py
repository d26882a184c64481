"""Accepted outputs and failed attempts as files, one per cache id and attempt: the truth about what is done."""

from __future__ import annotations

import itertools
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from llmbatch_assets.adapters.files.atomic import json_bytes, write_atomically
from llmbatch_assets.adapters.files.durable import FileWrite
from llmbatch_assets.adapters.files.group_commit import GroupCommit
from llmbatch_assets.domain.canonical import canonical_json, sha1_text
from llmbatch_assets.domain.outcome import AcceptedOutput, FailedAttempt, UnjudgedAnswer
from llmbatch_assets.domain.plan.selection import State
from llmbatch_assets.errors import AnswerError, FailureCause, RunPermanentError, StopCause

_READ = {"attempt_outer", "model", "generation_id"}

# An output is rarely larger than what the probe asks for.
PROBE_BYTES = 64 * 1024

log = logging.getLogger(__name__)


def _anything(_parsed: dict[str, Any]) -> None:
    """The check of a store that knows no contract."""


@dataclass(frozen=True)
class FileStore:
    """The output cache of one batch. ``keep_failures`` false: failed attempts leave no file.

    ``check`` raises ``AnswerError`` for an edited output that no longer is what was asked for.
    """

    outputs: Path
    failures: Path
    forced: Path
    keep_failures: bool = True
    check: Callable[[dict[str, Any]], object] = _anything
    commit: GroupCommit = field(default_factory=GroupCommit, compare=False)

    @cached_property
    def awaiting_judge(self) -> Path:
        return self.outputs.with_name("awaiting_judge")

    def accepted_path(self, cache_id: str) -> Path:
        return self.outputs / f"{cache_id}.json"

    def failure_path(self, cache_id: str, attempt: int) -> Path:
        return self.failures / f"{cache_id}__a{attempt}.json"

    async def save_accepted(self, output: AcceptedOutput) -> None:
        """Keep an accepted output; then, and only then, its item is no longer marked for regeneration."""
        cache_id = output.meta["cache_id"]
        content = output.model_dump(mode="json") | {"parsed_sha": _sha(output.parsed)}
        obsolete = (f"{self.forced}/{cache_id}", f"{self.awaiting_judge}/{cache_id}.json")
        await self.commit.write(FileWrite(f"{self.outputs}/{cache_id}.json", json_bytes(content), obsolete))

    async def save_failure(self, failure: FailedAttempt) -> None:
        """Keep a failed attempt beside the earlier ones. An answer that was rejected no longer waits for its judge."""
        cache_id, number = failure.meta["cache_id"], failure.meta["attempt_outer"]
        if self.keep_failures:
            await self._keep_failure(failure, cache_id, number)
        if failure.failure_class == "answer":
            self._awaiting_path(cache_id).unlink(missing_ok=True)

    async def _keep_failure(self, failure: FailedAttempt, cache_id: str, number: int) -> None:
        content = json_bytes(failure.model_dump(mode="json", by_alias=True))
        await self.commit.write(FileWrite(str(self.failure_path(cache_id, number)), content))
        self._last_numbers[cache_id] = number

    async def save_awaiting(self, answer: UnjudgedAnswer) -> None:
        """Keep an answer that waits for its judge."""
        await self.commit.write(FileWrite(str(self._awaiting_path(answer.cache_id)), json_bytes(answer)))

    def awaiting(self, cache_id: str) -> UnjudgedAnswer | None:
        """The answer that waits for its judge. One that cannot be read is bought again, and told."""
        try:
            answer = UnjudgedAnswer.model_validate(json.loads(_read(f"{self.awaiting_judge}/{cache_id}.json")))
        except FileNotFoundError:
            return None
        except (ValueError, RecursionError):
            self._quarantine(self._awaiting_path(cache_id), "it cannot be read")
            return None
        if answer.cache_id != cache_id:
            self._quarantine(self._awaiting_path(cache_id), "it is another item's")
            return None
        return answer

    def _awaiting_path(self, cache_id: str) -> Path:
        return self.awaiting_judge / f"{cache_id}.json"

    def check_room(self) -> None:
        """Raise ``RunPermanentError`` where an output could not be written, before one is paid for."""
        others = [folder for folder in (self.failures, self._awaiting_path("").parent) if folder.exists()]
        for folder in (self.outputs, *others):
            probe = folder / f".probe-{os.getpid()}"
            try:
                write_atomically(probe, bytes(PROBE_BYTES))
                probe.unlink()
            except OSError as refused:
                raise RunPermanentError(
                    StopCause.DISK, f"{folder} cannot be written to ({refused.strerror}); no call was made"
                ) from None

    def next_attempt(self, cache_id: str) -> int:
        """The number that follows the last failed attempt, from 1."""
        return self._last_numbers.get(cache_id, 0) + 1

    @cached_property
    def _last_numbers(self) -> dict[str, int]:
        """The number of the last failed attempt by cache id. The folder is listed once, not once per item."""
        last: dict[str, int] = {}
        for name in os.listdir(self.failures) if self.failures.is_dir() else ():
            cache_id, _, number = name.removesuffix(".json").rpartition("__a")
            if number.isdecimal() and not name.startswith("."):
                last[cache_id] = max(last.get(cache_id, 0), int(number))
        return last

    def accepted(self, cache_id: str) -> AcceptedOutput | None:
        """The accepted output, if there is a whole one. What cannot be it is set aside, and told."""
        try:
            content = json.loads(_read(f"{self.outputs}/{cache_id}.json"))
            output = AcceptedOutput.model_validate(content)
            agrees = _agrees(output.meta, cache_id)
            if content.get("parsed_sha", "") not in ("", _sha(output.parsed)):
                # Only then: not every contract takes its own results again, for example a default that it forbids.
                self.check(output.parsed)
        except FileNotFoundError:
            return None
        except AnswerError:
            self._quarantine(self.accepted_path(cache_id), "it was edited, and is no longer what the schema asks for")
            return None
        except (ValueError, ValidationError, RecursionError) as broken:
            self._quarantine(self.accepted_path(cache_id), f"it cannot be read: {str(broken).splitlines()[0]}")
            return None
        if not agrees:
            self._quarantine(self.accepted_path(cache_id), "its parts are not those of its name")
            return None
        return output

    def last_failure(self, cache_id: str) -> FailedAttempt | None:
        """The latest failed attempt."""
        number = self.next_attempt(cache_id) - 1
        return self._failure(cache_id, number) if number else None

    def failed_attempts(self, cache_id: str) -> Iterator[FailedAttempt]:
        """The failed attempts whose files are there, in their order."""
        for number in range(1, self.next_attempt(cache_id)):
            if self.failure_path(cache_id, number).exists():
                yield self._failure(cache_id, number)

    def _failure(self, cache_id: str, number: int) -> FailedAttempt:
        try:
            return FailedAttempt.model_validate(json.loads(self.failure_path(cache_id, number).read_bytes()))
        except (ValueError, ValidationError, RecursionError):
            log.warning("%s cannot be read; its item counts as failed", self.failure_path(cache_id, number))
            return _unreadable(cache_id, number)

    def state(self, cache_id: str) -> State:
        """How the question of this id stands."""
        if self.accepted(cache_id) is not None:
            return "accepted"
        if cache_id not in self._last_numbers:
            return "missing"
        failure = self.last_failure(cache_id)
        return "failed_permanently" if failure is not None and failure.item_permanent else "failed"

    def force(self, cache_ids: Iterable[str]) -> None:
        """Mark outputs for regeneration. The marks outlive the run, the old outputs stay until replaced."""
        self.forced.mkdir(parents=True, exist_ok=True)
        for cache_id in cache_ids:
            (self.forced / cache_id).touch()
            # A new answer is asked for, not a verdict on one that was left over.
            self._awaiting_path(cache_id).unlink(missing_ok=True)

    def is_forced(self, cache_id: str) -> bool:
        return os.path.exists(f"{self.forced}/{cache_id}")

    def _quarantine(self, path: Path, why: str) -> None:
        names = (path.with_suffix(f".json.broken{number or ''}") for number in itertools.count())
        aside = next(name for name in names if not name.exists())
        path.replace(aside)
        log.warning("%s was set aside as %s because %s; its item will run again", path, aside.name, why)


def _unreadable(cache_id: str, attempt: int) -> FailedAttempt:
    return FailedAttempt.model_validate(
        {
            "meta": {"cache_id": cache_id, "attempt_outer": attempt},
            "error": {"type": "ArtifactError", "message": "the file of this failure cannot be read"},
            "class": "transient",
            "cause": FailureCause.UNREADABLE_FAILURE,
            "raw_text": None,
            "feedback": None,
            "judge": None,
            "usage": {},
            "latency_sec": 0.0,
        }
    )


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _sha(parsed: dict[str, Any]) -> str:
    return sha1_text(canonical_json(parsed))


def _agrees(meta: dict[str, Any], cache_id: str) -> bool:
    """Whether the meta is one that we wrote for this id."""
    identity = meta.get("identity")
    if meta.get("cache_id") != cache_id or not isinstance(identity, dict) or not _READ.issubset(meta):
        return False
    if type(meta["attempt_outer"]) is not int:
        return False
    return sha1_text(canonical_json(identity)) == cache_id
