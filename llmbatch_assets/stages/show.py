"""One item in full: its prompt, each attempt, its output and calls, and the files that hold them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field

from llmbatch_assets.adapters.store.index import CacheIndex
from llmbatch_assets.adapters.store.run_records import read_ledger
from llmbatch_assets.domain.item_state import ItemState
from llmbatch_assets.domain.items.prompt_columns import missing_columns
from llmbatch_assets.domain.items.work import WorkItem, WorkPlan
from llmbatch_assets.domain.outcome import AcceptedOutput, FailureClass, Stored
from llmbatch_assets.domain.plan.rerun_reasons import label_of
from llmbatch_assets.domain.prompt import Message
from llmbatch_assets.domain.request import ChatRequest
from llmbatch_assets.domain.run.ledger import CallRecord
from llmbatch_assets.domain.text import composed, counted, slug
from llmbatch_assets.domain.usage import TokenUsage
from llmbatch_assets.errors import InputError
from llmbatch_assets.stages.artifacts import cache_index, current_work, has_stored_work, last_run_meta, stored_work
from llmbatch_assets.stages.project import Batch

# A shorter prefix of an id is more likely a row number.
SHORTEST_ID = 8
MAX_LISTED = 20


class AcceptedAttempt(Stored):
    """The attempt that gave the item's output."""

    attempt: int
    result: Literal["accepted"] = "accepted"
    judge: dict[str, Any] | None
    usage: TokenUsage
    latency_sec: float
    created_at_utc: str | None
    file: str


class RejectedAttempt(Stored):
    """A failed attempt."""

    attempt: int
    result: Literal["failed"] = "failed"
    failure_class: FailureClass = Field(serialization_alias="class")
    cause: str
    error: dict[str, str]
    raw_text: str | None
    feedback: str | None
    judge: dict[str, Any] | None
    usage: TokenUsage
    latency_sec: float
    created_at_utc: str | None
    file: str


class ItemDetails(Stored):
    """One item, under the keys of ``llmbatch show --json``."""

    work_id: str
    partition_key: str
    cache_id: str
    group_key: str | None
    row_index: int | None
    rows: list[int]
    state: ItemState
    messages: list[dict[str, str]]
    attempts: list[RejectedAttempt | AcceptedAttempt]
    output: dict[str, Any] | None
    judge: dict[str, Any] | None
    judge_messages: list[dict[str, str]]
    waits_for_judge: bool
    to_be_made_again: bool
    calls: list[CallRecord]
    note: str

    def as_json(self) -> dict[str, Any]:
        of_item = {"v", "work_id", "cache_id", "partition_key"}
        return self.model_dump(mode="json", by_alias=True, exclude={"note": True, "calls": {"__all__": of_item}})


def item_details(batch: Batch, named: str) -> ItemDetails:
    """Gather everything about the item that ``named`` matches.

    Raises ``InputError`` if no item or more than one matches.
    """
    plan = _work(batch)
    identity, index = batch.source.identity, cache_index(batch)
    item, note = find_item(plan.items, named, identity.cache_id)
    cache_id = identity.cache_id(item.work_id)
    context = next((one.context for one in plan.contexts if one.group_context_id == item.group_context_id), None)
    output, is_judged = index.output(cache_id), batch.judge_prompt is not None
    return ItemDetails(
        note=note,
        work_id=item.work_id,
        partition_key=item.partition_key,
        cache_id=cache_id,
        group_key=item.group_key,
        row_index=item.row_index,
        rows=_rows(item),
        state=index.state(cache_id),
        messages=_turns(_prompt(batch, item, context)),
        attempts=_attempts(batch, index, cache_id, output),
        output=output and output.parsed,
        judge=output and output.judge,
        judge_messages=_turns(batch.conversations.judge_output(item, context, output.parsed))
        if is_judged and output
        else [],
        waits_for_judge=cache_id in index.awaiting,
        to_be_made_again=cache_id in index.forced,
        calls=[call for call in read_ledger(batch.path(batch.layout.ledger)) if call.cache_id == cache_id],
    )


def _work(batch: Batch) -> WorkPlan:
    """Return the stored items, unless there are none or the prompts name columns that they lack."""
    if has_stored_work(batch):
        plan = stored_work(batch)
        if not missing_columns(batch.generation_prompt, batch.judge_prompt, plan.items):
            return plan
    return current_work(batch)


class FoundItem(NamedTuple):
    """An item, and a sentence about another one that the same name could have meant; empty if there is none."""

    item: WorkItem
    note: str = ""


