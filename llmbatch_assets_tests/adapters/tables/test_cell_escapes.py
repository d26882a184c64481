"""No cell runs, none is changed without need, and each can be had back as it was."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbatch_assets.adapters.tables.cell_escapes import (
    escape_cell_controls,
    escape_formula,
    escape_marked_formula,
    unescape_cell,
)
from llmbatch_assets_tests.domain.strategies import EXOTIC, TEXTS, quick

RUN = [
    # https://owasp.org/www-community/attacks/CSV_Injection
    *("=1+1", '=HYPERLINK("http://evil.example","x")', "+1+1", "-1-1", "-2+3+cmd|' /C calc'!A0", "@SUM(1+1)"),
    *("\t=1", "\r=1", "\n=1", "\ttext", "\rtext", "\uff1d1", "\uff0b1", "\uff0d1", "\uff20A1", "  =1", "\u00a0=1"),
    # What looks like a list item, a telephone number or a number and is more.
    *("- cmd|' /C calc'!A0", "- SUM(A1)", '- HYPERLINK("x")', "- [book.xlsx]Sheet1!A1", "- {1}", "- x=y", "- a\n- @b"),
    *("+49-30-1234", "+49 30 A1", "+1 555 SUM(1)", "-5*A1", "-A1", "-foo", "-1\n=1"),
    # What has the mark already.
    *("'=1", "''=1", "'\tx"),
]
SHOWN = [
    *("", "text", "a=b", "1", "-5", "+5", "-3.5", "-1,234.50", "+1e-5", "-.5", "-50%", "-$5.00", "-5 €", "- 5"),
    *(
        "+49 30 1234",
        "+1 (555) 123-4567",
        "- text",
        "- two words, and more.",
        "- a\n- b",
        "  - nested",
        "-",
        "--",
        "---",
    ),
    *("'quoted'", "'", "''", "'-5", "# heading", "* item", "%", "|x", "[]", '{"a":1}', "\u2212 5"),
]


@pytest.mark.parametrize("text", RUN)
def test_what_would_run_is_marked(text: str) -> None:
    assert escape_formula(text) == f"'{text}"
    assert unescape_cell(escape_formula(text)) == text


@pytest.mark.parametrize("text", SHOWN)
def test_what_would_be_shown_is_left_alone(text: str) -> None:
    assert escape_formula(text) == text
    assert unescape_cell(text) == text


FORMULAS = st.lists(st.sampled_from(["'", "=", "-", "+", "@", "\t", "\n", " ", "1", "a", "(", "\uff1d"]), max_size=6)


@quick
@given(st.one_of(EXOTIC, TEXTS, FORMULAS.map("".join)))
def test_every_text_comes_back_whether_formulas_are_escaped_or_not(text: str) -> None:
    assert unescape_cell(escape_formula(text)) == text
    assert unescape_cell(escape_marked_formula(text)) == text


@pytest.mark.parametrize("text", ["=1", "+1", "- SUM(A1)", "-5", "text", "'text"])
def test_unescaped_texts_stay_as_they_are(text: str) -> None:
    assert escape_marked_formula(text) == text


def test_a_long_cell_is_looked_at_in_no_time() -> None:
    for text in ("'" * 100_000, "-" + " " * 100_000 + "(", "+1 " + "1" * 100_000 + "x", "- " + "a" * 100_000 + "("):
        assert unescape_cell(escape_formula(text)) == text


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("a\x1b[2Jb", r"a\x{1b}[2Jb"),
        ("\x00\x07\x9b", r"\x{0}\x{7}\x{9b}"),
        ("\u202etxt.exe\u2066", r"\x{202e}txt.exe\x{2066}"),
        ("a\rb\r\nc", "a\\x{d}b\r\nc"),
        ("\ud83d", r"\x{d83d}"),
        (r"\x{1b}", r"\x{5c}x{1b}"),
        (r"\x{5c}x{1b}", r"\x{5c}x{5c}x{1b}"),
    ],
)
def test_what_a_terminal_would_obey_is_escaped(text: str, written: str) -> None:
    assert escape_cell_controls(text) == written
    assert unescape_cell(written) == text


# Arabic and Hebrew, Persian, a flag, and what only looks like an escape.
@pytest.mark.parametrize(
    "text", ["\u200f\u05d0", "\u0645\u06cc\u200c\u062e", "\U0001f3f4\U000e0067", "a\tb\nc", r"\x{g}", r"\u001b"]
)
def test_text_that_only_people_read_is_left_alone(text: str) -> None:
    assert escape_cell_controls(text) == text
    assert unescape_cell(text) == text


CONTROLS = st.text(
    st.sampled_from(["\\", "x", "{", "}", "1", "b", "\x1b", "\r", "\n", "\x9b", "\u202e", "\ud83d", "'", "=", "\t"])
)


@quick
@given(st.one_of(CONTROLS, st.text()))
def test_every_cell_comes_back(text: str) -> None:
    for formula in (escape_formula, escape_marked_formula):
        assert unescape_cell(formula(escape_cell_controls(text))) == text
