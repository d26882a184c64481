"""A work plan for people: how many items, what sharing contexts saves, what was cut, how items look."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from llmbatch_assets.domain.items.work import GroupContext, WorkItem, WorkPlan

PREVIEW_ITEMS = 10
LARGEST_CONTEXTS = 5
SHOWN_CHARS = 60


class Savings(NamedTuple):
    """Bytes of context text: in every item, and stored once."""

    repeated: int
    stored: int

    @property
    def percent(self) -> float:
        """The share of the repeated bytes that is not stored."""
        return round(100 * (1 - self.stored / self.repeated), 1) if self.repeated else 0.0


def savings(plan: WorkPlan) -> Savings:
    """What storing each group's context once saves."""
    sizes = {context.group_context_id: len(context.context.encode()) for context in plan.contexts}
    own = sum(len(item.context.encode()) for item in plan.items)
    repeated = sum(sizes.get(item.group_context_id or "", 0) for item in plan.items)
    return Savings(own + repeated, own + sum(sizes.values()))


def facts(plan: WorkPlan) -> dict[str, Any]:
    """Counts of a plan, by the names under which Dagster shows them."""
    saved = savings(plan)
    everything: list[WorkItem | GroupContext] = [*plan.items, *plan.contexts]
    return {
        "n_items": len(plan.items),
        "n_group_contexts": len(plan.contexts),
        "context_bytes": saved.stored,
        "context_bytes_without_sharing": saved.repeated,
        "saved_percent": saved.percent,
        "contexts_with_cut_fields": sum("truncated_fields" in part.meta for part in everything),
        "cut_contexts": sum("context_truncated" in part.meta for part in everything),
        "groups_with_row_cap": sum(bool(part.meta.get("row_cap_applied")) for part in everything),
        "largest_contexts": _largest(everything),
        "rows_sharing_an_item": sum(len(item.meta.get("shared_row_indices", ())) for item in plan.items),
    }


def _largest(parts: Sequence[WorkItem | GroupContext]) -> str:
    longest = sorted(parts, key=lambda part: (-len(part.context), part.group_key or ""))[:LARGEST_CONTEXTS]
    return ", ".join(f"{_name(part)}: {len(part.context)} characters" for part in longest)


def _name(part: WorkItem | GroupContext) -> str:
    return part.partition_key if isinstance(part, WorkItem) else f"group {part.group_key!r}"


def preview(items: Sequence[WorkItem]) -> str:
    """The first items as a Markdown table."""
    lines = [
        f"| {'' if item.row_index is None else item.row_index} | `{item.partition_key}` | {len(item.context)} | "
        f"{_cell(item.context)} |"
        for item in items[:PREVIEW_ITEMS]
    ]
    return "\n".join(["| row | partition | characters | begins |", "| --- | --- | --- | --- |", *lines])


def _cell(text: str) -> str:
    """The beginning of a text as code in a table: pipes and backticks would end one or the other."""
    shown = " ".join(text.split())[:SHOWN_CHARS].replace("`", "'").replace("|", "/")
    return f"`{shown}`" if shown else ""
