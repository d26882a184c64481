"""Which artifacts belong to which item under other identities, and to which items that are no more."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from llmbatch_assets.adapters.store.index import CacheIndex
from llmbatch_assets.adapters.store.provenance import IdentityUse, kept_identities, kept_text, read_uses
from llmbatch_assets.domain.items.identity import BatchIdentity, identity_of
from llmbatch_assets.domain.items.work import WorkItem
from llmbatch_assets.domain.plan.row_matching import Former
from llmbatch_assets.stages.artifacts import cache_ids
from llmbatch_assets.stages.project import Batch

# What of the configuration turns rows into items. The rest of the blocks leaves their ids as they are.
_MAKES_ITEMS: dict[str, tuple[str, ...]] = {
    "input": ("null_tokens", "collapse_whitespace"),
    "grouping": ("enabled", "column", "mode", "max_rows_per_group"),
    "context": (),
    "work_items": ("duplicates",),
}


class Asked(NamedTuple):
    """An item's artifact under another identity; ``is_output`` false: a failed attempt."""

    identity: BatchIdentity
    cache_id: str
    is_output: bool


@dataclass(frozen=True)
class EarlierOutputs:
    """The artifacts of a batch that are not those of its items under its identity; ``current`` are these, by work id."""

    batch: Batch
    survey: CacheIndex
    items: Sequence[WorkItem]
    current: Mapping[str, str]

    @property
    def _folder(self) -> Path:
        return self.batch.path(self.batch.layout.provenance)

    @cached_property
    def uses(self) -> list[IdentityUse]:
        return read_uses(self._folder)

    @cached_property
    def identities(self) -> list[BatchIdentity]:
        """What else was asked of these items and left an artifact: the latest first, by its last use."""
        last = {use.identity: place for place, use in enumerate(self.uses)}
        own = self.batch.source.identity
        others = {one.sha: one for one in kept_identities(self._folder) if one != own}
        return sorted(others.values(), key=lambda one: (-last.get(one.sha, -1), one.sha))

    def last_use(self, identity: BatchIdentity) -> IdentityUse | None:
        """When runs last began to ask this, and how their items were made."""
        return next((use for use in reversed(self.uses) if use.identity == identity.sha), None)

    @cached_property
    def _names(self) -> set[str]:
        return {*self.survey.accepted, *self.survey.failed} - set(self.current.values())

    @cached_property
    def _told(self) -> tuple[dict[str, list[Asked]], set[str]]:
        """The artifacts of each item by work id, the latest identity's first; and the ids that are nobody's."""
        left, found = set(self._names), dict[str, list[Asked]]()
        for identity in self.identities:
            if not left:
                break
            for item, cache_id in zip(self.items, cache_ids(identity, self.current), strict=True):
                if cache_id in left:
                    left.discard(cache_id)
                    asked = Asked(identity, cache_id, cache_id in self.survey.accepted)
                    found.setdefault(item.work_id, []).append(asked)
        return found, left

    @property
    def by_item(self) -> dict[str, list[Asked]]:
        """Artifacts of the items under identities that are kept, by work id."""
        return self._told[0]

    @cached_property
    def _others(self) -> list[Former]:
        read = (self._former(self.survey.meta(cache_id)) for cache_id in sorted(self._told[1]))
        return [one for one in read if one is not None]

    @property
    def former(self) -> list[Former]:
        """Artifacts of items that are no more."""
        return [one for one in self._others if one.work_id not in self.current]

    @cached_property
    def strays(self) -> dict[str, Former]:
        """The latest artifact of each item that has one under an identity which is not kept."""
        ordered = sorted(self._others, key=lambda one: one.created_at_utc)
        return {one.work_id: one for one in ordered if one.work_id in self.current}

    def standing(self) -> list[Former]:
        """The latest artifact of each item that has one."""
        ids = {work_id: asked[0].cache_id for work_id, asked in self.by_item.items()}
        ids |= {work_id: cache_id for work_id, cache_id in self.current.items() if cache_id in self.survey.accepted}
        read = (self._former(self.survey.meta(cache_id)) for cache_id in ids.values())
        return [one for one in read if one is not None]

    def _former(self, meta: dict[str, Any]) -> Former | None:
        try:
            own = {name: meta[name] for name in Former._fields[:6]}
            identity = self._identity_of(meta["identity"])
        except (LookupError, TypeError, ValueError):
            return None
        return Former(**own, identity=identity, other_settings=self._made_otherwise(meta["created_at_utc"]))

    @cached_property
    def _identities(self) -> dict[bytes, BatchIdentity]:
        return {}

    def _identity_of(self, parts: dict[str, Any]) -> BatchIdentity:
        key = orjson.dumps({**parts, "work_id": ""}, option=orjson.OPT_SORT_KEYS)
        if key not in self._identities:
            self._identities[key] = identity_of(parts)
        return self._identities[key]

    def _made_otherwise(self, at_utc: str) -> bool:
        """Whether rows were made into items in another way at that time; not, where that is not known."""
        place = bisect_right(self._times, at_utc)
        then = self.item_settings(self.uses[place - 1]) if place else None
        return then is not None and then != self.item_settings(None)

    @cached_property
    def _times(self) -> list[str]:
        return [use.at_utc for use in self.uses]

    @cached_property
    def _settings(self) -> dict[str, dict[str, Any] | None]:
        return {}

    def item_settings(self, use: IdentityUse | None) -> dict[str, Any] | None:
        """What turned rows into items at the time of a use, None where that is not kept; without a use: now."""
        sha = use.items if use else ""
        if sha not in self._settings:
            now = self.batch.item_settings()
            kept = kept_text(self._folder, f"items_{sha}") if use else now
            self._settings[sha] = _making_items(kept) if isinstance(kept, dict) else None
        return self._settings[sha]

    def text(self, sha: str | None) -> Any:
        """A prompt or schema that is kept, None where it is not."""
        return kept_text(self._folder, sha) if sha else None


def _making_items(parameters: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {
        block: {name: value for name, value in parameters.get(block, {}).items() if not keys or name in keys}
        for block, keys in _MAKES_ITEMS.items()
    }
