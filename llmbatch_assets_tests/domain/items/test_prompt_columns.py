"""Columns that prompts name: the values that items keep, the parts of their ids, and mistakes in names."""

from __future__ import annotations

from typing import Any

import pytest

from llmbatch_assets.domain.items.grouping import plan_work
from llmbatch_assets.domain.items.prompt_columns import (
    check_prompts,
    columns_of_prompts,
    items_without_values,
    missing_columns,
)
from llmbatch_assets.domain.items.work import WorkItem
from llmbatch_assets.domain.prompt import PromptTemplate
from llmbatch_assets.errors import PromptError
from llmbatch_assets_tests.domain.strategies import parameters, snapshot

COLUMNS = ["a", "b c", "team"]
ROWS = [["1", "x", "red"], ["2", "y", "red"], ["1", "z", "blue"]]
SHOWN = {"columns": {"mode": "include", "include": ["a"]}}


def prompt(user: str) -> PromptTemplate:
    return PromptTemplate(path="p.yaml", user=user)


def items(*named: str, rows: list[list[str]] = ROWS, **blocks: Any) -> list[WorkItem]:
    return plan_work(snapshot(rows, COLUMNS), parameters(**blocks), named).items


def ids(*named: str, **blocks: Any) -> list[str]:
    return [item.work_id for item in items(*named, **blocks)]


def test_items_keep_the_values_of_named_columns_only() -> None:
    assert [item.columns for item in items("b c")] == [{"b c": "x"}, {"b c": "y"}, {"b c": "z"}]
    assert [item.meta for item in items()] == [{"mode": "row_wise"}] * 3


def test_a_column_that_the_context_shows_does_not_change_the_ids() -> None:
    assert ids("a", "b c") == ids()
    assert ids("a", context=SHOWN) == ids(context=SHOWN)


@pytest.mark.parametrize(
    "context",
    [
        SHOWN,
        # The text may be cut before the value, or not show where it begins.
        {"max_context_chars": 1_000},
        {"row_template": "{a}{b_c}", "auto_kv_block": False},
    ],
)
def test_a_column_that_the_context_does_not_show_in_full_is_part_of_the_id(context: dict[str, Any]) -> None:
    before = ids("b c", context=context)
    edited = [[*ROWS[0][:1], "other", "red"], *ROWS[1:]]
    after = ids("b c", context=context, rows=edited)
    assert (before[0] != after[0], before[1:] == after[1:]) == (True, True)
    assert set(before).isdisjoint(ids(context=context))


def test_rows_that_differ_in_a_hidden_column_are_no_duplicates() -> None:
    shared = {"duplicates": "share"}
    assert len(items(context=SHOWN, work_items=shared)) == 2
    assert len(items("b c", context=SHOWN, work_items=shared)) == 3


def test_values_are_cut_as_in_the_row() -> None:
    (item,) = items("b c", rows=[["1", "long value", "red"]], context={"truncate_field_chars": 4, **SHOWN})
    assert item.columns == {"b c": "long …[cut]"}
    assert item.meta["truncated_fields"] == ["b c"]


def test_an_item_of_a_group_has_its_key_only() -> None:
    grouping = {"enabled": True, "column": "team", "mode": "group_output"}
    assert [item.columns for item in items("team", grouping=grouping)] == [{"team": "red"}, {"team": "blue"}]
    assert ids("team", grouping=grouping) == ids(grouping=grouping)


def test_mistakes_of_prompts_are_left_to_their_check() -> None:
    read = parameters(context={"columns": {"exclude": ["team"]}})
    assert columns_of_prompts(prompt('{"b c"} {b_c} {context} {none} {team}'), None, COLUMNS, read) == ["b c"]
    assert columns_of_prompts(prompt("{row}"), prompt("{a}"), COLUMNS, read) == ["a"]
    with pytest.raises(PromptError) as reported:
        check_prompts(prompt("{none} {team}"), prompt("{b_c} {nothing}"), ["b c", "b-c", "team"], read)
    told = str(reported.value).splitlines()
    assert [line.split(":")[0] for line in told] == ["p.yaml"] * 4
    assert "{team} is excluded" in told[0]
    assert "unknown placeholder {none}" in told[1]
    assert "{team}" not in told[1]
    assert told[2].startswith("p.yaml: {b_c} can stand for any of the columns 'b c', 'b-c'; write one of: {\"b c\"}")
    assert "unknown placeholder {nothing}" in told[3]


def test_a_built_in_name_goes_before_a_column_of_that_name() -> None:
    assert columns_of_prompts(prompt("{row}"), None, ["row"], parameters()) == []
    assert columns_of_prompts(prompt('{"row"}'), None, ["row"], parameters()) == ["row"]
    # Only the judge knows the output.
    assert columns_of_prompts(prompt("{output_json}"), None, ["output_json"], parameters()) == ["output_json"]
    assert columns_of_prompts(prompt("x"), prompt("{output_json}"), ["output_json"], parameters()) == []


def test_items_lack_the_columns_that_prompts_name_since() -> None:
    made = items("a")
    assert missing_columns(prompt("{a} {context}"), prompt("{output_json}"), made) == []
    assert missing_columns(prompt('{a} {"b c"}'), prompt("{team}"), made) == ['"b c"', "team"]


def test_a_prompt_that_shows_only_empty_columns_asks_about_nothing() -> None:
    made = items("a", "b c", rows=[["", "", "red"], ["", "x", "red"]])
    assert items_without_values(prompt("{a} {b_c}"), made) == made[:1]
    assert items_without_values(prompt("{a} {b_c} {row}"), made) == []
