"""Outputs that are in the cache and were made by other settings than those in force."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from llmbatch_assets.adapters.store.outputs import FileStore
from llmbatch_assets.domain.items.identity import BatchIdentity
from llmbatch_assets.domain.items.work import WorkItem


@dataclass(frozen=True)
class OlderOutputs:
    """Finds them by name: what an item's file is called under each of the ``earlier`` settings. None is opened."""

    store: FileStore
    identity: BatchIdentity
    earlier: Sequence[BatchIdentity]

    def find(self, item: WorkItem) -> tuple[str, list[str]] | None:
        """The cache id of such an output and what its settings differ in; of several, those that differ least."""
        for differences, identity in self._by_likeness:
            cache_id = identity.cache_id(item.work_id)
            if f"{cache_id}.json" in self._names:
                return cache_id, differences
        return None

    @cached_property
    def _by_likeness(self) -> list[tuple[list[str], BatchIdentity]]:
        if not self._names:
            return []
        told = [(other.differences(self.identity), other) for other in self.earlier if other != self.identity]
        told.sort(key=lambda pair: (len(pair[0]), pair[1].sha))
        return [(differences, other) for differences, other in told]

    @cached_property
    def _names(self) -> frozenset[str]:
        """The names of all outputs. The folder is listed once: looking for each file takes longer."""
        folder = self.store.outputs
        return frozenset(os.listdir(folder) if folder.is_dir() else ())  # noqa: PTH208  # names are enough
