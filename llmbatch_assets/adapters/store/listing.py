"""What lies in the output cache, by the names of its files alone: fast for any number of items."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmbatch_assets.adapters.store.outputs import FileStore
from llmbatch_assets.domain.plan.selection import State


@dataclass(frozen=True)
class OutputListing:
    """The cache ids that have files, and of failed attempts the number of the last one."""

    store: FileStore
    accepted: frozenset[str]
    attempts: dict[str, int]
    awaiting: frozenset[str]
    forced: frozenset[str]

    def last_failure(self, cache_id: str) -> dict[str, Any]:
        """The content of the last failed attempt's file; empty where it cannot be read."""
        return read_mapping(self.store.failure_path(cache_id, self.attempts[cache_id]))

    def state(self, cache_id: str) -> State:
        """How the question of this id stands. Outputs are not opened: a run does so, and sets a broken one aside."""
        if cache_id in self.accepted:
            return "accepted"
        if cache_id not in self.attempts:
            return "missing"
        return "failed_permanently" if self.last_failure(cache_id).get("class") == "item_permanent" else "failed"


def list_outputs(store: FileStore) -> OutputListing:
    """The listing of a cache as it is now."""
    attempts: dict[str, int] = {}
    for stem in _stems(store.failures):
        cache_id, _, number = stem.rpartition("__a")
        if number.isdecimal():
            attempts[cache_id] = max(attempts.get(cache_id, 0), int(number))
    return OutputListing(
        store,
        frozenset(_stems(store.outputs)),
        attempts,
        frozenset(_stems(store.awaiting_judge)),
        frozenset(_names(store.forced)),
    )


def _stems(folder: Path) -> list[str]:
    return [name.removesuffix(".json") for name in _names(folder) if name.endswith(".json")]


def _names(folder: Path) -> list[str]:
    # What begins with a dot is being written.
    return [name for name in os.listdir(folder) if not name.startswith(".")] if folder.is_dir() else []  # noqa: PTH208  # names are enough


def read_mapping(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty where there is none that can be read."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
