"""Text of rows for the model: never an excluded column, and values unchanged."""

from __future__ import annotations

import contextlib
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbatch_assets.domain.configuration.input_blocks import Context
from llmbatch_assets.domain.items.context import RowRenderer, limit_length, shown_columns
from llmbatch_assets.domain.items.grouping import plan_work
from llmbatch_assets.domain.text import CUT_MARK
from llmbatch_assets.errors import ConfigError
from llmbatch_assets_tests.domain.strategies import CELLS, ROW_MODES, parameters, quick, snapshot

ROW = {"b": "two", "a": "one", "c d": "three"}


def settings(**changes: Any) -> Context:
    """The block ``context``."""
    return parameters(context=changes).context


def rendered(row: dict[str, str], **changes: Any) -> str:
    """The row as the model sees it under these settings."""
    block = settings(**changes)
    return RowRenderer(list(row), block)(row).text


@pytest.mark.parametrize("mode", ROW_MODES)
@pytest.mark.parametrize(
    "context",
    [
        {"columns": {"exclude": ["text"]}},
        {"columns": {"mode": "exclude", "exclude": ["text"]}},
        {"columns": {"mode": "include", "include": ["id", "text"], "exclude": ["text"]}},
        {"columns": {"exclude": ["text"]}, "kv_order": "alpha"},
        # Included and excluded at once: the exclusion wins.
        {"columns": {"exclude": ["text"]}, "row_template": "{id} {text}"},
        {"columns": {"exclude": ["text"]}, "row_template": "{text}", "auto_kv_block": False},
    ],
)
def test_an_excluded_column_is_never_seen(mode: str, context: dict[str, Any]) -> None:
    rows = snapshot([("1", "red", "SECRET"), ("2", "red", "SECRET")])
    with contextlib.suppress(ConfigError):
        plan = plan_work(rows, parameters(grouping=ROW_MODES[mode], context=context))
        assert "SECRET" not in repr(plan)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({}, ["b", "a", "c d"]),
        ({"mode": "exclude", "exclude": ["a"]}, ["b", "c d"]),
        # The order of include is kept.
        ({"mode": "include", "include": ["c d", "a"]}, ["c d", "a"]),
    ],
)
def test_columns_are_shown_in_their_order(columns: dict[str, Any], expected: list[str]) -> None:
    assert shown_columns(list(ROW), settings(columns=columns)) == expected
    assert shown_columns(list(ROW), settings(columns=columns, kv_order="alpha")) == sorted(expected)


@pytest.mark.parametrize(
    ("columns", "reported"),
    [
        ({"mode": "include", "include": ["x"]}, "names 'x', which the table lacks; it has: b, a, c d"),
        ({"exclude": ["B"]}, "names 'B', which the table lacks"),
        ({"exclude": ["a", "b", "c d"]}, "leaves no column"),
        ({"mode": "include", "include": ["a"], "exclude": ["a"]}, "leaves no column"),
    ],
)
def test_columns_that_cannot_be_shown_are_reported(columns: dict[str, Any], reported: str) -> None:
    with pytest.raises(ConfigError, match=reported):
        shown_columns(list(ROW), settings(columns=columns))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "b: two\na: one\nc d: three"),
        ({"kv_order": "alpha"}, "a: one\nb: two\nc d: three"),
        # The lines replace the placeholder, or are appended.
        ({"row_template": "<{__ROW_KV_BLOCK__}>"}, "<b: two\na: one\nc d: three>"),
        ({"row_template": "Row\n"}, "Row\nb: two\na: one\nc d: three"),
        ({"row_template": ""}, "b: two\na: one\nc d: three"),
        # Without them, only the named columns. Spaces in a name become underscores.
        ({"row_template": "{a} of {c_d}", "auto_kv_block": False}, "one of three"),
        ({"row_template": "{{{a}}}", "auto_kv_block": False}, "{one}"),
    ],
)
def test_a_row_is_its_template_filled_in(changes: dict[str, Any], expected: str) -> None:
    assert rendered(ROW, **changes) == expected


def test_a_paragraph_inside_a_value_is_not_taken_for_the_next_column() -> None:
    assert rendered({"a": "x\nb: y", "b": ""}) == "a: x\n  b: y\nb:"


@quick
@given(st.fixed_dictionaries({"a": CELLS, "b": CELLS}))
def test_values_are_never_read_as_placeholders(row: dict[str, str]) -> None:
    text = rendered(row, row_template="{b}|{__ROW_KV_BLOCK__}|{a}", auto_kv_block=False)
    shown = {
        name: re.sub(r"\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]", r"\g<0>  ", value) for name, value in row.items()
    }
    lines = "\n".join(f"{name}: {value}" if value else f"{name}:" for name, value in shown.items())
    assert text == f"{row['b']}|{lines}|{row['a']}"


def test_a_long_value_is_cut_marked_and_recorded() -> None:
    block = settings(truncate_field_chars=3)
    text, cuts, _ = RowRenderer(["a", "b"], block)({"a": "12345", "b": "123"})
    assert text == f"a: 123{CUT_MARK}\nb: 123"
    assert cuts == {"truncated_fields": ["a"]}


def test_a_long_context_is_cut_marked_and_recorded() -> None:
    block = settings(truncate_field_chars=3, max_context_chars=5)
    text, cuts, _ = limit_length(RowRenderer(["a"], block)({"a": "12345"}), block)
    assert text == f"a: 12{CUT_MARK}"
    assert cuts == {"truncated_fields": ["a"], "context_truncated": True}
    whole = RowRenderer(["a"], block)({"a": "1"})
    assert limit_length(whole, block) == whole


def test_all_placeholders_without_a_column_are_reported_together() -> None:
    with pytest.raises(ConfigError, match=r"unknown placeholder \{y\}, \{x\}\. .*; columns: \{a\}, \{\"c d\"\}"):
        RowRenderer(["a", "c d"], settings(row_template="{y} {a} {c_d} {x} {__ROW_KV_BLOCK__} {{z}}"))
    RowRenderer(["a", "c d"], settings(row_template="{a} {c_d} {__ROW_KV_BLOCK__} {{z}}"))


def test_a_placeholder_that_fits_two_columns_is_refused_if_it_is_used() -> None:
    with pytest.raises(ConfigError, match=r"\{c_d\} can stand for any of the columns"):
        RowRenderer(["c d", "c-d"], settings(row_template="{c_d}"))
    RowRenderer(["c d", "c-d"], settings())