def find_item(items: Sequence[WorkItem], named: str, cache_id: Callable[[str], str]) -> FoundItem:
    """Find an item by its label or group key, a row index from 0, or the beginning of a partition key or id.

    An exact label comes before a row index. Raises ``InputError`` if no item or more than one matches.
    """
    by_row, by_group = _by_row(items, named), _by_group(items, named)
    exact = [item for item in items if item.partition_key == named] or _by_exact_name(items, named)
    found = exact or by_row or by_group or _by_id(items, named, cache_id) or _by_prefix(items, named)
    if not found:
        last = max((row for item in items for row in _rows(item)), default=0)
        raise InputError(
            f"No item matches {named!r}. Use a row index (0 to {last}; 0 is the first row below the header), a group key, "
            f"the beginning of a partition key, such as a label, or at least {SHORTEST_ID} digits of a work_id or cache_id."
        )
    if len(found) > 1:
        found += [item for item in by_row if item not in found]
        listed = "".join(f"\n  {_described(item)}" for item in found[:MAX_LISTED])
        more = f"\n  and {len(found) - MAX_LISTED:,} more" if len(found) > MAX_LISTED else ""
        raise InputError(
            f"{named!r} matches {counted(len(found), 'item')}; name one by its partition key:{listed}{more}"
        )
    return FoundItem(found[0], _note(named, found[0], by_row, by_group))


def _note(named: str, item: WorkItem, by_row: Sequence[WorkItem], by_group: Sequence[WorkItem]) -> str:
    if others := [one for one in by_row if one != item]:
        return f"{named} is the label of this item, and the row index of another one: llmbatch show {others[0].partition_key}"
    if by_group and item not in by_group:
        return f"{named} is the row index of this item, and also the key of a group of {counted(len(by_group), 'item')}"
    return ""


def _described(item: WorkItem) -> str:
    """The item's unique name, with its rows as ``llmbatch show`` takes and as people count them."""
    rows = _rows(item)
    return f"{item.partition_key}  (index {rows[0]}, row {rows[0] + 1}{', ...' if len(rows) > 1 else ''})"


def _by_row(items: Sequence[WorkItem], named: str) -> list[WorkItem]:
    if not (named.isascii() and named.isdecimal()) or len(named) >= SHORTEST_ID:
        return []
    return [item for item in items if int(named) in _rows(item)]


def _by_exact_name(items: Sequence[WorkItem], named: str) -> list[WorkItem]:
    """Match the label, as the table spells it or else as the partition key does, and the key of a group that is one item."""
    name, short = composed(named), slug(named)
    found = [item for item in items if name in (item.label, item.group_key if item.row_index is None else item.label)]
    found = found or [item for item in items if short and label_of(item) == short]
    # Items of a group without their own labels are named after the group.
    return found if len(found) == 1 else [item for item in found if label_of(item) != slug(item.group_key or "")]


def _rows(item: WorkItem) -> list[int]:
    """Return the rows an item stands for: its own, those that share it, or all rows of its group."""
    own = [] if item.row_index is None else [item.row_index]
    return [*own, *item.meta.get("shared_row_indices", []), *item.meta.get("row_indices", [])]


def _by_group(items: Sequence[WorkItem], named: str) -> list[WorkItem]:
    key = composed(named)
    return [item for item in items if item.group_key == key]


def _by_id(items: Sequence[WorkItem], named: str, cache_id: Callable[[str], str]) -> list[WorkItem]:
    prefix = named.lower()
    if len(prefix) < SHORTEST_ID:
        return []
    by_work_id = [item for item in items if item.work_id.startswith(prefix)]
    return by_work_id or [item for item in items if cache_id(item.work_id).startswith(prefix)]


def _by_prefix(items: Sequence[WorkItem], named: str) -> list[WorkItem]:
    """Match the beginning of a partition key, typed as in the table or as in the key."""
    prefixes = tuple(filter(None, (named.lower(), slug(named))))
    return [item for item in items if prefixes and item.partition_key.startswith(prefixes)]


def _prompt(batch: Batch, item: WorkItem, group_context: str | None) -> tuple[Message, ...]:
    """Return the messages as the provider gets them, including the schema if it goes into the prompt."""
    conversations = batch.conversations
    messages = conversations.generate(item, group_context)
    if _structured_output(batch) in ("prompt", "json_object"):
        return ChatRequest("generate", messages, conversations.output_contract).with_schema_in_prompt()
    return messages


def _structured_output(batch: Batch) -> Any:
    """Return how JSON is requested: as configured or, for ``auto``, as the last run found out."""
    configured = batch.parameters.llm.structured_output
    return configured if configured != "auto" else last_run_meta(batch).get("structured_output")


def _turns(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [message._asdict() for message in messages]


def _attempts(
    batch: Batch, index: CacheIndex, cache_id: str, output: AcceptedOutput | None
) -> list[RejectedAttempt | AcceptedAttempt]:
    """Return the failed attempts, then the accepted one."""

    def recorded(meta: dict[str, Any], file: Path) -> dict[str, Any]:
        at = {"attempt": meta["attempt_outer"], "created_at_utc": meta.get("created_at_utc")}
        return {**at, "file": batch.shown(file)}

    attempts: list[RejectedAttempt | AcceptedAttempt] = []
    for failure in index.failed_attempts(cache_id):
        path = index.failure_path(cache_id, failure.meta["attempt_outer"])
        attempts.append(RejectedAttempt(**dict(failure), **recorded(failure.meta, path)))
    if output:
        attempts.append(AcceptedAttempt(**dict(output), **recorded(output.meta, index.output_path(cache_id))))
    return attempts
