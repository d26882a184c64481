"""From a snapshot to the work plan: grouped rows, drafts of items, and their ids."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from llmbatch_assets.domain.canonical import sha1_text
from llmbatch_assets.domain.configuration.parameters import Parameters
from llmbatch_assets.domain.items.context import RenderedText, RowRenderer, group_template_mistakes, limit_length
from llmbatch_assets.domain.items.cuts import cut_warnings
from llmbatch_assets.domain.items.identity import partition_key, work_id
from llmbatch_assets.domain.items.table import Snapshot, empty_rows, nearest_first
from llmbatch_assets.domain.items.work import GroupContext, WorkItem, WorkPlan
from llmbatch_assets.domain.prompt import fill_placeholders
from llmbatch_assets.domain.text import composed, counted
from llmbatch_assets.errors import ConfigError, GroupingColumnError

EMPTY_KEY_LABEL = "empty"
MAX_WARNING_EXAMPLES = 5


class ItemDraft(NamedTuple):
    """An item without its ids."""

    group_key: str | None
    row_index: int | None
    group_context_id: str | None
    context: str
    label: str
    meta: dict[str, Any]


# Shared group contexts, and items in output order.
ItemDrafts = tuple[list[GroupContext], Iterator[ItemDraft]]


@dataclass(frozen=True)
class RowGroup:
    """Indices of the rows with the same value in the grouping column. ``shown`` are those within the row cap."""

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


class GroupedTable:
    """A snapshot with the settings of its batch, and the columns that its prompts name. Raises ``GroupingColumnError`` or ``ConfigError``."""

    def __init__(self, snapshot: Snapshot, parameters: Parameters, named: Collection[str] = ()) -> None:
        self.rows = snapshot.rows
        self.parameters = parameters
        self.named = named
        self.row_text = RowRenderer(snapshot.columns, parameters.context, named)
        if mistakes := group_template_mistakes(parameters.context):
            raise ConfigError("\n".join(mistakes))
        # Rows of which no item is made.
        self.skipped = frozenset(empty_rows(snapshot.rows) if parameters.input.skip_empty_rows else ())
        for key, name in named_columns(parameters).items():
            if name and name not in snapshot.columns:
                listed = nearest_first(name, snapshot.columns)
                raise GroupingColumnError(f"{key}: the table has no column {name!r}; it has: {listed}")

    def groups(self) -> list[RowGroup]:
        """Return the groups by first appearance of their keys, each with its rows in table order.

        Keys are compared in Unicode's composed form (NFC). The empty text is a key, too.
        """
        members: dict[str, list[int]] = {}
        for index, row in enumerate(self.rows):
            members.setdefault(composed(row[self.parameters.grouping.column]), []).append(index)
        cap = self.parameters.grouping.max_rows_per_group or None
        return [RowGroup(key, rows, rows[:cap]) for key, rows in members.items()]

    def row_draft(
        self, index: int, rendered: RenderedText, meta: dict[str, Any], shared: GroupContext | None = None
    ) -> ItemDraft:
        """Draft the item of a row. ``shared`` is the context of its group, if the item refers to one."""
        text, cuts, columns = limit_length(rendered, self.parameters.context)
        key, context_id = (shared.group_key, shared.group_context_id) if shared else (None, None)
        own = cuts | self._columns_meta(columns) if columns else cuts
        # Rows with nothing of their own share one dict: there may be 100,000 of them.
        return ItemDraft(key, index, context_id, text, self._label(index, key), meta | own if own else meta)

    def group_draft(self, group: RowGroup, meta: dict[str, Any]) -> ItemDraft:
        """Draft the one item of a group, which shows the group's rows."""
        text, cuts, _ = self._group_text(group, [self.row_text(self.rows[index]) for index in group.shown])
        label = self._label(group.rows[0], group.key)
        # This is the only column with the same value in every row of a group.
        columns = {"columns": {self.parameters.grouping.column: group.key}} if self.named else {}
        return ItemDraft(group.key, None, None, text, label, {**meta, **group.meta, **cuts, **columns})

    def group_context(self, group: RowGroup, texts: Sequence[RenderedText]) -> GroupContext:
        """Return the context that the items of a group share, made from the texts of its shown rows."""
        text, cuts, _ = self._group_text(group, texts)
        meta = {"grouping_column": self.parameters.grouping.column, **group.meta, **cuts}
        return GroupContext(sha1_text(text), group.key, text, meta)

    def _columns_meta(self, columns: Mapping[str, str]) -> dict[str, dict[str, str]]:
        in_full = self.row_text.columns_in_full
        meta: dict[str, dict[str, str]] = {}
        for name, value in columns.items():
            meta.setdefault("columns" if name in in_full else "hidden_columns", {})[name] = value
        return meta

    def _label(self, index: int, group_key: str | None) -> str:
        """Return the beginning of the partition key of an item with this (first) row."""
        column = self.parameters.work_items.label_column
        if column and self.rows[index][column]:
            return self.rows[index][column]
        return EMPTY_KEY_LABEL if group_key == "" else group_key or ""

    def _group_text(self, group: RowGroup, texts: Sequence[RenderedText]) -> RenderedText:
        context = self.parameters.context
        values = {"group_key": group.key, "n_rows": str(len(group.rows))}
        header = fill_placeholders(context.group_header_template, values)
        footer = fill_placeholders(context.group_footer_template, values)
        rows = [f"[{number}]\n{row.text}" for number, row in enumerate(texts, start=1)]
        cut = sorted({name for row in texts for name in row.cuts.get("truncated_fields", ())})
        text = "\n\n".join(part for part in (header, *rows, footer) if part)
        return limit_length(RenderedText(text, {"truncated_fields": cut} if cut else {}), context)


