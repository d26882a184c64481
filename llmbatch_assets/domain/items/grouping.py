"""From a snapshot to work items: one function per grouping mode."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from llmbatch_assets.domain.items.context import Rendered, RowRenderer, check_group_templates, limit
from llmbatch_assets.domain.items.identity import group_context_id, partition_key, work_id
from llmbatch_assets.domain.items.table import Snapshot, nearest_first
from llmbatch_assets.domain.items.work import GroupContext, WorkItem, WorkPlan
from llmbatch_assets.domain.parameters import Parameters
from llmbatch_assets.domain.prompt import fill_placeholders
from llmbatch_assets.domain.text import composed, counted
from llmbatch_assets.errors import GroupingColumnError


class Draft(NamedTuple):
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


EMPTY_KEY_LABEL = "empty"
MAX_WARNING_EXAMPLES = 5


class Table:
    """A snapshot seen through the configuration of its batch. Raises ``GroupingColumnError`` or ``ConfigError``."""

    def __init__(self, snapshot: Snapshot, parameters: Parameters) -> None:
        self.rows = snapshot.rows
        self.parameters = parameters
        self.row_text = RowRenderer(snapshot.columns, parameters.context)
        check_group_templates(parameters.context)
        grouping = parameters.grouping
        named = {"work_items.label_column": parameters.work_items.label_column}
        if grouping.enabled:
            named["grouping.column"] = grouping.column
        for key, name in named.items():
            if name and name not in snapshot.columns:
                listed = nearest_first(name, snapshot.columns)
                raise GroupingColumnError(f"{key}: the table has no column {name!r}; it has: {listed}")

    def label(self, index: int, group_key: str | None = None) -> str:
        """What the row's partition key begins with."""
        column = self.parameters.work_items.label_column
        if column and self.rows[index][column]:
            return self.rows[index][column]
        return EMPTY_KEY_LABEL if group_key == "" else group_key or ""

    def groups(self) -> list[Group]:
        """Groups in the order in which their keys are first seen, rows in the order of the table.

        Keys are compared in Unicode's composed form (NFC), in which they look alike if they are alike; an empty one
        is a key, too.
        """
        members: dict[str, list[int]] = {}
        for index, row in enumerate(self.rows):
            members.setdefault(composed(row[self.parameters.grouping.column]), []).append(index)
        cap = self.parameters.grouping.max_rows_per_group or None
        return [Group(key, rows, rows[:cap]) for key, rows in members.items()]

    def group_text(self, group: Group, texts: Sequence[Rendered]) -> Rendered:
        """The texts of all shown rows of a group between its header and footer."""
        context = self.parameters.context
        values = {"group_key": group.key, "n_rows": str(len(group.rows))}
        rows = [f"[{place}]\n{row.text}" for place, row in enumerate(texts, start=1)]
        ends = (
            fill_placeholders(context.group_header_template, values),
            fill_placeholders(context.group_footer_template, values),
        )
        cut = sorted({name for row in texts for name in row.cuts.get("truncated_fields", ())})
        text = "\n\n".join(part for part in (ends[0], *rows, ends[1]) if part)
        return limit(Rendered(text, {"truncated_fields": cut} if cut else {}), context)


def group_key_warnings(snapshot: Snapshot, column: str) -> list[str]:
    """What a user should know about the values of the grouping column, with examples."""
    keys = [row[column] for row in snapshot.rows]
    empty = [number for number, key in enumerate(keys, start=1) if not key]
    merged = sorted({key for key in keys if composed(key) != key})
    folded: dict[str, set[str]] = {}
    for key in dict.fromkeys(map(composed, keys)):
        folded.setdefault(" ".join(key.casefold().split()), set()).add(key)
    alike = [" / ".join(map(repr, sorted(same))) for same in folded.values() if len(same) > 1]
    told: list[tuple[Sequence[object], str]] = [
        (empty, f"{counted(len(empty), 'row')} without a value in {column!r}, taken as one group; row"),
        (merged, f"{counted(len(merged), 'value')} of {column!r} composed (Unicode NFC) to find the group"),
        (alike, f"groups of {column!r} that differ only in case or blanks and stay apart"),
    ]
    return [f"{text}: {', '.join(map(str, found[:MAX_WARNING_EXAMPLES]))}" for found, text in told if found]


