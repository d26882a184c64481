"""Selection of the items that a run works on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

from llmbatch_assets.domain.item_state import STATES, ItemState
from llmbatch_assets.domain.items.work import WorkItem
from llmbatch_assets.errors import InputError

Select = Literal["pending", "failed", "missing", "all", "keys"]

_WANTED: dict[str, frozenset[ItemState]] = {
    "pending": frozenset({"failed", "missing"}),
    "failed": frozenset({"failed", "failed_permanently"}),
    "missing": frozenset({"missing"}),
    "all": frozenset(STATES),
}


class Selection(NamedTuple):
    """The items that the user asked for. 0 for ``limit`` or ``sample`` means all."""

    select: Select = "pending"
    keys: Sequence[str] = ()
    limit: int = 0
    sample: int = 0
    retry_failed: bool = False


class Choice(NamedTuple):
    """The items that a run will generate, and selected items that already have an output (``hits``)."""

    to_run: list[WorkItem]
    hits: list[WorkItem]


def choose(
    items: Sequence[WorkItem],
    states: Mapping[str, ItemState],
    selection: Selection,
    is_forced: Callable[[WorkItem], bool],
) -> Choice:
    """Split the selected items into those that need a call and those that do not. Their order is kept.

    ``states`` is keyed by partition key. Items selected by key are included whatever their state.
    """
    named = _sampled(_named(items, selection), selection.sample)
    chosen = [item for item in named if _wanted(item, states, selection, is_forced)][: selection.limit or None]
    to_run = [item for item in chosen if states[item.partition_key] != "accepted" or is_forced(item)]
    running = {item.partition_key for item in to_run}
    return Choice(to_run, [item for item in chosen if item.partition_key not in running])


def by_group(items: Sequence[WorkItem]) -> list[WorkItem]:
    """Put the items of a group next to each other: they share the beginning of a prompt, which servers cache."""
    first_seen: dict[str | None, int] = {}
    for item in items:
        first_seen.setdefault(item.group_context_id, len(first_seen))
    return sorted(items, key=lambda item: first_seen[item.group_context_id])


def _named(items: Sequence[WorkItem], selection: Selection) -> Sequence[WorkItem]:
    if selection.select != "keys":
        return items
    by_key = {item.partition_key: item for item in items}
    unknown = [key for key in selection.keys if key not in by_key]
    if unknown:
        raise InputError(f"no work item has the partition key {unknown[0]!r} ({len(unknown)} unknown keys in all)")
    wanted = set(selection.keys)
    return [item for item in items if item.partition_key in wanted]


def _wanted(
    item: WorkItem, states: Mapping[str, ItemState], selection: Selection, is_forced: Callable[[WorkItem], bool]
) -> bool:
    state = states[item.partition_key]
    if selection.select == "keys" or state in _WANTED[selection.select]:
        return True
    # Forced items are pending, even with an accepted output, but neither failed nor missing.
    is_pending_again = selection.select == "pending" and is_forced(item)
    return is_pending_again or (selection.retry_failed and state == "failed_permanently")


def _sampled(items: Sequence[WorkItem], size: int) -> Sequence[WorkItem]:
    """Take ``size`` items from the groups in turn. The choice does not depend on the items' states."""
    if not size or size >= len(items):
        return items
    queues: dict[str | None, list[WorkItem]] = {}
    for item in items:
        queues.setdefault(item.group_key, []).append(item)
    # Ids are hashes, so their order is as good as random and does not depend on the order of the table.
    turns = sorted(
        (turn, group, item.partition_key)
        for group, queue in enumerate(queues.values())
        for turn, item in enumerate(sorted(queue, key=lambda item: item.work_id))
    )
    picked = {key for *_, key in turns[:size]}
    return [item for item in items if item.partition_key in picked]
