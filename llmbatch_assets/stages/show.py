"""One item in full: what was asked, each attempt, what came of it, and the files that say so."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from llmbatch_assets.adapters.store.ledger import read_ledger
from llmbatch_assets.adapters.store.listing import read_mapping
from llmbatch_assets.adapters.store.outputs import FileStore
from llmbatch_assets.domain.items.work import GroupContext, WorkItem
from llmbatch_assets.domain.prompt import Message
from llmbatch_assets.domain.request import ChatRequest
from llmbatch_assets.domain.text import composed, slug
from llmbatch_assets.errors import InputError
from llmbatch_assets.stages.artifacts import artifact_path, output_store, planned
from llmbatch_assets.stages.project import Batch

# Shorter beginnings of ids are more likely a row's number.
SHORTEST_ID = 8
MAX_LISTED = 20


def item_view(batch: Batch, named: str) -> dict[str, Any]:
    """Everything that ``llmbatch show`` tells of the item that ``named`` means.

    Raises ``InputError`` where no item or more than one is meant.
    """
    plan = planned(batch)
    item = find_item(plan.items, named, batch.source.identity.cache_id)
    store, cache_id = output_store(batch), batch.source.identity.cache_id(item.work_id)
    context = next((one for one in plan.contexts if one.group_context_id == item.group_context_id), None)
    accepted = read_mapping(store.accepted_path(cache_id))
    attempts = [*_failed(batch, store, cache_id), *_accepted(batch, store, cache_id, accepted)]
    return {
        "work_id": item.work_id,
        "partition_key": item.partition_key,
        "cache_id": cache_id,
        "group_key": item.group_key,
        "row_index": item.row_index,
        "rows": _rows(item),
        "state": _state(accepted, attempts),
        "messages": _turns(_asked(batch, item, context)),
        "attempts": attempts,
        "output": accepted.get("parsed"),
        "judge": accepted.get("judge"),
        "judge_messages": _judge_messages(batch, item, context, accepted),
        "waits_for_judge": (store.awaiting_judge / f"{cache_id}.json").is_file(),
        "to_be_made_again": store.is_forced(cache_id),
        "calls": [
            record.model_dump(mode="json", exclude={"v", "work_id", "cache_id", "partition_key"})
            for record in read_ledger(batch.path(batch.layout.ledger))
            if record.cache_id == cache_id
        ],
    }


def find_item(items: Sequence[WorkItem], named: str, cache_id: Any) -> WorkItem:
    """The item that is meant by a row's index from 0, a group's key, or the beginning of a partition key or an id."""
    found = _by_row(items, named) or _by_name(items, named) or _by_id(items, named, cache_id) or _by_label(items, named)
    if not found:
        last = max((row for item in items for row in _rows(item)), default=0)
        raise InputError(
            f"no work item is {named!r}; name a row by its index (0, the first below the header, to {last}), a group by its "
            f"key, or the beginning of a partition key (its label is enough), or of a work_id or cache_id ({SHORTEST_ID} "
            "digits are enough)"
        )
    if len(found) > 1:
        listed = ", ".join(f"{item.partition_key} (row {item.row_index})" for item in found[:MAX_LISTED])
        more = ", ..." if len(found) > MAX_LISTED else ""
        raise InputError(f"{named!r} means {len(found)} work items; name one of them: {listed}{more}")
    return found[0]


def _by_row(items: Sequence[WorkItem], named: str) -> list[WorkItem]:
    if not named.isdecimal() or len(named) >= SHORTEST_ID:
        return []
    return [item for item in items if int(named) in _rows(item)]


def _rows(item: WorkItem) -> list[int]:
    """The rows that an item stands for: its own, those that share it, or all of its group."""
    own = [] if item.row_index is None else [item.row_index]
    return [*own, *item.meta.get("shared_row_indices", []), *item.meta.get("row_indices", [])]


def _by_name(items: Sequence[WorkItem], named: str) -> list[WorkItem]:
    key = composed(named)
    return [item for item in items if item.partition_key == named] or [item for item in items if item.group_key == key]


def _by_id(items: Sequence[WorkItem], named: str, cache_id: Any) -> list[WorkItem]:
    beginning = named.lower()
    if len(beginning) < SHORTEST_ID:
        return []
    by_work_id = [item for item in items if item.work_id.startswith(beginning)]
    return by_work_id or [item for item in items if cache_id(item.work_id).startswith(beginning)]


def _by_label(items: Sequence[WorkItem], named: str) -> list[WorkItem]:
    """Items whose partition key begins so, typed as in the table or as the key is."""
    beginnings = tuple(filter(None, (named.lower(), slug(named))))
    return [item for item in items if beginnings and item.partition_key.startswith(beginnings)]


def _asked(batch: Batch, item: WorkItem, context: GroupContext | None) -> tuple[Message, ...]:
    """The messages as a provider gets them, the schema among them where it cannot be handed one."""
    conversations = batch.conversations
    messages = conversations.generate(item, context.context if context else None)
    if _structured_output(batch) in ("prompt", "json_object"):
        return ChatRequest("generate", messages, conversations.output_contract).with_schema_in_prompt()
    return messages


def _structured_output(batch: Batch) -> Any:
    """How JSON is asked for: as configured, else as the last run found out."""
    configured = batch.parameters.llm.structured_output
    if configured != "auto":
        return configured
    return read_mapping(artifact_path(batch, "llm_outputs")).get("meta", {}).get("structured_output")


def _judge_messages(
    batch: Batch, item: WorkItem, context: GroupContext | None, accepted: dict[str, Any]
) -> list[dict[str, str]]:
    if batch.judge_prompt is None or not isinstance(accepted.get("parsed"), dict):
        return []
    group = context.context if context else None
    return _turns(batch.conversations.judge_output(item, group, accepted["parsed"]))


def _turns(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [message._asdict() for message in messages]


def _failed(batch: Batch, store: FileStore, cache_id: str) -> Iterator[dict[str, Any]]:
    for number in range(1, store.next_attempt(cache_id)):
        path = store.failure_path(cache_id, number)
        if path.is_file():
            content = read_mapping(path)
            told = ("class", "cause", "error", "raw_text", "feedback", "judge", "usage", "latency_sec")
            yield {
                "attempt": number,
                "result": "failed",
                **{name: content.get(name) for name in told},
                **_made(batch, path, content),
            }


def _accepted(batch: Batch, store: FileStore, cache_id: str, content: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if content:
        path = store.accepted_path(cache_id)
        yield {
            "attempt": content.get("meta", {}).get("attempt_outer"),
            "result": "accepted",
            **{name: content.get(name) for name in ("judge", "usage", "latency_sec")},
            **_made(batch, path, content),
        }


def _made(batch: Batch, path: Path, content: dict[str, Any]) -> dict[str, Any]:
    return {"created_at_utc": content.get("meta", {}).get("created_at_utc"), "file": batch.shown(path)}


def _state(accepted: dict[str, Any], attempts: Sequence[dict[str, Any]]) -> str:
    if accepted:
        return "accepted"
    if not attempts:
        return "missing"
    return "failed_permanently" if attempts[-1]["class"] == "item_permanent" else "failed"
