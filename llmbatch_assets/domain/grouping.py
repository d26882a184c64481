"""From a snapshot to work items: one function per grouping mode."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from llmbatch_assets.domain.context import Rendered, check_row_template, limit, render_row, shown_columns
from llmbatch_assets.domain.identity import group_context_id, partition_key, work_id
from llmbatch_assets.domain.parameters import Parameters
from llmbatch_assets.domain.prompt import fill
from llmbatch_assets.domain.table import Snapshot
from llmbatch_assets.domain.work import GroupContext, WorkItem, WorkPlan
from llmbatch_assets.errors import GroupingColumnError


@dataclass(frozen=True)
class Draft:
    """An item before it has an id."""

    group_key: str | None
    row_index: int | None
    group_context_id: str | None
    context: str
    label: str
    meta: dict[str, Any]


@dataclass(frozen=True)
class Group:
    """Rows with the same value in the grouping column, by their indices; and those of them that are shown."""

    key: str
    rows: list[int]
    shown: list[int]

    @property
    def meta(self) -> dict[str, Any]:
        return {
            "n_rows_total": len(self.rows),
            "n_rows_used": len(self.shown),
            "row_cap_applied": len(self.shown) < len(self.rows),
            "row_indices": self.rows,
        }


class Table:
    """A snapshot seen through the configuration of its batch."""

    def __init__(self, snapshot: Snapshot, parameters: Parameters) -> None:
        self.rows = snapshot.rows
        self.parameters = parameters
        self.shown = shown_columns(snapshot.columns, parameters.context)
        check_row_template(snapshot.columns, parameters.context)
        grouping = parameters.grouping
        for name in (grouping.column if grouping.enabled else "", parameters.work_items.label_column):
            if name and name not in snapshot.columns:
                raise GroupingColumnError(_no_column(name, snapshot.columns))

    def row_text(self, index: int) -> Rendered:
        """The row as the model sees it."""
        return render_row(self.rows[index], self.shown, self.parameters.context)

    def label(self, index: int, otherwise: str = "") -> str:
        """What the row's partition key begins with."""
        column = self.parameters.work_items.label_column
        return self.rows[index][column] if column else otherwise

    def groups(self) -> list[Group]:
        """Groups in the order in which their keys are first seen, rows in the order of the table."""
        members: dict[str, list[int]] = {}
        for index, row in enumerate(self.rows):
            members.setdefault(row[self.parameters.grouping.column], []).append(index)
        cap = self.parameters.grouping.max_rows_per_group or None
        return [Group(key, rows, rows[:cap]) for key, rows in members.items()]

    def group_text(self, group: Group) -> Rendered:
        """All shown rows of a group between its header and footer."""
        context = self.parameters.context
        values = {"group_key": group.key, "n_rows": str(len(group.rows))}
        texts = [self.row_text(index) for index in group.shown]
        rows = [f"[{place}]\n{row.text}" for place, row in enumerate(texts, start=1)]
        ends = (fill(context.group_header_template, values), fill(context.group_footer_template, values))
        cut = sorted({name for row in texts for name in row.cuts.get("truncated_fields", [])})
        cuts = {"truncated_fields": cut} if cut else {}
        return limit(Rendered("\n\n".join(part for part in (ends[0], *rows, ends[1]) if part), cuts), context)


def _no_column(name: str, columns: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, columns, n=len(columns), cutoff=0.5)
    ordered = [*near, *(column for column in columns if column not in near)]
    return f"the table has no column {name!r}; it has: {', '.join(ordered)}"


def row_wise(table: Table) -> tuple[list[GroupContext], Iterator[Draft]]:
    """One item per row, nothing shared."""

    def drafts() -> Iterator[Draft]:
        for index in range(len(table.rows)):
            text, cuts = limit(table.row_text(index), table.parameters.context)
            yield Draft(None, index, None, text, table.label(index), {"mode": "row_wise", **cuts})

    return [], drafts()


def group_output(table: Table) -> tuple[list[GroupContext], Iterator[Draft]]:
    """One item per group, which sees all rows of it."""

    def drafts() -> Iterator[Draft]:
        for group in table.groups():
            text, cuts = table.group_text(group)
            meta = {"mode": "group_output", **group.meta, **cuts}
            yield Draft(group.key, None, None, text, table.label(group.rows[0], group.key), meta)

    return [], drafts()


def row_output_with_group_context(table: Table) -> tuple[list[GroupContext], Iterator[Draft]]:
    """One item per row, each of which refers to the one context of its group."""
    column = table.parameters.grouping.column
    contexts = [_group_context(table, group, column) for group in table.groups()]
    by_key = {context.group_key: context.group_context_id for context in contexts}

    def drafts() -> Iterator[Draft]:
        for index, row in enumerate(table.rows):
            key = row[column]
            text, cuts = limit(table.row_text(index), table.parameters.context)
            meta = {"mode": "row_output_with_group_context", "deduped_group_context": True, **cuts}
            yield Draft(key, index, by_key[key], text, table.label(index, key), meta)

    return contexts, drafts()


def _group_context(table: Table, group: Group, column: str) -> GroupContext:
    text, cuts = table.group_text(group)
    return GroupContext(
        group_context_id=group_context_id(text),
        group_key=group.key,
        context=text,
        meta={"grouping_column": column, **group.meta, **cuts},
    )


GROUPINGS: dict[str, Callable[[Table], tuple[list[GroupContext], Iterator[Draft]]]] = {
    "row_wise": row_wise,
    "group_output": group_output,
    "row_output_with_group_context": row_output_with_group_context,
}


def make_plan(snapshot: Snapshot, parameters: Parameters) -> WorkPlan:
    """All items of a table, in its order. Raises ``GroupingColumnError`` or ``ConfigError``."""
    mode = parameters.grouping.effective_mode
    contexts, drafts = GROUPINGS[mode](Table(snapshot, parameters))
    return WorkPlan(items=list(_identified(drafts, mode, parameters.work_items.duplicates)), contexts=contexts)


def _identified(drafts: Iterable[Draft], mode: str, duplicates: str) -> Iterator[WorkItem]:
    """Items with ids. Shared duplicates are one item: the first, which lists the rows of the others."""
    seen: Counter[str] = Counter()
    shared: dict[str, list[int]] = {}
    for draft in drafts:
        content = work_id(mode, draft.group_key, draft.context, draft.group_context_id, 0)
        ordinal, seen[content] = seen[content], seen[content] + 1
        if duplicates == "share" and ordinal:
            shared[content].append(draft.row_index or 0)
            continue
        item_id = work_id(mode, draft.group_key, draft.context, draft.group_context_id, ordinal) if ordinal else content
        meta = draft.meta
        if duplicates == "share":
            meta = meta | {"shared_row_indices": shared.setdefault(content, [])}
        yield WorkItem(
            work_id=item_id,
            partition_key=partition_key(draft.label, item_id),
            group_key=draft.group_key,
            row_index=draft.row_index,
            group_context_id=draft.group_context_id,
            context=draft.context,
            meta=meta,
        )
