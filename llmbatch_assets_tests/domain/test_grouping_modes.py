"""A new grouping mode is one class and one registry entry; everything else follows its properties."""

from __future__ import annotations

import re
from typing import Any

import pytest
from pydantic import ValidationError

from llmbatch_assets.domain.configuration.key_mistakes import parameter_mistakes
from llmbatch_assets.domain.configuration.parameters import read_parameters
from llmbatch_assets.domain.export.records import Join, export_warnings
from llmbatch_assets.domain.grouping_modes import GROUPING_MODES, UNGROUPED, GroupingMode, selectable_modes
from llmbatch_assets.domain.items.grouping import GroupedTable, ItemDrafts, plan_work
from llmbatch_assets.domain.mistakes import column_mistakes
from llmbatch_assets.domain.prompt import PromptTemplate
from llmbatch_assets.domain.prompt_warnings import placeholder_warnings
from llmbatch_assets_tests.domain.strategies import parameters, snapshot

ROWS = [("1", "red", "How tall?"), ("2", "blue", "Who?"), ("3", "red", "Why?")]
PROMPT = PromptTemplate(path="prompts/p.yaml", user="{group_context} {row}")
EXPLODE = {"list": "answers", "item_key": "row", "input_column": "id"}


class FirstRowWithGroupContext(GroupingMode):
    """One item per group: its first row, with the shared context of the group."""

    name = "first_row_with_group_context"
    effect = "one item per group that shows its first row"
    makes_one_item_per_group = True
    shares_group_context = True

    def draft_items(self, table: GroupedTable) -> ItemDrafts:
        groups = table.groups()
        contexts = [
            table.group_context(group, [table.row_text(table.rows[index]) for index in group.shown]) for group in groups
        ]
        drafts = (
            table.row_draft(group.rows[0], table.row_text(table.rows[group.rows[0]]), {"mode": self.name}, context)
            for group, context in zip(groups, contexts, strict=True)
        )
        return contexts, drafts


class EveryOtherRow(GroupingMode):
    """One item per pair of rows, without a grouping column."""

    name = "every_other_row"
    effect = "one item per two rows"
    needs_column = False

    def draft_items(self, table: GroupedTable) -> ItemDrafts:
        indices = range(0, len(table.rows), 2)
        return [], (table.row_draft(index, table.row_text(table.rows[index]), {"mode": self.name}) for index in indices)


@pytest.fixture(params=[FirstRowWithGroupContext(), EveryOtherRow()], ids=lambda mode: mode.name)
def added(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> GroupingMode:
    mode: GroupingMode = request.param
    monkeypatch.setitem(GROUPING_MODES, mode.name, mode)
    return mode


def settings_of(mode: GroupingMode, **outputs: Any) -> dict[str, Any]:
    return {"grouping": {"enabled": True, "column": "team", "mode": mode.name}, "outputs": outputs}


def test_an_added_mode_plans_a_table(added: GroupingMode) -> None:
    plan = plan_work(snapshot(ROWS), parameters(**settings_of(added)))
    assert [item.row_index for item in plan.items] == ([0, 1] if added.shares_group_context else [0, 2])
    assert bool(plan.contexts) == added.shares_group_context
    assert {item.meta["mode"] for item in plan.items} == {added.name}
    assert len({item.work_id for item in plan.items}) == len(plan.items)


def test_warnings_about_an_added_mode_follow_its_properties(added: GroupingMode) -> None:
    read = parameters(**settings_of(added, explode=EXPLODE))
    assert (list(placeholder_warnings(PROMPT, read)) == []) == added.shares_group_context
    assert (export_warnings(read) == []) == added.makes_one_item_per_group
    assert column_mistakes(["id", "team", "text"], read) == []


def test_an_added_mode_is_exported_by_its_properties(added: GroupingMode) -> None:
    join = Join.of(snapshot(ROWS), parameters(**settings_of(added, explode=EXPLODE)))
    assert join.mode == ("explode" if added.makes_one_item_per_group else "rows")


def test_an_added_mode_needs_a_column_only_where_it_says_so(added: GroupingMode) -> None:
    content = {"grouping": {"enabled": True, "mode": added.name}}
    if not added.needs_column:
        assert read_parameters(content).grouping.active_mode is added
        return
    with pytest.raises(ValidationError, match=r"grouping\.column must name a column"):
        read_parameters(content)


def test_an_added_mode_is_offered_to_users(added: GroupingMode) -> None:
    with pytest.raises(ValidationError, match=re.escape(added.name)):
        read_parameters({"grouping": {"mode": "nothing like it"}})


def test_an_unknown_mode_is_answered_with_the_known_ones_and_the_nearest() -> None:
    with pytest.raises(ValidationError) as refused:
        read_parameters({"grouping": {"mode": "group_outputs"}})
    assert parameter_mistakes(refused.value, "c.yaml") == [
        (
            "c.yaml: grouping.mode: must be group_output or row_output_with_group_context; did you mean group_output? "
            "(found 'group_outputs')"
        )
    ]


def test_the_mode_without_groups_is_not_chosen_by_name() -> None:
    assert UNGROUPED.name not in selectable_modes()
    with pytest.raises(ValidationError):
        read_parameters({"grouping": {"mode": UNGROUPED.name}})
