"""The cache as it lies on disk, looked at and left as it is: what there is for which id, without a lock or a repair."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson
from pydantic import ValidationError

from llmbatch_assets.adapters.files.atomic import read_json
from llmbatch_assets.domain.canonical import canonical_json, sha1_named, sha1_text
from llmbatch_assets.domain.items.identity import BatchIdentity
from llmbatch_assets.domain.outcome import AcceptedOutput
from llmbatch_assets.domain.plan.selection import State
from llmbatch_assets.errors import LlmBatchError
from llmbatch_assets.stages.project import Batch

log = logging.getLogger(__name__)

_GENERATE = 4
# Stands for an item's id where the id of everything else is made once.
_BLANK = "\0item\0"


@dataclass(frozen=True)
class CacheSurvey:
    """The outputs, failures and marks of one batch, listed once."""

    batch: Batch

    @cached_property
    def accepted(self) -> frozenset[str]:
        """Cache ids that have an output's file."""
        return frozenset(_stems(self._folder("llm_outputs"), ".json"))

    @cached_property
    def quarantined(self) -> frozenset[str]:
        """Cache ids whose output was set aside because it was broken."""
        names = _names(self._folder("llm_outputs"))
        return frozenset(name.partition(".")[0] for name in names if ".json.broken" in name)

    @cached_property
    def forced(self) -> frozenset[str]:
        """Cache ids that are marked for regeneration."""
        return frozenset(_names(self._folder("forced")))

    @cached_property
    def awaiting(self) -> frozenset[str]:
        """Cache ids with an answer that waits for its verdict."""
        return frozenset(_stems(self._folder("awaiting_judge"), ".json"))

    @cached_property
    def failed(self) -> dict[str, int]:
        """The number of the last failed attempt by cache id."""
        last: dict[str, int] = {}
        for stem in _stems(self._folder("llm_failures"), ".json"):
            cache_id, _, number = stem.rpartition("__a")
            if number.isdecimal():
                last[cache_id] = max(last.get(cache_id, 0), int(number))
        return last

    @cached_property
    def once_accepted(self) -> frozenset[str]:
        """Cache ids that had an output when the last run ended."""
        path = self.batch.path(self.batch.layout.manifest(_GENERATE))
        try:
            named = read_json(path)["outputs"]["success_files"]
        except (LlmBatchError, LookupError, TypeError):
            return frozenset()
        return frozenset(str(name).removesuffix(".json") for name in named)

    def output(self, cache_id: str) -> AcceptedOutput | None:
        """The output, None where there is no whole one of this id."""
        try:
            # Not by orjson, to which long integers are floats.
            output = AcceptedOutput.model_validate(json.loads(_bytes(f"{self._outputs}/{cache_id}.json")))
            agrees = sha1_named(**output.meta["identity"]) == output.meta["cache_id"] == cache_id
        except (OSError, ValueError, ValidationError, LookupError, TypeError, RecursionError):
            return None
        return output if agrees else None

    def meta(self, cache_id: str) -> dict[str, Any]:
        """What an output, or else the last failed attempt, says of itself; empty where it cannot be read."""
        if cache_id not in self.accepted:
            return dict(self.failure(cache_id).get("meta") or {})
        try:
            return dict(_read(f"{self._outputs}/{cache_id}.json")["meta"])
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            return {}

    def failure(self, cache_id: str) -> dict[str, Any]:
        """The last failed attempt as it is written, empty where it cannot be read."""
        try:
            return dict(_read(f"{self._folder('llm_failures')}/{cache_id}__a{self.failed[cache_id]}.json"))
        except (OSError, ValueError, TypeError, RecursionError):
            return {}

    def state(self, cache_id: str, *, trusting: bool = False) -> State:
        """How the question of this id stands. ``trusting`` takes a file for a whole output by its name."""
        if cache_id in self.accepted and (trusting or self.output(cache_id) is not None):
            return "accepted"
        if cache_id not in self.failed:
            return "missing"
        return "failed_permanently" if self.failure(cache_id).get("class") == "item_permanent" else "failed"

    def _folder(self, name: str) -> Path:
        return self.batch.path(getattr(self.batch.layout, name))

    @cached_property
    def _outputs(self) -> str:
        # A path is put together once for each of tens of thousands of files.
        return str(self._folder("llm_outputs"))


def _bytes(path: str) -> bytes:
    with open(path, "rb") as file:  # noqa: PTH123  # no Path is made for it
        return file.read()


def _read(path: str) -> Any:
    content = _bytes(path)
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        # Halves of surrogate pairs, which orjson refuses.
        return json.loads(content)


def cache_ids(identity: BatchIdentity, work_ids: Iterable[str]) -> Iterator[str]:
    """The cache ids of items under one identity, made without encoding all of its parts for each."""
    before, blank, after = canonical_json(identity.parts(_BLANK)).partition(canonical_json(_BLANK))
    assert blank
    return (sha1_text(f'{before}"{work_id}"{after}') for work_id in work_ids)


def _names(folder: Path) -> list[str]:
    # Names are enough, and tens of thousands of paths are slow to make.
    return [name for name in (os.listdir(folder) if folder.is_dir() else ()) if not name.startswith(".")]  # noqa: PTH208


def _stems(folder: Path, suffix: str) -> Iterator[str]:
    return (name.removesuffix(suffix) for name in _names(folder) if name.endswith(suffix))
