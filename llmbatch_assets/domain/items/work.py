"""Work items, the contexts that groups of them share, and their summary for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from llmbatch_assets.domain.canonical import sha1_text
from llmbatch_assets.domain.configuration.parameters import Parameters
from llmbatch_assets.domain.text import visible

PREVIEW_ITEMS = 10
LARGEST_CONTEXTS = 5
SHOWN_CHARS = 60

# Dataclasses with slots although they are stored: pydantic models take ten times the memory, and there are 100,000.


@dataclass(frozen=True, slots=True)
class GroupContext:
    """The text of a group's rows, stored once for all items that refer to it."""

    group_context_id: str
    group_key: str
    context: str
    meta: dict[str, Any]


@dataclass(frozen=True, slots=True)
class WorkItem:
    """One output to be made. ``context`` is the item's own text, without its group's.

    ``label`` is the readable part of its name as the table spells it; empty in files of earlier versions. ``meta`` holds
    the values of the columns that prompts name: under ``columns`` those that ``context`` also shows, and under
    ``hidden_columns`` the others, which are therefore part of the id.
    """

    work_id: str
    partition_key: str
    group_key: str | None
    row_index: int | None
    group_context_id: str | None
    context: str
    meta: dict[str, Any]
    label: str = ""

    @property
    def columns(self) -> dict[str, str]:
        """The values of the columns that prompts name."""
        shown: dict[str, str] = self.meta.get("columns", {})
        return shown | self.hidden_columns

    @property
    def hidden_columns(self) -> dict[str, str]:
        """The values of those that the context does not show."""
        hidden: dict[str, str] = self.meta.get("hidden_columns", {})
        return hidden


@dataclass(frozen=True, slots=True)
class WorkItems:
    """The content of ``pipeline3_work_items.json``."""

    meta: dict[str, Any]
    n_items: int
    n_group_contexts: int
    group_contexts_artifact: str | None
    items: list[WorkItem]


@dataclass(frozen=True, slots=True)
class WorkPlan:
    """All work of a batch: items in output order, and the contexts they refer to."""

    items: list[WorkItem]
    contexts: list[GroupContext]
    warnings: list[str]


class ContextBytes(NamedTuple):
    """Size of the context text, if each item held its own copy and as stored."""

    repeated: int
    stored: int

    @property
    def saved_percent(self) -> float:
        return round(100 * (1 - self.stored / self.repeated), 1) if self.repeated else 0.0


def unresolved(items: Iterable[WorkItem], contexts: Iterable[GroupContext]) -> list[str]:
    """Return the partition keys of items whose group context is missing or does not match its id."""
    known = {one.group_context_id for one in contexts if one.group_context_id == sha1_text(one.context)}
    return [
        item.partition_key for item in items if item.group_context_id is not None and item.group_context_id not in known
    ]


def work_items_of(plan: WorkPlan, parameters: Parameters, contexts_artifact: str) -> WorkItems:
    """Return the items of a plan as they are stored. ``contexts_artifact`` is the file name of the group contexts."""
    grouping = parameters.grouping
    meta = {
        "grouping": {
            "enabled": grouping.enabled,
            "mode": grouping.active_mode.name,
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


def context_bytes(plan: WorkPlan) -> ContextBytes:
    """Measure the context text of a plan in UTF-8 bytes."""
    sizes = {context.group_context_id: len(context.context.encode()) for context in plan.contexts}
    own = sum(len(item.context.encode()) for item in plan.items)
    shared = sum(sizes.get(item.group_context_id or "", 0) for item in plan.items)
    return ContextBytes(own + shared, own + sum(sizes.values()))


def plan_metadata(plan: WorkPlan) -> dict[str, Any]:
    """Return the counts that Dagster shows as metadata of ``work_items``."""
    size = context_bytes(plan)
    parts: list[WorkItem | GroupContext] = [*plan.items, *plan.contexts]
    return {
        "n_items": len(plan.items),
        "n_group_contexts": len(plan.contexts),
        "context_bytes": size.stored,
        "context_bytes_without_sharing": size.repeated,
        "saved_percent": size.saved_percent,
        "contexts_with_cut_fields": sum("truncated_fields" in part.meta for part in parts),
        "cut_contexts": sum("context_truncated" in part.meta for part in parts),
        "groups_with_row_cap": sum(bool(part.meta.get("row_cap_applied")) for part in parts),
        "largest_contexts": _largest(parts),
        "rows_sharing_an_item": sum(len(item.meta.get("shared_row_indices", ())) for item in plan.items),
    }


def _largest(parts: Sequence[WorkItem | GroupContext]) -> str:
    longest = sorted(parts, key=lambda part: (-len(part.context), part.group_key or ""))[:LARGEST_CONTEXTS]
    return ", ".join(f"{_name(part)}: {len(part.context)} characters" for part in longest)


def _name(part: WorkItem | GroupContext) -> str:
    return part.partition_key if isinstance(part, WorkItem) else f"group {part.group_key!r}"


def items_preview(items: Sequence[WorkItem]) -> str:
    """Render the first items as a Markdown table."""
    lines = [
        f"| {'' if item.row_index is None else item.row_index} | `{item.partition_key}` | {len(item.context)} | "
        f"{_code(item.context)} |"
        for item in items[:PREVIEW_ITEMS]
    ]
    return "\n".join(["| row | partition | characters | begins |", "| --- | --- | --- | --- |", *lines])


def _code(text: str) -> str:
    """Render the beginning of a text as inline code, without the characters that would end the code or the cell."""
    shown = visible(" ".join(text.split())[:SHOWN_CHARS]).replace("`", "'").replace("|", "/")
    return f"`{shown}`" if shown else ""
