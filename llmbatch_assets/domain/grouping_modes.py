"""Grouping modes: rules that turn the rows of a table into work items.

To add a mode, write a subclass of ``GroupingMode`` and add it to ``GROUPING_MODES``. Other modules ask a mode for its
properties; none compares names.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    # Types only: items are made with the parameters, and the parameters name a mode.
    from llmbatch_assets.domain.items.grouping import GroupedTable, ItemDrafts


class GroupingMode(ABC):
    """One way to make items. ``effect`` describes it in the documentation of ``grouping.mode``."""

    name: ClassVar[str]
    effect: ClassVar[str]
    needs_column: ClassVar[bool] = True
    makes_one_item_per_group: ClassVar[bool] = False
    # Items refer to one stored context per group, which prompts show as {group_context}.
    shares_group_context: ClassVar[bool] = False

    @abstractmethod
    def draft_items(self, table: GroupedTable) -> ItemDrafts:
        """Return the group contexts that items share, and the items in output order."""


class RowWise(GroupingMode):
    name = "row_wise"
    effect = "one item per row"
    needs_column = False

    def draft_items(self, table: GroupedTable) -> ItemDrafts:
        meta = {"mode": self.name}
        return [], (table.row_draft(index, table.row_text(row), meta) for index, row in enumerate(table.rows))


class GroupOutput(GroupingMode):
    name = "group_output"
    effect = "one item per group"
    makes_one_item_per_group = True

    def draft_items(self, table: GroupedTable) -> ItemDrafts:
        return [], (table.group_draft(group, {"mode": self.name}) for group in table.groups())


class RowOutputWithGroupContext(GroupingMode):
    name = "row_output_with_group_context"
    effect = "one item per row, with its group as context"
    shares_group_context = True

    def draft_items(self, table: GroupedTable) -> ItemDrafts:
        texts = [table.row_text(row) for row in table.rows]
        meta = {"mode": self.name, "deduped_group_context": True}
        groups = table.groups()
        contexts = [table.group_context(group, [texts[index] for index in group.shown]) for group in groups]
        context_of = {index: context for group, context in zip(groups, contexts, strict=True) for index in group.rows}
        return contexts, (table.row_draft(index, text, meta, context_of[index]) for index, text in enumerate(texts))


# The mode of a batch with grouping.enabled: false.
UNGROUPED = RowWise()

GROUPING_MODES: dict[str, GroupingMode] = {
    mode.name: mode for mode in (UNGROUPED, GroupOutput(), RowOutputWithGroupContext())
}


def selectable_modes() -> dict[str, GroupingMode]:
    """Return the modes that ``grouping.mode`` may name."""
    return {name: mode for name, mode in GROUPING_MODES.items() if mode is not UNGROUPED}


def modes_with_group_items() -> str:
    """Name the modes that make one item per group, for messages."""
    return " or ".join(name for name, mode in selectable_modes().items() if mode.makes_one_item_per_group)
