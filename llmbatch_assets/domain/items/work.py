"""Work items: the units of LLM work, and the contexts that groups of them share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from llmbatch_assets.domain.canonical import sha1_text
from llmbatch_assets.domain.parameters import Parameters

# Dataclasses with slots, though they are stored: a pydantic model takes ten times the memory, and there are 100,000.


@dataclass(frozen=True, slots=True)
class GroupContext:
    """What the rows of one group say together, stored once however many items refer to it."""

    group_context_id: str
    group_key: str
    context: str
    meta: dict[str, Any]


@dataclass(frozen=True, slots=True)
class WorkItem:
    """One output to be made. ``context`` is the item's own part, without its group's."""

    work_id: str
    partition_key: str
    group_key: str | None
    row_index: int | None
    group_context_id: str | None
    context: str
    meta: dict[str, Any]


@dataclass(frozen=True, slots=True)
class WorkItems:
    """The shape of ``pipeline3_work_items.json``."""

    meta: dict[str, Any]
    n_items: int
    n_group_contexts: int
    group_contexts_artifact: str | None
    items: list[WorkItem]


@dataclass(frozen=True, slots=True)
class WorkPlan:
    """All work of a batch: the items in output order, and the contexts that they refer to."""

    items: list[WorkItem]
    contexts: list[GroupContext]
    warnings: list[str]


def unresolved(items: Iterable[WorkItem], contexts: Iterable[GroupContext]) -> list[str]:
    """Partition keys of the items whose group context is not there, or is not the text that its id stands for."""
    known = {one.group_context_id for one in contexts if one.group_context_id == sha1_text(one.context)}
    return [
        item.partition_key for item in items if item.group_context_id is not None and item.group_context_id not in known
    ]


def work_items_of(plan: WorkPlan, parameters: Parameters, contexts_artifact: str) -> WorkItems:
    """The items of a plan in the shape in which they are kept; ``contexts_artifact`` is the contexts' file name."""
    grouping = parameters.grouping
    meta = {
        "grouping": {
            "enabled": grouping.enabled,
            "mode": grouping.effective_mode,
            "column": grouping.column if grouping.enabled else None,
            "dedupe_group_context": bool(plan.contexts),
        },
        "warnings": plan.warnings,
    }
    return WorkItems(
        meta=meta,
        n_items=len(plan.items),
        n_group_contexts=len(plan.contexts),
        group_contexts_artifact=contexts_artifact if plan.contexts else None,
        items=plan.items,
    )
