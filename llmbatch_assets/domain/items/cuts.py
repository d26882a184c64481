"""Warnings about text that the model does not see because of limits: truncated contexts and values, and omitted rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from llmbatch_assets.domain.configuration.parameters import Parameters
from llmbatch_assets.domain.items.work import GroupContext, WorkItem
from llmbatch_assets.domain.text import counted

MAX_SHOWN = 5

Part = WorkItem | GroupContext


def cut_warnings(items: Sequence[WorkItem], contexts: Sequence[GroupContext], parameters: Parameters) -> Iterator[str]:
    """Yield a warning for each setting that cuts something, with the affected items or groups."""
    for parts in (items, contexts):
        cut = [part for part in parts if "context_truncated" in part.meta]
        if cut:
            yield (
                f"context.max_context_chars ({parameters.context.max_context_chars}) cuts the text of {_share(cut, parts)}: the model "
                "does not see the rest; raise it, or set 0 for no limit"
            )
    yield from _cut_values(items, parameters)
    groups: Sequence[Part] = contexts or items
    capped = [part for part in groups if part.meta.get("row_cap_applied")]
    if capped:
        left_out = sum(part.meta["n_rows_total"] - part.meta["n_rows_used"] for part in capped)
        yield (
            f"grouping.max_rows_per_group ({parameters.grouping.max_rows_per_group}) leaves {counted(left_out, 'row')} out of "
            f"{_share(capped, groups)}; raise it, or set 0 for no limit"
        )


def _cut_values(items: Sequence[WorkItem], parameters: Parameters) -> Iterator[str]:
    cut = [item for item in items if "truncated_fields" in item.meta]
    if cut:
        columns = dict.fromkeys(name for item in cut for name in item.meta["truncated_fields"])
        named = ", ".join(map(repr, list(columns)[:MAX_SHOWN])) + (", ..." if len(columns) > MAX_SHOWN else "")
        yield (
            f"context.truncate_field_chars ({parameters.context.truncate_field_chars}) cuts values of {named} in "
            f"{_share(cut, items)}: the model does not see the rest; raise it, or set 0 for no limit"
        )


def _share(some: Sequence[Part], of: Sequence[Part]) -> str:
    """Return how many of the items or groups are affected, and which."""
    noun = "group" if isinstance(of[0], GroupContext) or of[0].row_index is None else "item"
    more = ", ..." if len(some) > MAX_SHOWN else ""
    return f"{len(some):,} of {counted(len(of), noun)} ({', '.join(map(_name, some[:MAX_SHOWN]))}{more})"


def _name(part: Part) -> str:
    if isinstance(part, WorkItem) and part.row_index is not None:
        return f"row {part.row_index + 1}"
    return repr(part.group_key)
