"""Which item of an earlier table an item without an output was: told from what the earlier artifacts say of theirs.

An item's id is made of its content, so a row that was edited is another item. Every pass is linear in items and artifacts.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from llmbatch_assets.domain.items.identity import BatchIdentity, work_id
from llmbatch_assets.domain.items.work import WorkItem
from llmbatch_assets.domain.plan.rerun_reasons import Reason

# Contexts that a group has had: so many of the latest are tried, or a long history would be gone through for each item.
LATEST_CONTEXTS = 8
_ID_DIGITS = 16


class Former(NamedTuple):
    """An item that has an artifact; ``other_settings`` says that items were made of rows in another way then."""

    work_id: str
    partition_key: str
    group_key: str | None
    row_index: int | None
    group_context_id: str | None
    created_at_utc: str
    identity: BatchIdentity
    other_settings: bool = False


class Match(NamedTuple):
    """What an item was before, and what makes it another one now."""

    reason: Reason
    former: Former


class _Place(NamedTuple):
    """The ``offset``-th row after the row ``after`` that is still what it was; in its group."""

    group_key: str | None
    after: str
    offset: int


def label_of(partition_key: str) -> str:
    """What a partition key begins with, empty where it is an id alone."""
    return partition_key[: -_ID_DIGITS - 1] if partition_key[-_ID_DIGITS - 1 : -_ID_DIGITS] == "-" else ""


def match_rows(
    items: Sequence[WorkItem],
    unmatched: Sequence[WorkItem],
    former: Sequence[Former],
    standing: Sequence[Former],
    *,
    by_label: bool,
) -> dict[str, Match]:
    """What items without an output were before, by work id; an item that is not in it is new.

    ``former`` are artifacts of items that are no more, ``standing`` those of items that are still the same.
    """
    former = _latest(former)
    found = _siblings(items, unmatched, former)
    found |= _groups(_without(unmatched, found), former)
    rest, left = _without(unmatched, found), _left(former, found)
    if by_label:
        named = _by_label(items, rest, left)
        found |= named
        # A label that several rows share tells nothing, and its rows are known by their place.
        shared = _shared_labels(items)
        rest = [item for item in _without(rest, named) if label_of(item.partition_key) in shared]
        left = _left(left, named)
    same_way = [one for one in left if not one.other_settings]
    found |= _by_place(items, rest, same_way, [*standing, *_as_standing(found)])
    return found | _by_row(_without(rest, found), left)


def _latest(former: Iterable[Former]) -> list[Former]:
    return sorted(former, key=lambda one: (one.created_at_utc, one.work_id), reverse=True)


def _without(items: Sequence[WorkItem], found: Mapping[str, Match]) -> list[WorkItem]:
    return [item for item in items if item.work_id not in found]


def _left(former: Sequence[Former], found: Mapping[str, Match]) -> list[Former]:
    taken = {match.former.work_id for match in found.values()}
    return [one for one in former if one.work_id not in taken]


def _reason(former: Former, reason: Reason) -> Match:
    return Match("parameters_changed" if former.other_settings else reason, former)


def _siblings(items: Sequence[WorkItem], unmatched: Sequence[WorkItem], former: Sequence[Former]) -> dict[str, Match]:
    """Items whose own row is as it was: under an earlier context of the group they have an id that is known."""
    by_id = {one.work_id: one for one in former}
    contexts: dict[str | None, list[str]] = defaultdict(list)
    for one in former:
        if one.group_context_id and len(known := contexts[one.group_key]) < LATEST_CONTEXTS:
            known += [one.group_context_id] if one.group_context_id not in known else []
    ordinals = _ordinals(items) if contexts else {}
    found = {}
    for item in unmatched:
        for context_id in contexts.get(item.group_key, ()) if item.group_context_id else ():
            ordinal = ordinals[item.work_id]
            earlier = work_id(item.meta["mode"], item.group_key, item.context, context_id, ordinal)
            if earlier in by_id:
                found[item.work_id] = _reason(by_id[earlier], "sibling_changed")
                break
    return found


def _ordinals(items: Iterable[WorkItem]) -> dict[str, int]:
    """How many items of the same content come before each."""
    seen: Counter[tuple[str | None, str | None, str]] = Counter()
    ordinals = {}
    for item in items:
        content = (item.group_key, item.group_context_id, item.context)
        ordinals[item.work_id] = seen[content]
        seen[content] += 1
    return ordinals


def _groups(unmatched: Sequence[WorkItem], former: Sequence[Former]) -> dict[str, Match]:
    """Items that are whole groups, by their keys."""
    by_key: dict[str | None, Former] = {}
    for one in former:
        if one.row_index is None:
            by_key.setdefault(one.group_key, one)
    groups = [item for item in unmatched if item.row_index is None and item.group_key in by_key]
    return {item.work_id: _reason(by_key[item.group_key], "group_changed") for item in groups}


def _shared_labels(items: Iterable[WorkItem]) -> set[str]:
    counts = Counter(label_of(item.partition_key) for item in items)
    return {label for label, count in counts.items() if count > 1} | {""}


def _by_label(items: Sequence[WorkItem], unmatched: Sequence[WorkItem], former: Sequence[Former]) -> dict[str, Match]:
    shared = _shared_labels(items)
    by_name: dict[str, Former] = {}
    for one in former:
        by_name.setdefault(label_of(one.partition_key), one)
    found = {}
    for item in unmatched:
        label = label_of(item.partition_key)
        if label in by_name and label not in shared:
            found[item.work_id] = _reason(by_name[label], "row_changed")
    return found


def _as_standing(found: Mapping[str, Match]) -> list[Former]:
    return [match.former._replace(work_id=identity) for identity, match in found.items()]


def _by_place(
    items: Sequence[WorkItem], unmatched: Sequence[WorkItem], former: Sequence[Former], standing: Sequence[Former]
) -> dict[str, Match]:
    """Rows that stand where another one stood, counted from the last row before them that is as it was."""
    still = {one.work_id for one in standing}
    places = _earlier_places(former, standing)
    waiting = {item.work_id for item in unmatched}
    after: dict[str | None, tuple[str, int]] = {}
    found = {}
    for item in items:
        last, offset = after.get(item.group_key, ("", 0))
        after[item.group_key] = (item.work_id, 0) if item.work_id in still else (last, offset + 1)
        place = _Place(item.group_key, last, offset + 1)
        if item.work_id in waiting and place in places:
            found[item.work_id] = Match("row_changed", places[place])
    return found


def _earlier_places(former: Sequence[Former], standing: Sequence[Former]) -> dict[_Place, Former]:
    """Where each former row stood. Of several at one place it is the latest, and none where a standing one came later."""
    latest: dict[tuple[str | None, int], Former] = {}
    for one in _latest([*former, *standing]):
        if one.row_index is not None:
            latest.setdefault((one.group_key, one.row_index), one)
    still = {one.work_id for one in standing}
    after: dict[str | None, tuple[str, int]] = {}
    places = {}
    for one in sorted(latest.values(), key=lambda one: one.row_index or 0):
        last, offset = after.get(one.group_key, ("", 0))
        if one.work_id in still:
            after[one.group_key] = (one.work_id, 0)
            continue
        after[one.group_key] = (last, offset + 1)
        places[_Place(one.group_key, last, offset + 1)] = one
    return places


def _by_row(unmatched: Sequence[WorkItem], former: Sequence[Former]) -> dict[str, Match]:
    """Items whose row was another item when items were made in another way: grouped, rendered or cleaned otherwise."""
    by_row: dict[int | None, Former] = {}
    for one in former:
        if one.other_settings:
            by_row.setdefault(one.row_index, one)
    return {
        item.work_id: Match("parameters_changed", by_row[item.row_index])
        for item in unmatched
        if item.row_index is not None and item.row_index in by_row
    }
