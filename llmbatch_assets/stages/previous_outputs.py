"""The artifacts of a batch under other settings or for other items: what a plan compares with."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from llmbatch_assets.adapters.store.index import CacheIndex
from llmbatch_assets.adapters.store.run_records import IdentityUse, kept_identities, kept_text, read_uses
from llmbatch_assets.domain.items.identity import BatchIdentity, identity_of
from llmbatch_assets.domain.items.work import WorkItem
from llmbatch_assets.domain.plan.rerun_reasons import PreviousItem
from llmbatch_assets.stages.artifacts import require_schema
from llmbatch_assets.stages.project import Batch

# The configuration that turns rows into items: all keys of a block, or those named. Others leave item ids as they are.
_ITEM_SETTINGS: dict[str, tuple[str, ...]] = {
    "input": ("null_tokens", "collapse_whitespace"),
    "grouping": ("enabled", "column", "mode", "max_rows_per_group"),
    "context": (),
    "work_items": ("duplicates",),
}


class PreviousArtifact(NamedTuple):
    """An item's artifact under another identity: an output, or else a failed attempt."""

    identity: BatchIdentity
    cache_id: str
    is_output: bool


@dataclass(frozen=True)
class PreviousOutputs:
    """All artifacts that do not belong to the current items under the current identity."""

    batch: Batch
    items: Sequence[WorkItem]
    cache: CacheIndex
    _identity_by_parts: dict[str, BatchIdentity] = field(default_factory=dict, init=False)
    _settings_by_sha: dict[str, dict[str, Any] | None] = field(default_factory=dict, init=False)

    @cached_property
    def current(self) -> dict[str, str]:
        """The current cache id of each item, by work id. Raises ``MissingArtifactError`` if there is no schema."""
        require_schema(self.batch)
        identity = self.batch.source.identity
        return {item.work_id: identity.cache_id(item.work_id) for item in self.items}

    @cached_property
    def uses(self) -> list[IdentityUse]:
        return read_uses(self.batch.path(self.batch.layout.provenance))

    def last_use(self, identity: BatchIdentity) -> IdentityUse | None:
        return next((use for use in reversed(self.uses) if use.identity == identity.sha), None)

    @cached_property
    def _last_uses(self) -> dict[str, int]:
        return {use.identity: place for place, use in enumerate(self.uses)}

    @cached_property
    def _identities(self) -> list[BatchIdentity]:
        """Other identities in provenance, the last used first."""
        own, kept = self.batch.source.identity, kept_identities(self.batch.path(self.batch.layout.provenance))
        others = {one.sha: one for one in kept if one != own}
        return sorted(others.values(), key=lambda one: (-self._last_uses.get(one.sha, -1), one.sha))

    @cached_property
    def _sorted(self) -> tuple[dict[str, list[PreviousArtifact]], list[PreviousItem]]:
        found: dict[str, list[PreviousArtifact]] = defaultdict(list)
        left = {*self.cache.accepted, *self.cache.failed} - set(self.current.values())
        for identity in self._identities if left else ():
            for work_id in self.current:
                if (cache_id := identity.cache_id(work_id)) in left:
                    left.discard(cache_id)
                    found[work_id].append(PreviousArtifact(identity, cache_id, cache_id in self.cache.accepted))
        read = [(cache_id, one) for cache_id in sorted(left) if (one := self._previous_item(cache_id))]
        for cache_id, one in sorted(read, key=lambda pair: pair[1].created_at_utc, reverse=True):
            if one.work_id in self.current:
                found[one.work_id].append(PreviousArtifact(one.identity, cache_id, cache_id in self.cache.accepted))
        return dict(found), [one for _, one in read if one.work_id not in self.current]

    @property
    def by_item(self) -> dict[str, list[PreviousArtifact]]:
        """Artifacts of the current items, by work id: the last used identity first, those not in provenance last."""
        return self._sorted[0]

    @property
    def gone_items(self) -> list[PreviousItem]:
        """Artifacts whose item no longer exists."""
        return self._sorted[1]

    def kept_items(self) -> list[PreviousItem]:
        """The latest artifact of each current item that has one."""
        ids = {work_id: several[0].cache_id for work_id, several in self.by_item.items()}
        ids |= {work_id: cache_id for work_id, cache_id in self.current.items() if cache_id in self.cache.accepted}
        return [one for one in map(self._previous_item, ids.values()) if one is not None]

    def _previous_item(self, cache_id: str) -> PreviousItem | None:
        meta = self.cache.meta(cache_id)
        try:
            own = {name: meta[name] for name in PreviousItem._fields[:6]}
            identity = self._identity_of(meta["identity"])
        except (LookupError, TypeError, ValueError):
            return None
        other_settings = self._had_other_settings(meta["created_at_utc"])
        last_use = self._last_uses.get(identity.sha, -1)
        return PreviousItem(**own, identity=identity, other_settings=other_settings, last_use=last_use)

    def is_latest(self, gone: PreviousItem, work_id: str) -> bool:
        """Whether an item's own artifacts, if there are any, are older than that of the item that it replaces."""
        own = self.by_item.get(work_id)
        if not own or (last_use := self._last_uses.get(own[0].identity.sha, -1)) < gone.last_use:
            return True
        # Reads a file, so only on a tie.
        return (
            last_use == gone.last_use and str(self.cache.meta(own[0].cache_id)["created_at_utc"]) < gone.created_at_utc
        )

    def _identity_of(self, parts: dict[str, Any]) -> BatchIdentity:
        key = repr({**parts, "work_id": ""})
        if key not in self._identity_by_parts:
            self._identity_by_parts[key] = identity_of(parts)
        return self._identity_by_parts[key]

    def _had_other_settings(self, at_utc: str) -> bool:
        """Return whether rows were made into items in another way at that time. Unknown counts as no."""
        place = bisect_right(self.uses, at_utc, key=lambda use: use.at_utc)
        then = self.item_settings(self.uses[place - 1]) if place else None
        return then is not None and then != self.item_settings(None)

    def item_settings(self, use: IdentityUse | None) -> dict[str, Any] | None:
        """The settings that turn rows into items, at the time of ``use`` or now; None if they are not known."""
        sha = use.items if use else ""
        if sha not in self._settings_by_sha:
            kept = self.text(f"items_{sha}") if use else self.batch.item_settings()
            self._settings_by_sha[sha] = _item_settings(kept) if isinstance(kept, dict) else None
        return self._settings_by_sha[sha]

    def text(self, sha: str | None) -> Any:
        """A prompt, schema or other text that provenance keeps; None if it does not."""
        return kept_text(self.batch.path(self.batch.layout.provenance), sha) if sha else None


def _item_settings(parameters: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {
        block: {name: value for name, value in parameters.get(block, {}).items() if not keys or name in keys}
        for block, keys in _ITEM_SETTINGS.items()
    }
