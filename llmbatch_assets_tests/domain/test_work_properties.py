"""Properties of plans and ids over exotic tables: nothing is lost, and only what must change does."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from llmbatch_assets.domain.configuration.input_blocks import Context, Input
from llmbatch_assets.domain.grouping_modes import GROUPING_MODES
from llmbatch_assets.domain.items.context import RowRenderer
from llmbatch_assets.domain.items.grouping import plan_work
from llmbatch_assets.domain.items.identity import work_id
from llmbatch_assets.domain.items.table import RawTable, Snapshot, clean_columns, take_snapshot
from llmbatch_assets.domain.items.work import WorkItem, WorkPlan
from llmbatch_assets.domain.request import item_values
from llmbatch_assets.errors import TableError
from llmbatch_assets_tests.domain.strategies import (
    COLUMNS,
    EXOTIC,
    EXOTIC_ROWS,
    KEYS,
    PARAGRAPHS,
    ROW_MODES,
    parameters,
    quick,
)

Rows = Sequence[Sequence[str]]
Groups = dict[str, list[int]]

# Line breaks that a value may contain.
LINE_END = r"(?>\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029])"


def cleaned(rows: Rows, columns: Sequence[str] = COLUMNS) -> Snapshot:
    """Return the snapshot as planned, with its line breaks."""
    return take_snapshot(RawTable(columns, rows, "csv"), "t.csv", Input(collapse_whitespace=False))


def plan(mode: str, rows: Rows, **blocks: dict[str, Any]) -> WorkPlan:
    """The plan of a table in a mode."""
    return plan_work(cleaned(rows), parameters(grouping=ROW_MODES[mode] | blocks.pop("grouping", {}), **blocks))


def groups_of(rows: Rows) -> Groups:
    """Return the groups in order of appearance with their rows; keys count as different if they look different."""
    members: Groups = {}
    for index, row in enumerate(cleaned(rows).rows):
        members.setdefault(unicodedata.normalize("NFC", row["team"]), []).append(index)
    return members


def rows_of(item: WorkItem) -> list[int]:
    """All rows that an item stands for."""
    indices = item.meta["row_indices"] if item.row_index is None else [item.row_index]
    return [*indices, *item.meta.get("shared_row_indices", [])]


# Placement of rows.


def row_text(row: dict[str, str]) -> str:
    """Render a row without using the package."""
    return "\n".join(re.sub(f"({LINE_END})", r"\1  ", f"{name}: {value}".rstrip()) for name, value in row.items())


def plain(mode: str, rows: Rows, cap: int) -> list[tuple[list[int], str | None, str]]:
    """What each item would be if nothing were stored apart: its rows, its group, and all that the model sees."""
    texts = [row_text(row) for row in cleaned(rows).rows]
    groups = groups_of(rows)
    shown = {
        key: "\n\n".join(
            [f"{key} ({len(members)} rows)"]
            + [f"[{place}]\n{texts[index]}" for place, index in enumerate(members[: cap or None], start=1)]
        )
        for key, members in groups.items()
    }
    key_of = {index: key for key, members in groups.items() for index in members}
    modes: dict[str, list[tuple[list[int], str | None, str]]] = {
        "row_wise": [([index], None, text) for index, text in enumerate(texts)],
        "group_output": [(members, key, shown[key]) for key, members in groups.items()],
        "row_output_with_group_context": [
            ([index], key_of[index], f"{shown[key_of[index]]}\n\nThis item's own row:\n{text}")
            for index, text in enumerate(texts)
        ],
    }
    return modes[mode]


@pytest.mark.parametrize("mode", GROUPING_MODES)
@quick
@given(rows=EXOTIC_ROWS, cap=st.integers(0, 3))
def test_a_plan_expands_to_what_each_item_would_show_alone(mode: str, rows: Rows, cap: int) -> None:
    made = plan(mode, rows, grouping={"max_rows_per_group": cap})
    texts = {context.group_context_id: context.context for context in made.contexts}
    expanded = [
        (rows_of(item), item.group_key, item_values(item, texts.get(item.group_context_id or ""))["context"])
        for item in made.items
    ]
    assert expanded == plain(mode, rows, cap)
    assert [context.group_key for context in made.contexts] in ([], list(groups_of(rows)))
    # No context is stored that nothing refers to.
    assert texts.keys() == {item.group_context_id for item in made.items} - {None}


@pytest.mark.parametrize("mode", GROUPING_MODES)
@quick
@given(rows=st.lists(st.tuples(st.just("1"), KEYS, st.sampled_from(["x", "y"])), max_size=8))
def test_identical_rows_are_separate_items_or_share_one_and_none_is_lost(mode: str, rows: Rows) -> None:
    separate, shared = (plan(mode, rows, work_items={"duplicates": kind}).items for kind in ("separate", "share"))
    for items in (separate, shared):
        assert sorted(index for item in items for index in rows_of(item)) == list(range(len(rows)))
        assert len({item.work_id for item in items}) == len(items)
    said = [(item.group_key, item.context) for item in separate]
    assert [(item.group_key, item.context) for item in shared] == list(dict.fromkeys(said))
    assert {item.work_id for item in shared} <= {item.work_id for item in separate}
    contents = cleaned(rows).rows
    for item in shared:
        if item.row_index is not None:
            assert all(contents[index] == contents[item.row_index] for index in rows_of(item))


# Changes that keep ids.


def ids_of(made: WorkPlan, rows: Rows, but: str = "") -> dict[tuple[tuple[str, ...], ...], set[str]]:
    """Ids of the items by what their rows say, without those of the team ``but``."""
    contents = [tuple(row.values()) for row in cleaned(rows).rows]
    ids: dict[tuple[tuple[str, ...], ...], set[str]] = {}
    for item in made.items:
        said = tuple(contents[index] for index in rows_of(item))
        if not but or said[0][1] != but:
            ids.setdefault(said, set()).add(item.work_id)
    return ids


@pytest.mark.parametrize("mode", GROUPING_MODES)
@quick
@given(rows=EXOTIC_ROWS, others=EXOTIC_ROWS)
def test_planning_again_gives_the_same_plan(mode: str, rows: Rows, others: Rows) -> None:
    first = plan(mode, rows)
    plan(mode, others)
    assert plan(mode, [list(row) for row in rows]) == first


@pytest.mark.parametrize("mode", GROUPING_MODES)
@pytest.mark.parametrize("columns", [{"exclude": ["id"]}, {"mode": "include", "include": ["text"]}])
@quick
@given(rows=EXOTIC_ROWS, data=st.data())
def test_a_column_that_is_not_shown_is_in_no_id(
    mode: str, columns: dict[str, Any], rows: Rows, data: st.DataObject
) -> None:
    changed = [(data.draw(EXOTIC), *row[1:]) for row in rows]
    context = {"columns": columns}
    assert plan(mode, changed, context=context) == plan(mode, rows, context=context)


@pytest.mark.parametrize("mode", GROUPING_MODES)
@quick
@given(rows=EXOTIC_ROWS, others=st.tuples(EXOTIC_ROWS, EXOTIC_ROWS), data=st.data())
def test_whatever_happens_in_other_groups_leaves_ids_as_they_are(
    mode: str, rows: Rows, others: tuple[Rows, Rows], data: st.DataObject
) -> None:
    tables: list[list[Sequence[str]]] = []
    for rest in others:
        # The rows keep their order within the groups, at arbitrary places.
        left: list[list[Sequence[str]]] = [[*rows], [("other", "other", row[2]) for row in rest]]
        turns = data.draw(st.permutations([0] * len(left[0]) + [1] * len(left[1])))
        tables.append([left[turn].pop(0) for turn in turns])
    before, after = (ids_of(plan(mode, table), table, but="other") for table in tables)
    assert before == after


@pytest.mark.parametrize("mode", GROUPING_MODES)
@quick
@given(rows=EXOTIC_ROWS, data=st.data())
def test_rows_that_move_keep_their_ids(mode: str, rows: Rows, data: st.DataObject) -> None:
    queues = {key: [rows[index] for index in members] for key, members in groups_of(rows).items()}
    turns = data.draw(st.permutations([key for key, queue in queues.items() for _ in queue]))
    # A single row may move anywhere; the text of a group depends on the order of its rows.
    moved = data.draw(st.permutations(rows)) if mode == "row_wise" else [queues[key].pop(0) for key in turns]
    assert ids_of(plan(mode, moved), moved) == ids_of(plan(mode, rows), rows)


# Changes that give new ids.


def test_an_id_is_another_if_any_part_of_it_is() -> None:
    keys, contexts = (None, "", "a", "ab", "None", "null"), ("", "a", "b", "ab", '"', "0")
    parts = list(product(GROUPING_MODES, keys, contexts, (None, "", "a", "b"), (0, 1, 10)))
    assert len({work_id(*each) for each in parts}) == len(parts)


# The items that a change in a row reaches.
REACHED: dict[str, Callable[[Groups, int], set[int]]] = {
    "row_wise": lambda groups, index: {index},
    "group_output": lambda groups, index: {place for place, members in enumerate(groups.values()) if index in members},
    "row_output_with_group_context": lambda groups, index: {
        member for members in groups.values() if index in members for member in members
    },
}


@pytest.mark.parametrize("mode", GROUPING_MODES)
@quick
@given(rows=EXOTIC_ROWS, index=st.integers(0, 7))
def test_a_change_in_a_row_changes_exactly_the_items_that_see_it(mode: str, rows: Rows, index: int) -> None:
    assume(index < len(rows))
    # Numbered, so that no row is another's duplicate.
    numbered = [(str(number), *row[1:]) for number, row in enumerate(rows)]
    changed = [(*row[:2], f"{row[2]} changed") if number == index else row for number, row in enumerate(numbered)]
    before, after = (plan(mode, table).items for table in (numbered, changed))
    differing = {
        place for place, pair in enumerate(zip(before, after, strict=True)) if len({i.work_id for i in pair}) > 1
    }
    assert differing == REACHED[mode](groups_of(rows), index)


@pytest.mark.parametrize("mode", [mode for mode in GROUPING_MODES if mode != "row_wise"])
@quick
@given(rows=EXOTIC_ROWS)
def test_a_group_of_another_name_has_other_ids_even_if_the_name_is_not_shown(mode: str, rows: Rows) -> None:
    renamed = [(first, f"new {key}", text) for first, key, text in rows]
    context = {"columns": {"exclude": ["team"]}, "group_header_template": ""}
    before, after = (plan(mode, table, context=context).items for table in (rows, renamed))
    assert [item.context for item in before] == [item.context for item in after]
    assert not {item.work_id for item in before} & {item.work_id for item in after}


# Outputs that people paid for are found by these. A change here is a new IDENTITY_VERSION.
EXOTIC_TABLE = (
    ("1", "caf\u00e9", "=SUM(A1)\n\ntext: no column"),
    ("2", "", 'שלום | 👩\u200d💻, "so"\\n'),
    ("3", "cafe\u0301", "a\tb\r\nc"),
    ("3", "cafe\u0301", "a\tb\r\nc"),
)
GOLDEN = {
    "row_wise": [
        "e35f386a95ff484f7e72aeabaa8d6286c3dcc1d3",
        "21cd644ab9ec22bfea9c9543c75813dc0929f921",
        "0de0ac937ce2962de515c19f534ed6314e5d281a",
        "f68a2ab709a8aada41c1fa810abde15f37b44f04",
    ],
    "group_output": [
        "14c5a7b0f6bb58996b176733244375d61f006be4",
        "1f1c109610a99170f13ca52d5bc8e9fb4797606c",
    ],
    "row_output_with_group_context": [
        "ac1a57ecaa308f23a3dcf14e5c9310f991417d43",
        "1d8480ae46fd59514b8b514b791062d665cedb88",
        "d9c0b21aa53093899d19d45cbbebade9478ff8cb",
        "9a4719709bf7b769a06e45fa35437c51f2240e56",
    ],
}


@pytest.mark.parametrize("mode", GROUPING_MODES)
def test_the_ids_of_an_exotic_table_are_a_contract(mode: str) -> None:
    assert [item.work_id for item in plan(mode, EXOTIC_TABLE).items] == GOLDEN[mode]


# The text of a row.


def blocks(text: str) -> list[str]:
    """Lines, each with those that continue it."""
    return [re.sub(f"({LINE_END})  ", r"\1", block) for block in re.split(f"{LINE_END}(?!  )", text)]


def usable(name: str) -> bool:
    try:
        return clean_columns([name], "t.csv") == [name]
    except TableError:
        return False


NAMES = st.lists(EXOTIC.filter(usable), min_size=1, max_size=4, unique=True)


@quick
@given(columns=NAMES, data=st.data())
def test_a_rendered_row_can_be_read_back_with_its_columns(columns: list[str], data: st.DataObject) -> None:
    row = cleaned([[data.draw(PARAGRAPHS) for _ in columns]], columns).rows[0]
    named = zip(columns, blocks(RowRenderer(columns, Context())(row).text), strict=True)
    assert {name: block.removeprefix(f"{name}:").removeprefix(" ") for name, block in named} == row


@quick
@given(columns=NAMES, data=st.data())
def test_a_row_shows_its_columns_unless_a_name_contains_a_colon_and_a_space(
    columns: list[str], data: st.DataObject
) -> None:
    assume(not any(": " in name for name in columns))
    row = cleaned([[data.draw(PARAGRAPHS) for _ in columns]], columns).rows[0]
    pairs = [
        f"{block} " if block.endswith(":") and ": " not in block else block
        for block in blocks(RowRenderer(columns, Context())(row).text)
    ]
    assert [tuple(pair.split(": ", 1)) for pair in pairs] == list(row.items())


@pytest.mark.parametrize("end", ["\r", "\v", "\f", "\x85", "\u2028", "\u2029"])
def test_a_paragraph_is_indented_whatever_ends_its_lines(end: str) -> None:
    text = RowRenderer(["a", "b"], Context())({"a": f"x{end}b: y", "b": "z"}).text
    assert [line for line in text.splitlines() if not line.startswith(" ")] == ["a: x", "b: z"]
