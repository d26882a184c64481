"""Accepted outputs and failed attempts as files, one per cache id and attempt: the truth about what is done."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import time
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from llmbatch_assets.adapters.files import write_atomically, write_json
from llmbatch_assets.domain.canonical import sha1_named
from llmbatch_assets.domain.identity import BatchIdentity
from llmbatch_assets.domain.outcome import AcceptedOutput, FailedAttempt, KeptAnswer
from llmbatch_assets.domain.plan import State
from llmbatch_assets.errors import RunPermanentError

_READ = {"attempt_outer", "model", "generation_id"}

# An output is rarely larger than what the probe asks for.
PROBE_BYTES = 64 * 1024
# So old, a temporary file is nobody's.
LEFTOVER_SEC = 3_600

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FileStore:
    """The output cache of one batch. ``keep_failures`` false: failed attempts leave no file."""

    outputs: Path
    failures: Path
    forced: Path
    keep_failures: bool = True

    def accepted_path(self, cache_id: str) -> Path:
        return self.outputs / f"{cache_id}.json"

    def failure_path(self, cache_id: str, attempt: int) -> Path:
        return self.failures / f"{cache_id}__a{attempt}.json"

    async def save_accepted(self, output: AcceptedOutput) -> None:
        """Keep an accepted output; then, and only then, its item is no longer marked for regeneration."""
        cache_id = output.meta["cache_id"]
        await asyncio.to_thread(write_json, self.accepted_path(cache_id), output.model_dump(mode="json"))
        (self.forced / cache_id).unlink(missing_ok=True)
        self._awaiting_path(cache_id).unlink(missing_ok=True)

    async def save_failure(self, failure: FailedAttempt) -> None:
        """Keep a failed attempt beside the earlier ones. An answer that was rejected no longer waits for its judge."""
        cache_id, number = failure.meta["cache_id"], failure.meta["attempt_outer"]
        if self.keep_failures:
            await self._keep_failure(failure, cache_id, number)
        if failure.failure_class == "answer":
            self._awaiting_path(cache_id).unlink(missing_ok=True)

    async def _keep_failure(self, failure: FailedAttempt, cache_id: str, number: int) -> None:
        await asyncio.to_thread(
            write_json, self.failure_path(cache_id, number), failure.model_dump(mode="json", by_alias=True)
        )
        self._last_numbers[cache_id] = number

    async def save_awaiting(self, answer: KeptAnswer) -> None:
        """Keep an answer that waits for its judge."""
        await asyncio.to_thread(write_json, self._awaiting_path(answer.cache_id), answer)

    def awaiting(self, cache_id: str) -> KeptAnswer | None:
        """The answer that waits for its judge. One that cannot be read is bought again, and told."""
        path = self._awaiting_path(cache_id)
        try:
            return KeptAnswer.model_validate(json.loads(path.read_bytes()))
        except FileNotFoundError:
            return None
        except (ValueError, RecursionError):
            self._quarantine(path, "it cannot be read")
            return None

    def _awaiting_path(self, cache_id: str) -> Path:
        return self.outputs.with_name("awaiting_judge") / f"{cache_id}.json"

    def check_room(self) -> None:
        """Raise ``RunPermanentError`` where an output could not be written, before one is paid for."""
        probe = self.outputs / f".probe-{os.getpid()}"
        try:
            write_atomically(probe, bytes(PROBE_BYTES))
            probe.unlink()
        except OSError as refused:
            raise RunPermanentError(
                "disk", f"{self.outputs} cannot be written to ({refused.strerror}); no call was made"
            ) from None

    def sweep(self) -> None:
        """Remove what writes that were cut short have left. Young ones may be another run's."""
        too_old = time.time() - LEFTOVER_SEC
        for folder in (self.outputs, self.failures):
            with os.scandir(folder) if folder.is_dir() else nullcontext(()) as entries:
                left = [e for e in entries if e.name.startswith(".") and e.name.endswith(".tmp")]
            for entry in left:
                if entry.stat().st_mtime < too_old:
                    Path(entry.path).unlink(missing_ok=True)

    def next_attempt(self, cache_id: str) -> int:
        """The number that follows the last failed attempt, from 1."""
        return self._last_numbers.get(cache_id, 0) + 1

    @cached_property
    def _last_numbers(self) -> dict[str, int]:
        """The number of the last failed attempt by cache id. The folder is listed once, not once per item."""
        last: dict[str, int] = {}
        for name in os.listdir(self.failures) if self.failures.is_dir() else ():  # noqa: PTH208  # names are enough
            cache_id, _, number = name.removesuffix(".json").rpartition("__a")
            if number.isdecimal() and not name.startswith("."):
                last[cache_id] = max(last.get(cache_id, 0), int(number))
        return last

    def accepted(self, cache_id: str) -> AcceptedOutput | None:
        """The accepted output, if there is a whole one. What cannot be it is set aside, and told."""
        path = self.accepted_path(cache_id)
        try:
            output = AcceptedOutput.model_validate(json.loads(path.read_bytes()))
        except FileNotFoundError:
            return None
        except (ValueError, ValidationError, RecursionError) as broken:
            self._quarantine(path, f"it cannot be read: {str(broken).splitlines()[0]}")
            return None
        if not _agrees(output.meta, cache_id):
            self._quarantine(path, "its parts are not those of its name")
            return None
        return output

    def last_failure(self, cache_id: str) -> FailedAttempt | None:
        """The latest failed attempt."""
        number = self.next_attempt(cache_id) - 1
        if not number:
            return None
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
        return (self.forced / cache_id).exists()

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
            "cause": "unreadable_failure",
            "raw_text": None,
            "feedback": None,
            "judge": None,
            "usage": {},
            "latency_sec": 0.0,
        }
    )


def _agrees(meta: dict[str, Any], cache_id: str) -> bool:
    """Whether the meta is one that we wrote for this id."""
    identity = meta.get("identity")
    if meta.get("cache_id") != cache_id or not isinstance(identity, dict) or not _READ.issubset(meta):
        return False
    return sha1_named(**identity) == cache_id


def known_identities(folder: Path) -> list[BatchIdentity]:
    """What was asked by all runs so far."""
    known: list[BatchIdentity] = []
    for path in sorted(folder.glob("identity_*.json")):
        try:
            known.append(BatchIdentity.model_validate(json.loads(path.read_bytes())))
        except (ValueError, RecursionError):
            log.warning("%s cannot be read; outputs of that run are not looked for", path)
    return known


def earlier_identities(folder: Path, identity: BatchIdentity) -> list[BatchIdentity]:
    """What was asked by runs whose outputs differ from those of ``identity`` only in who judged them."""
    return [other for other in known_identities(folder) if other.differs_only_in_judge(identity)]


def keep_provenance(folder: Path, texts: dict[str, Any]) -> None:
    """Keep every prompt and schema under its sha, once."""
    for sha, text in texts.items():
        path = folder / f"{sha}.json"
        if not path.exists():
            write_json(path, text)
