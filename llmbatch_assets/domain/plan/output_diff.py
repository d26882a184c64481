"""Outputs of the same items under two identities, side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

from llmbatch_assets.domain.canonical import canonical_json
from llmbatch_assets.domain.items.work import WorkItem
from llmbatch_assets.domain.plan.difference import Changed, changed_values
from llmbatch_assets.domain.plan.selection import State

Change = Literal[
    "changed", "newly_failing", "newly_passing", "unchanged", "still_failing", "not_made_yet", "only_now", "neither"
]

LABELS: dict[Change, str] = {
    "changed": "changed",
    "newly_failing": "newly failing",
    "newly_passing": "newly passing",
    "unchanged": "unchanged",
    "still_failing": "still failing",
    "not_made_yet": "not made again yet",
    "only_now": "not asked before",
    "neither": "in neither",
}
# What there is to look at.
SHOWN: frozenset[Change] = frozenset({"changed", "newly_failing", "newly_passing"})


class Side(NamedTuple):
    """How an item stood under one identity: its output, or why it has none."""

    state: State
    parsed: dict[str, Any] | None = None
    cause: str | None = None
    message: str | None = None

    @property
    def has_failed(self) -> bool:
        return self.state in ("failed", "failed_permanently")

    def as_json(self) -> dict[str, Any]:
        """The side as ``--json`` tells it."""
        return self._asdict()


class Pair(NamedTuple):
    """An item before and now."""

    item: WorkItem
    before: Side
    now: Side

    @property
    def change(self) -> Change:
        """What became of the item."""
        before, now = self.before, self.now
        if now.state == "missing":
            return "neither" if before.state == "missing" else "not_made_yet"
        if before.state == "missing":
            return "only_now"
        if before.has_failed or now.has_failed:
            both = before.has_failed and now.has_failed
            return "still_failing" if both else "newly_failing" if now.has_failed else "newly_passing"
        # As texts: to Python, 1 and true are equal.
        return "unchanged" if canonical_json(before.parsed) == canonical_json(now.parsed) else "changed"

    @property
    def fields(self) -> list[Changed]:
        """The values that differ, under dotted keys; a failure counts as one."""
        return changed_values(_shown(self.before), _shown(self.now))

    def as_json(self) -> dict[str, Any]:
        """The pair as ``--json`` tells it."""
        item = self.item
        return {
            "partition_key": item.partition_key,
            "work_id": item.work_id,
            "row_index": item.row_index,
            "change": self.change,
            "fields": [one._asdict() for one in self.fields],
            "before": self.before.as_json(),
            "now": self.now.as_json(),
        }


def _shown(side: Side) -> dict[str, Any]:
    if side.parsed is not None:
        return side.parsed
    return {"(failed)": f"{side.cause}: {side.message}"} if side.has_failed else {}


class Comparison(NamedTuple):
    """How many items became what, and those to look at, of which ``left_out`` are not among ``pairs``."""

    counts: dict[Change, int]
    pairs: list[Pair]
    left_out: int


def compared(pairs: Iterable[Pair], most: int) -> Comparison:
    """Count all pairs and keep the first ``most`` to look at, 0: all; the others are not held in memory."""
    counts, kept = Counter[Change](), list[Pair]()
    for pair in pairs:
        counts[pair.change] += 1
        if pair.change in SHOWN and (not most or len(kept) < most):
            kept.append(pair)
    n_shown = sum(counts[change] for change in SHOWN)
    return Comparison({change: counts[change] for change in LABELS}, kept, n_shown - len(kept))


def told(counts: dict[Change, int]) -> str:
    """The counts on one line."""
    always = ("changed", "newly_failing", "newly_passing", "unchanged")
    return ", ".join(f"{count:,} {LABELS[change]}" for change, count in counts.items() if count or change in always)
