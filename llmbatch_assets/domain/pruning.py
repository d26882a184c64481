"""Decides which files of an output cache are still needed, from the identity and the row they were made for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from llmbatch_assets.domain.canonical import canonical_json
from llmbatch_assets.domain.items.identity import BatchIdentity

FileUse = Literal["current", "gone_row", "to_judge", "old"]
_JUDGE_PARTS = {"judge_enabled", "judge_prompt_sha", "judge"}


class CurrentUses:
    """The cache ids that the current settings of all batches sharing a cache refer to.

    ``work_ids`` are those of the existing rows. ``is_accepted`` tells of a cache id whether it has an accepted output.
    """

    def __init__(
        self, identities: Iterable[BatchIdentity], work_ids: frozenset[str], is_accepted: Callable[[str], bool]
    ) -> None:
        self.identities = list(identities)
        self.work_ids = work_ids
        self._is_accepted = is_accepted
        self._settings = {_settings(identity.parts("")) for identity in self.identities}
        self.cache_ids = {identity.cache_id(work_id) for identity in self.identities for work_id in work_ids}

    def use_of(self, cache_id: str, parts: Mapping[str, Any]) -> FileUse:
        """Return the use of a file with this cache id, whose artifact names ``parts`` as its identity.

        ``to_judge``: an output that the current judge has not seen. It will be judged instead of generated again.
        """
        if cache_id in self.cache_ids:
            return "current"
        if _settings(parts) in self._settings:
            return "gone_row"
        return "to_judge" if self._is_to_judge(parts) else "old"

    def _is_to_judge(self, parts: Mapping[str, Any]) -> bool:
        work_id = parts.get("work_id")
        if not isinstance(work_id, str) or work_id not in self.work_ids:
            return False
        generation = {name: value for name, value in parts.items() if name not in _JUDGE_PARTS}
        return any(
            generation == identity.generation_parts(work_id) and not self._is_accepted(identity.cache_id(work_id))
            for identity in self.identities
        )


def _settings(parts: Mapping[str, Any]) -> str:
    return canonical_json({name: value for name, value in parts.items() if name != "work_id"})