def row_wise(table: Table) -> tuple[list[GroupContext], Iterator[Draft]]:
    """One item per row, nothing shared."""

    plain = {"mode": "row_wise"}

    def drafts() -> Iterator[Draft]:
        for index, row in enumerate(table.rows):
            text, cuts = limit(table.row_text(row), table.parameters.context)
            yield Draft(None, index, None, text, table.label(index), plain | cuts if cuts else plain)

    return [], drafts()


def group_output(table: Table) -> tuple[list[GroupContext], Iterator[Draft]]:
    """One item per group, which sees all rows of it."""

    def drafts() -> Iterator[Draft]:
        for group in table.groups():
            text, cuts = table.group_text(group, [table.row_text(table.rows[index]) for index in group.shown])
            meta = {"mode": "group_output", **group.meta, **cuts}
            yield Draft(group.key, None, None, text, table.label(group.rows[0], group.key), meta)

    return [], drafts()


def row_output_with_group_context(table: Table) -> tuple[list[GroupContext], Iterator[Draft]]:
    """One item per row, each of which refers to the one context of its group."""
    texts = [table.row_text(row) for row in table.rows]
    plain = {"mode": "row_output_with_group_context", "deduped_group_context": True}
    contexts: list[GroupContext] = []
    context_of: dict[int, GroupContext] = {}
    for group in table.groups():
        contexts.append(_group_context(table, group, [texts[index] for index in group.shown]))
        context_of |= dict.fromkeys(group.rows, contexts[-1])

    def drafts() -> Iterator[Draft]:
        for index, rendered in enumerate(texts):
            text, cuts = limit(rendered, table.parameters.context)
            context = context_of[index]
            key = context.group_key
            meta = plain | cuts if cuts else plain
            yield Draft(key, index, context.group_context_id, text, table.label(index, key), meta)

    return contexts, drafts()


def _group_context(table: Table, group: Group, texts: Sequence[Rendered]) -> GroupContext:
    text, cuts = table.group_text(group, texts)
    return GroupContext(
        group_context_id=group_context_id(text),
        group_key=group.key,
        context=text,
        meta={"grouping_column": table.parameters.grouping.column, **group.meta, **cuts},
    )


GROUPINGS: dict[str, Callable[[Table], tuple[list[GroupContext], Iterator[Draft]]]] = {
    "row_wise": row_wise,
    "group_output": group_output,
    "row_output_with_group_context": row_output_with_group_context,
}


def plan_work(snapshot: Snapshot, parameters: Parameters) -> WorkPlan:
    """All items of a table, in its order. Raises ``GroupingColumnError`` or ``ConfigError``."""
    mode = parameters.grouping.effective_mode
    contexts, drafts = GROUPINGS[mode](Table(snapshot, parameters))
    identify = _sharing if parameters.work_items.duplicates == "share" else _apart
    column = parameters.grouping.column if parameters.grouping.enabled else ""
    warnings = group_key_warnings(snapshot, column) if column else []
    return WorkPlan(items=list(identify(drafts, mode)), contexts=contexts, warnings=warnings)


def _apart(drafts: Iterable[Draft], mode: str) -> Iterator[WorkItem]:
    """An item for every draft; an ordinal tells identical ones apart."""
    seen: dict[str, int] = {}
    for draft in drafts:
        content = _content_id(draft, mode)
        ordinal = seen.get(content, 0)
        seen[content] = ordinal + 1
        yield _item(draft, _content_id(draft, mode, ordinal) if ordinal else content)


def _sharing(drafts: Iterable[Draft], mode: str) -> Iterator[WorkItem]:
    """An item for the first of identical drafts, which lists the rows of the others."""
    rows: dict[str, list[int]] = {}
    first: dict[str, Draft] = {}
    for draft in drafts:
        content = _content_id(draft, mode)
        if first.setdefault(content, draft) is not draft and draft.row_index is not None:
            rows.setdefault(content, []).append(draft.row_index)
    for content, draft in first.items():
        shared = {"shared_row_indices": rows[content]} if content in rows else {}
        yield _item(draft._replace(meta=draft.meta | shared), content)


def _content_id(draft: Draft, mode: str, ordinal: int = 0) -> str:
    return work_id(mode, draft.group_key, draft.context, draft.group_context_id, ordinal)


def _item(draft: Draft, item_id: str) -> WorkItem:
    return WorkItem(
        work_id=item_id,
        partition_key=partition_key(draft.label, item_id),
        group_key=draft.group_key,
        row_index=draft.row_index,
        group_context_id=draft.group_context_id,
        context=draft.context,
        meta=draft.meta,
    )
