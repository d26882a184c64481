"""The outputs of the items under two identities, from the artifacts of both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from llmbatch_assets.adapters.store.index import CacheIndex
from llmbatch_assets.domain.items.grouping import plan_work
from llmbatch_assets.domain.items.identity import BatchIdentity
from llmbatch_assets.domain.items.work import WorkItem
from llmbatch_assets.domain.plan.difference import Differences
from llmbatch_assets.domain.plan.output_diff import Pair, Side
from llmbatch_assets.domain.plan.rerun_reasons import Reasons, changes_between
from llmbatch_assets.errors import InputError
from llmbatch_assets.stages.artifacts import cache_ids, cache_index
from llmbatch_assets.stages.earlier_outputs import EarlierOutputs
from llmbatch_assets.stages.plan import differences_between, require_schema
from llmbatch_assets.stages.project import Batch

SHORTEST_NAME = 4


class Known(NamedTuple):
    """An identity other than the one in force, with what it left of the items that there are now."""

    identity: BatchIdentity
    used_at_utc: str | None
    n_outputs: int
    n_failed: int
    changes: Reasons


@dataclass(frozen=True)
class Comparing:
    """The items of a batch as they are now, under the identity in force and others. Raises ``InputError``."""

    batch: Batch

    @cached_property
    def items(self) -> list[WorkItem]:
        return plan_work(self.batch.read_snapshot(), self.batch.parameters).items

    @cached_property
    def _survey(self) -> CacheIndex:
        return cache_index(self.batch)

    @cached_property
    def _earlier(self) -> EarlierOutputs:
        require_schema(self.batch)
        ids = [item.work_id for item in self.items]
        current = dict(zip(ids, cache_ids(self.batch.source.identity, ids), strict=True))
        return EarlierOutputs(self.batch, self._survey, self.items, current)

    @cached_property
    def known(self) -> list[Known]:
        """What else was asked of the items: the latest first."""
        asked = [one for several in self._earlier.by_item.values() for one in several]
        strays = [one.identity for one in self._earlier.strays.values()]
        outputs = Counter(one.identity.sha for one in asked if one.is_output) + Counter(one.sha for one in strays)
        failed = Counter(one.identity.sha for one in asked if not one.is_output)
        unkept = {one.sha: one for one in strays}
        identities = [*self._earlier.identities, *unkept.values()]
        return [
            self._known(one, outputs[one.sha], failed[one.sha])
            for one in identities
            if outputs[one.sha] or failed[one.sha]
        ]

    def _known(self, identity: BatchIdentity, n_outputs: int, n_failed: int) -> Known:
        use = self._earlier.last_use(identity)
        changes = changes_between(identity, self.batch.source.identity)
        return Known(identity, use.at_utc if use else None, n_outputs, n_failed, changes)

    def before(self, named: str) -> Known:
        """The identity to compare with: the latest, or the one that a name or its beginning is for.

        A name is an identity's sha, that of its prompt or schema, or a cache id. Raises ``InputError``.
        """
        found = [one for one in self.known if self._goes_by(one.identity, named)] if named else self.known
        if not found:
            what = (
                f"no other identity goes by {named!r}" if named else "these items have artifacts of no other identity"
            )
            raise InputError(
                f"{what}: there is nothing to compare with{'; see llmbatch diff --list' if self.known else ''}"
            )
        shas = [one for one in found if named and one.identity.sha.startswith(named)]
        if named and len(found) > 1 and len(shas) != 1:
            listed = ", ".join(one.identity.sha[:12] for one in found)
            raise InputError(f"{named!r} can be any of the identities {listed}; name one of them")
        return (shas or found)[0]

    def _goes_by(self, identity: BatchIdentity, named: str) -> bool:
        if len(named) < SHORTEST_NAME:
            return False
        shas = (identity.sha, identity.prompt_sha, identity.schema_sha, identity.judge_prompt_sha or "")
        if any(sha.startswith(named) for sha in shas):
            return True
        return named in self._survey.accepted and named in set(self._ids(identity))

    def _ids(self, identity: BatchIdentity) -> Iterator[str]:
        return cache_ids(identity, [item.work_id for item in self.items])

    def differences(self, before: BatchIdentity) -> Differences:
        """What is asked otherwise."""
        return differences_between(self.batch, self._earlier, before)

    def pairs(self, before: BatchIdentity) -> Iterator[Pair]:
        """Every item under both, one after another."""
        ids = zip(self.items, self._ids(before), self._ids(self.batch.source.identity), strict=True)
        for item, earlier, now in ids:
            yield Pair(item, self._side(earlier), self._side(now))

    def _side(self, cache_id: str) -> Side:
        output = self._survey.output(cache_id) if cache_id in self._survey.accepted else None
        if output is not None:
            return Side("accepted", output.parsed)
        if cache_id not in self._survey.failed:
            return Side("missing")
        failure = self._survey.failure(cache_id)
        message = str((failure.get("error") or {}).get("message", "its file cannot be read"))
        return Side("failed", None, str(failure.get("cause", "unreadable_failure")), message)
