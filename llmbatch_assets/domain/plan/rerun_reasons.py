"""Reasons to run an item: a changed row or setting, or a lost, broken, failed or forced output.

An item's id is a hash of its content, so an edited row is another item. ``match_rows`` finds the item that it replaces.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from operator import attrgetter
from typing import Any, Literal, NamedTuple, get_args

from llmbatch_assets.domain.item_state import ItemState
from llmbatch_assets.domain.items.identity import BatchIdentity, work_id
from llmbatch_assets.domain.items.work import WorkItem

RerunReason = Literal[
    "new_row",
    "row_changed",
    "sibling_changed",
    "group_changed",
    "prompt_changed",
    "schema_changed",
    "parameters_changed",
    "judge_changed",
    "artifact_missing",
    "artifact_broken",
    "failed_before",
    "verdict_missing",
    "forced",
]
RerunReasons = tuple[RerunReason, ...]

# In the order in which they are shown.
LABELS: dict[RerunReason, str] = {
    **{reason: reason.replace("_", " ") for reason in get_args(RerunReason)},
    "sibling_changed": "another row of the group changed",
    "parameters_changed": "model or parameters changed",
    "verdict_missing": "answered, not judged yet",
}

# The first one that applies is shown.
_ARTIFACT_REASONS: RerunReasons = ("artifact_broken", "artifact_missing", "verdict_missing", "failed_before", "forced")
# Schema texts shown in prompts. They are stored as settings, but changing them changes the schema.
_SCHEMA_TEXTS = {"llm_schema_txt", "judge_schema"}
# Try only this many contexts per group, so that the time stays linear with a long history.
_LATEST_CONTEXTS = 8


def reasons_from_artifacts(
    cache_id: str, state: ItemState, ids_by_reason: Mapping[RerunReason, Collection[str]]
) -> RerunReasons:
    """Why an item runs again with the same settings; empty if it was never attempted with them."""
    if state == "accepted":
        return ("forced",)
    return next(((reason,) for reason in _ARTIFACT_REASONS if cache_id in ids_by_reason.get(reason, ())), ())


def changes_between(before: BatchIdentity, now: BatchIdentity) -> RerunReasons:
    """The kinds of settings that differ between two identities."""
    old, new = before.settings, now.settings
    differing = {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}
    is_changed: dict[RerunReason, bool] = {
        "prompt_changed": before.prompt_sha != now.prompt_sha,
        "schema_changed": before.schema_sha != now.schema_sha or bool(differing & _SCHEMA_TEXTS),
        "parameters_changed": (before.model_name, before.temperature) != (now.model_name, now.temperature)
        or bool(differing - _SCHEMA_TEXTS),
        "judge_changed": _judge_changed(before, now),
    }
    return tuple(reason for reason, changed in is_changed.items() if changed)


def _judge_changed(before: BatchIdentity, now: BatchIdentity) -> bool:
    """Return whether the judge itself changed. Settings that it takes over from ``llm`` do not count."""
    if (before.judge_enabled, before.judge_prompt_sha) != (now.judge_enabled, now.judge_prompt_sha):
        return True
    (old, old_llm), (new, new_llm) = ((one.judge or {}, _llm_settings(one)) for one in (before, now))
    return any(
        old.get(name) != new.get(name) and (old.get(name), new.get(name)) != (old_llm.get(name), new_llm.get(name))
        for name in old.keys() | new.keys()
    )


def _llm_settings(identity: BatchIdentity) -> dict[str, Any]:
    return {**identity.settings, "model_name": identity.model_name, "temperature": identity.temperature}


def in_order(*reasons: RerunReason) -> RerunReasons:
    """The reasons without duplicates, in the order of ``LABELS``."""
    return tuple(reason for reason in LABELS if reason in reasons)


def count_reasons(reasons: Mapping[str, RerunReasons]) -> list[tuple[RerunReasons, int]]:
    """The number of items for each combination of reasons, most frequent first."""
    order = list(LABELS)
    counts = Counter(reasons.values())
    return sorted(counts.items(), key=lambda pair: (-pair[1], [order.index(reason) for reason in pair[0]]))


class PreviousItem(NamedTuple):
    """An item as its artifact describes it.

    ``other_settings``: the items were made from the rows with other settings. ``last_use`` orders identities by their last
    run; a restored earlier prompt comes after the one in between, although its outputs are older.
    """

    work_id: str
    partition_key: str
    group_key: str | None
    row_index: int | None
    group_context_id: str | None
    created_at_utc: str
    identity: BatchIdentity
    other_settings: bool = False
    last_use: int = -1

    @property
    def age(self) -> tuple[int, str, str]:
        """Sorts artifacts so that the one that the last run produced or reused comes last."""
        return self.last_use, self.created_at_utc, self.work_id


class RowMatch(NamedTuple):
    """The previous item that an item replaces, and why its id changed."""

    reason: RerunReason
    previous: PreviousItem


def match_rows(
    items: Sequence[WorkItem],
    unmatched: Sequence[WorkItem],
    gone: Sequence[PreviousItem],
    kept: Sequence[PreviousItem],
    *,
    by_label: bool,
) -> dict[str, RowMatch]:
    """Match the items in ``unmatched`` to the previous items that they replace.

    Returns the matches by work id; items without a match are new. ``gone`` are previous items that no longer exist,
    ``kept`` those that still do. ``by_label``: row labels identify rows.
    """
    gone = sorted(gone, key=attrgetter("age"))
    matches = _match_siblings(items, unmatched, gone)
    matches |= _match_by(_group_of, unmatched, gone, "group_changed", matches)
    shared = {""} | {label for label, n in Counter(label_of(item) for item in items).items() if n > 1}

    def own_label(one: WorkItem | PreviousItem) -> str | None:
        return label if (label := label_of(one)) not in shared else None

    matches |= _match_by(own_label, unmatched if by_label else [], gone, "row_changed", matches)
    taken = {match.previous.work_id for match in matches.values()}
    # A row with a unique label is identified by it, not by its position.
    left = [one for one in gone if one.work_id not in taken and (not by_label or label_of(one) in shared)]
    anchors = [*kept, *(match.previous._replace(work_id=item) for item, match in matches.items())]
    return matches | _match_positions(items, {item.work_id for item in unmatched} - matches.keys(), left, anchors)


def _row_match(reason: RerunReason, previous: PreviousItem) -> RowMatch:
    return RowMatch("parameters_changed" if previous.other_settings else reason, previous)


def _match_siblings(
    items: Sequence[WorkItem], unmatched: Sequence[WorkItem], gone: Sequence[PreviousItem]
) -> dict[str, RowMatch]:
    """Match items whose own row is unchanged: with a previous context of the group, they have a known id."""
    by_id = {one.work_id: one for one in gone}
    contexts: dict[str | None, dict[str, None]] = defaultdict(dict)
    for one in reversed(gone):
        if one.group_context_id and len(contexts[one.group_key]) < _LATEST_CONTEXTS:
            contexts[one.group_key][one.group_context_id] = None
    ordinals, found = _ordinals(items), {}
    for item in unmatched:
        if item.hidden_columns:
            # The same row, from before a prompt named the column.
            unnamed = (item.meta["mode"], item.group_key, item.context, item.group_context_id, ordinals[item.work_id])
            if (before := by_id.get(work_id(*unnamed))) is not None:
                found[item.work_id] = _row_match("prompt_changed", before)
                continue
        for context_id in contexts.get(item.group_key, ()) if item.group_context_id else ():
            content = (item.meta["mode"], item.group_key, item.context, context_id)
            previous = work_id(*content, ordinals[item.work_id], item.hidden_columns)
            if previous in by_id:
                found[item.work_id] = _row_match("sibling_changed", by_id[previous])
                break
    return found


def _ordinals(items: Sequence[WorkItem]) -> dict[str, int]:
    """The number of items with the same content before each item."""
    seen: Counter[tuple[object, ...]] = Counter()
    ordinals = {}
    for item in items:
        content = (item.group_key, item.group_context_id, item.context, *item.hidden_columns.items())
        ordinals[item.work_id] = seen[content]
        seen[content] += 1
    return ordinals


def _match_by(
    key_of: Callable[[WorkItem | PreviousItem], str | None],
    unmatched: Sequence[WorkItem],
    gone: Sequence[PreviousItem],
    reason: RerunReason,
    matches: Collection[str],
) -> dict[str, RowMatch]:
    """Match items to the latest previous item with the same key. Skips the items in ``matches``."""
    latest = {key: one for one in gone if (key := key_of(one)) is not None}
    keys = {item.work_id: key_of(item) for item in unmatched if item.work_id not in matches}
    return {item: _row_match(reason, latest[key]) for item, key in keys.items() if key in latest}


def _group_of(one: WorkItem | PreviousItem) -> str | None:
    """The group key of an item that is a whole group; None for other items."""
    return one.group_key if one.row_index is None else None


def label_of(one: WorkItem | PreviousItem) -> str:
    """The label at the start of the partition key; empty if the key is only an id."""
    return one.partition_key.rpartition("-")[0]


def _match_positions(
    items: Sequence[WorkItem], waiting: Collection[str], gone: Sequence[PreviousItem], anchors: Sequence[PreviousItem]
) -> dict[str, RowMatch]:
    """Match items to the previous item at the same row, allowing for rows inserted or deleted above.

    ``anchors`` are previous items with their current work id. Each shows by how much the rows from there on moved.
    """
    if not gone:
        return {}
    row_of = {one.work_id: one.row_index for one in anchors}
    latest = {one.row_index: one for one in sorted([*gone, *anchors], key=attrgetter("age"))}
    found, shift = {}, 0
    for item in sorted((item for item in items if item.row_index is not None), key=lambda item: item.row_index or 0):
        row = item.row_index or 0
        if (previous_row := row_of.get(item.work_id)) is not None:
            shift = row - previous_row
        previous = latest.get(row - shift)
        if item.work_id in waiting and previous is not None and previous.work_id not in row_of:
            found[item.work_id] = _row_match("row_changed", latest.pop(row - shift))
    return found
