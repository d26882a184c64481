"""Which files of an output cache are still of use: by what was asked, and about which row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from llmbatch_assets.domain.canonical import canonical_json
from llmbatch_assets.domain.items.identity import BatchIdentity

Use = Literal["current", "gone_row", "to_judge", "old"]


class Uses:
    """What the present settings of all batches of a cache point at.

    ``work_ids`` are those of the rows there are, ``accepted`` the ids that have an output.
    """

    def __init__(
        self, identities: Iterable[BatchIdentity], work_ids: frozenset[str], accepted: frozenset[str] = frozenset()
    ) -> None:
        self._identities = list(identities)
        self.work_ids = work_ids
        self._accepted = accepted
        self._asked = {_asked(identity.parts("")) for identity in self._identities}
        self.cache_ids = {identity.cache_id(work_id) for identity in self._identities for work_id in work_ids}

    def of(self, cache_id: str, parts: Mapping[str, Any]) -> Use:
        """The use of a file with this id, whose artifact says that its id is made of ``parts``.

        ``to_judge``: an output that the present judge has not seen yet, and would be shown instead of a new one.
        """
        if cache_id in self.cache_ids:
            return "current"
        if _asked(parts) in self._asked:
            return "gone_row"
        return "to_judge" if self._is_to_judge(parts) else "old"

    def _is_to_judge(self, parts: Mapping[str, Any]) -> bool:
        work_id = parts.get("work_id")
        if not isinstance(work_id, str) or work_id not in self.work_ids:
            return False
        return any(
            identity.generation_parts(work_id).items() <= parts.items()
            and generation_names(parts) == set(identity.generation_parts(work_id))
            and identity.cache_id(work_id) not in self._accepted
            for identity in self._identities
        )


def generation_names(parts: Mapping[str, Any]) -> set[str]:
    """Names of the parts that a generation depends on."""
    return set(parts) - {"judge_enabled", "judge_prompt_sha", "judge"}


def _asked(parts: Mapping[str, Any]) -> str:
    return canonical_json({name: value for name, value in parts.items() if name != "work_id"})
