"""Text from tables and models in Markdown: it stays text, in its cell or in its block."""

from __future__ import annotations

import pytest

from llmbatch_assets.domain.report.markdown import fact_table, fenced, plain


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a | b", r"a \| b"),
        ("*bold* [link](x)", r"\*bold\* \[link\](x)"),
        ("<script>", "&lt;script>"),
        ("&lt;", "&amp;lt;"),
        ("two\nlines", "two lines"),
        ("snake_case _x_", r"snake_case \_x\_"),
        ("a__b _", r"a\_\_b \_"),
    ],
)
def test_text_has_no_meaning_in_a_line(text: str, escaped: str) -> None:
    assert plain(text) == escaped


@pytest.mark.parametrize("text", ["plain", "```\nends?\n```", "a ````` b"])
def test_text_cannot_end_its_code_block(text: str) -> None:
    first, *within, last = fenced(text).splitlines()
    assert first == last
    assert set(first) == {"`"}
    assert "\n".join(within) == text
    assert first not in text


def test_a_table_has_a_line_per_fact_and_can_be_stored() -> None:
    table = fact_table(("Column", "Value"), [("a|b", "x\n| y |"), ("broken", "\ud83d")])
    assert table.splitlines() == [
        "| Column | Value |",
        "| --- | --- |",
        r"| a\|b | x \| y \| |",
        r"| broken | \\ud83d |",
    ]
    table.encode()
