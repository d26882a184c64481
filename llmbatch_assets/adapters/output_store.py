"""Accepted outputs and failed attempts as files, one per cache id and attempt: the truth about what is done."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from llmbatch_assets.adapters.files import write_json
from llmbatch_assets.domain.outcome import AcceptedOutput, FailedAttempt
from llmbatch_assets.domain.plan import State

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

    async def save_failure(self, failure: FailedAttempt) -> None:
        """Keep a failed attempt beside the earlier ones."""
        if self.keep_failures:
            path = self.failure_path(failure.meta["cache_id"], failure.meta["attempt_outer"])
            await asyncio.to_thread(write_json, path, failure.model_dump(mode="json", by_alias=True))

    def next_attempt(self, cache_id: str) -> int:
        """The number that follows the last failed attempt, from 1."""
        number = 1
        while self.failure_path(cache_id, number).exists():
            number += 1
        return number

    def accepted(self, cache_id: str) -> AcceptedOutput | None:
        """The accepted output, if there is a whole one. What cannot be it is set aside, and told."""
        path = self.accepted_path(cache_id)
        try:
            output = AcceptedOutput.model_validate(json.loads(path.read_bytes()))
        except FileNotFoundError:
            return None
        except (ValueError, ValidationError) as broken:
            self._quarantine(path, f"it cannot be read: {str(broken).splitlines()[0]}")
            return None
        if output.meta.get("cache_id") != cache_id:
            self._quarantine(path, "it says that it belongs to another cache id")
            return None
        return output

    def last_failure(self, cache_id: str) -> FailedAttempt | None:
        """The latest failed attempt."""
        number = self.next_attempt(cache_id) - 1
        if not number:
            return None
        try:
            return FailedAttempt.model_validate(json.loads(self.failure_path(cache_id, number).read_bytes()))
        except (ValueError, ValidationError):
            log.warning("%s cannot be read; its item counts as failed", self.failure_path(cache_id, number))
            return None

    def state(self, cache_id: str) -> State:
        """How the question of this id stands."""
        if self.accepted(cache_id) is not None:
            return "accepted"
        if not self.failure_path(cache_id, 1).exists():
            return "missing"
        failure = self.last_failure(cache_id)
        return "failed_permanently" if failure is not None and failure.item_permanent else "failed"

    def force(self, cache_ids: Iterable[str]) -> None:
        """Mark outputs for regeneration. The marks outlive the run, the old outputs stay until replaced."""
        self.forced.mkdir(parents=True, exist_ok=True)
        for cache_id in cache_ids:
            (self.forced / cache_id).touch()

    def is_forced(self, cache_id: str) -> bool:
        return (self.forced / cache_id).exists()

    def _quarantine(self, path: Path, why: str) -> None:
        aside = path.with_suffix(".json.broken")
        path.replace(aside)
        log.warning("%s was set aside as %s because %s; its item will run again", path, aside.name, why)


def keep_provenance(folder: Path, texts: dict[str, Any]) -> None:
    """Keep every prompt and schema under its sha, once."""
    for sha, text in texts.items():
        path = folder / f"{sha}.json"
        if not path.exists():
            write_json(path, text)