def named_columns(parameters: Parameters) -> dict[str, str]:
    """Return the columns that make and name items, by configuration key. Empty values name none."""
    named = {"work_items.label_column": parameters.work_items.label_column}
    if parameters.grouping.enabled:
        named["grouping.column"] = parameters.grouping.column
    return named


def plan_work(snapshot: Snapshot, parameters: Parameters, named: Collection[str] = ()) -> WorkPlan:
    """Plan all items of a table, in output order. ``named`` are the columns that the prompts name.

    Raises ``GroupingColumnError`` or ``ConfigError``.
    """
    mode = parameters.grouping.active_mode
    table = GroupedTable(snapshot, parameters, named)
    contexts, drafts = mode.draft_items(table)
    identify = _share_duplicates if parameters.work_items.duplicates == "share" else _number_duplicates
    column = named_columns(parameters).get("grouping.column")
    warnings = _group_key_warnings(snapshot, column, table.skipped) if column else []
    items = list(identify(drafts, mode.name, table.skipped))
    if table.skipped:
        used = {item.group_context_id for item in items}
        contexts = [context for context in contexts if context.group_context_id in used]
    return WorkPlan(items, contexts, [*warnings, *cut_warnings(items, contexts, parameters)])


def _group_key_warnings(snapshot: Snapshot, column: str, skipped: frozenset[int]) -> list[str]:
    """Return suspicious values of the grouping column, with examples."""
    keys = [row[column] for row in snapshot.rows]
    empty = [index + 1 for index, key in enumerate(keys) if not key and index not in skipped]
    merged = sorted({key for key in keys if composed(key) != key})
    folded: dict[str, set[str]] = {}
    for key in dict.fromkeys(map(composed, keys)):
        folded.setdefault(" ".join(key.casefold().split()), set()).add(key)
    alike = [" / ".join(map(repr, sorted(same))) for same in folded.values() if len(same) > 1]
    found: list[tuple[Sequence[object], str]] = [
        (empty, f"{counted(len(empty), 'row')} without a value in {column!r}, put into one group; row"),
        (merged, f"{counted(len(merged), 'value')} of {column!r} normalized (Unicode NFC) to find the group"),
        (alike, f"groups of {column!r} that differ only in case or spaces and stay separate"),
    ]
    return [f"{text}: {', '.join(map(str, shown[:MAX_WARNING_EXAMPLES]))}" for shown, text in found if shown]


def _is_skipped(draft: ItemDraft, skipped: frozenset[int]) -> bool:
    """Return whether the item's row is skipped; of a group, all rows."""
    return bool(skipped) and skipped.issuperset(
        draft.meta["row_indices"] if draft.row_index is None else (draft.row_index,)
    )


def _number_duplicates(drafts: Iterable[ItemDraft], mode: str, skipped: frozenset[int]) -> Iterator[WorkItem]:
    """Make an item of every draft. Identical drafts get different ids by an ordinal."""
    seen: dict[str, int] = {}
    for draft in drafts:
        content = _content_id(draft, mode)
        ordinal = seen.get(content, 0)
        # Skipped rows count, so that skipping them does not change the ids of the others.
        seen[content] = ordinal + 1
        if not _is_skipped(draft, skipped):
            yield _item(draft, _content_id(draft, mode, ordinal) if ordinal else content)


def _share_duplicates(drafts: Iterable[ItemDraft], mode: str, skipped: frozenset[int]) -> Iterator[WorkItem]:
    """Make an item of the first of identical drafts; its ``shared_row_indices`` list the rows of the others."""
    rows: dict[str, list[int]] = {}
    first: dict[str, ItemDraft] = {}
    for draft in drafts:
        if _is_skipped(draft, skipped):
            continue
        content = _content_id(draft, mode)
        if first.setdefault(content, draft) is not draft and draft.row_index is not None:
            rows.setdefault(content, []).append(draft.row_index)
    for content, draft in first.items():
        shared = {"shared_row_indices": rows[content]} if content in rows else {}
        yield _item(draft._replace(meta=draft.meta | shared), content)


def _content_id(draft: ItemDraft, mode: str, ordinal: int = 0) -> str:
    hidden = draft.meta.get("hidden_columns")
    return work_id(mode, draft.group_key, draft.context, draft.group_context_id, ordinal, hidden)


def _item(draft: ItemDraft, item_id: str) -> WorkItem:
    return WorkItem(
        work_id=item_id,
        partition_key=partition_key(draft.label, item_id),
        group_key=draft.group_key,
        row_index=draft.row_index,
        group_context_id=draft.group_context_id,
        context=draft.context,
        meta=draft.meta,
        label=draft.label,
    )
