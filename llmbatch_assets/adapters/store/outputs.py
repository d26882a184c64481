"""Writes accepted outputs and failed attempts, one file per cache id and attempt. These files are the record of progress."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from llmbatch_assets.adapters.files.atomic import json_bytes, write_atomically
from llmbatch_assets.adapters.files.durable import FileWrite
from llmbatch_assets.adapters.files.group_commit import GroupCommit
from llmbatch_assets.adapters.files.places import NotAFileError, open_regular, set_aside
from llmbatch_assets.adapters.store.index import CacheIndex
from llmbatch_assets.domain.item_state import parsed_sha
from llmbatch_assets.domain.outcome import AcceptedOutput, FailedAttempt, UnjudgedAnswer
from llmbatch_assets.errors import RunPermanentError, StopCause

# Outputs are rarely larger than this.
PROBE_BYTES = 64 * 1024

log = logging.getLogger(__name__)


def quarantine(path: Path, defect: str) -> None:
    """Rename a broken file, or anything else in its place, so that its item runs again, and log it."""
    aside = Path(set_aside(path))
    log.warning("%s was set aside as %s because %s; its item will run again", path, aside.name, defect)


@dataclass(frozen=True)
class FileStore:
    """The output cache of one batch, for writing. With ``keep_failures`` false, failed attempts leave no file."""

    index: CacheIndex
    keep_failures: bool = True
    commit: GroupCommit = field(default_factory=GroupCommit, compare=False)

    async def save_accepted(self, output: AcceptedOutput) -> None:
        """Write an accepted output, then remove the item's --force marker and the answer that awaited its judge."""
        cache_id = output.meta["cache_id"]
        content = json_bytes(output.model_dump(mode="json") | {"parsed_sha": parsed_sha(output.parsed)})
        folders = self.index.folders
        obsolete = (f"{folders.forced}/{cache_id}", f"{folders.awaiting_judge}/{cache_id}.json")
        await self.commit.write(FileWrite(f"{folders.outputs}/{cache_id}.json", content, obsolete))
        self.index.learn_saved(output, content)

    async def save_failure(self, failure: FailedAttempt) -> None:
        """Write a failed attempt next to the earlier ones. A rejected answer no longer awaits its judge."""
        cache_id = failure.meta["cache_id"]
        if self.keep_failures:
            number = failure.meta["attempt_outer"]
            content = json_bytes(failure.model_dump(mode="json", by_alias=True))
            await self.commit.write(FileWrite(str(self.index.failure_path(cache_id, number)), content))
            self.index.failed[cache_id] = number
        if failure.failure_class == "answer":
            self._awaiting_path(cache_id).unlink(missing_ok=True)

    def next_attempt(self, cache_id: str) -> int:
        return self.index.failed.get(cache_id, 0) + 1

    async def save_awaiting(self, answer: UnjudgedAnswer) -> None:
        await self.commit.write(FileWrite(str(self._awaiting_path(answer.cache_id)), json_bytes(answer)))

    def awaiting(self, cache_id: str) -> UnjudgedAnswer | None:
        """Return the answer that awaits its judge. An unreadable one is set aside and will be generated again."""
        try:
            # Runs for every item; building a Path is slow.
            with open_regular(f"{self.index.folders.awaiting_judge}/{cache_id}.json") as file:
                answer = UnjudgedAnswer.model_validate(json.loads(file.read()))
        except FileNotFoundError:
            return None
        except (ValueError, RecursionError, NotAFileError):
            quarantine(self._awaiting_path(cache_id), "it cannot be read")
            return None
        if answer.cache_id != cache_id:
            quarantine(self._awaiting_path(cache_id), "it belongs to another item")
            return None
        return answer

    def _awaiting_path(self, cache_id: str) -> Path:
        return self.index.folders.awaiting_judge / f"{cache_id}.json"

    def check_room(self) -> None:
        """Raise ``RunPermanentError`` if an output could not be written, before any call is paid for."""
        outputs, failures, _, awaiting_judge = self.index.folders
        for folder in {outputs, *map(_nearest_existing, (failures, awaiting_judge))}:
            probe = folder / f".probe-{os.getpid()}"
            try:
                write_atomically(probe, bytes(PROBE_BYTES))
                probe.unlink()
            except OSError as refused:
                raise RunPermanentError(
                    StopCause.DISK, f"{folder} cannot be written to ({refused.strerror}); no call was made"
                ) from None

    def force(self, cache_ids: Iterable[str]) -> None:
        """Mark items for regeneration. Markers outlive the run; existing outputs stay until they are replaced."""
        forced = self.index.folders.forced
        forced.mkdir(parents=True, exist_ok=True)
        for cache_id in cache_ids:
            (forced / cache_id).touch()
            # --force asks for a new answer, not for the verdict on an old one.
            self._awaiting_path(cache_id).unlink(missing_ok=True)

    def is_forced(self, cache_id: str) -> bool:
        """Return whether the item is marked for regeneration at this moment."""
        return os.path.exists(f"{self.index.folders.forced}/{cache_id}")


def _nearest_existing(path: Path) -> Path:
    """Return the path itself or the folder in which it would be created."""
    return next(one for one in (path, *path.parents) if one.exists())
