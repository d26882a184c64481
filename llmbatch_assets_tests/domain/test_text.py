"""Text from spreadsheets and editors, cleaned without losing a letter."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbatch_assets.domain.text import (
    CUT_MARK,
    case_mark,
    counted,
    cut,
    flatten,
    harden,
    nearest,
    slug,
    visible,
    visible_json,
)
from llmbatch_assets_tests.domain.strategies import quick
from llmbatch_assets_tests.growth import assert_linear


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Data Scientist", "data-scientist"),
        # Separators of fields or partition keys are dropped.
        ("a, b | c\td\ne/f", "a-b-c-d-e-f"),
        ("snake_case  and--dashes", "snake-case-and-dashes"),
        ("  -- trimmed -- ", "trimmed"),
        # Letters of any script are letters.
        ("Größe", "größe"),
        ("データ 科学", "データ-科学"),
        ("Ｆｕｌｌ　ｗｉｄｔｈ", "full-width"),
        # Vowel signs and combining accents belong to their letters.
        ("हिन्दी", "हिन्दी"),
        ("ไทยนี้", "ไทยนี้"),
        ("cafe\u0301", "café"),
        # Nothing readable: no label.
        ("", ""),
        ("!?, …", ""),
        ("🙂", ""),
    ],
)
def test_a_slug_keeps_letters_and_digits_and_joins_them_with_hyphens(text: str, expected: str) -> None:
    assert slug(text) == expected


def test_a_slug_is_cut_without_a_hyphen_at_its_end() -> None:
    assert slug("a" * 31 + " bcd") == "a" * 31
    assert slug("x" * 40) == "x" * 32
    assert slug("one two three", 8) == "one-two"


@quick
@given(st.text())
def test_a_slug_never_contains_what_a_partition_key_must_not(text: str) -> None:
    made = slug(text)
    assert len(made) <= 32
    assert made == made.strip("-")
    assert not set(made) & set(",|.\t\n\r\0 /\\\"'")


@pytest.mark.parametrize(
    ("text", "limit", "expected"),
    [
        # 0 means no limit, and a text that fits is left alone.
        ("long enough", 0, ("long enough", False)),
        ("12345", 5, ("12345", False)),
        # A cut text shows where it was cut.
        ("123456", 5, ("12345" + CUT_MARK, True)),
        ("one two", 4, ("one" + CUT_MARK, True)),
    ],
)
def test_a_cut_is_marked(text: str, limit: int, expected: tuple[str, bool]) -> None:
    assert cut(text, limit) == expected


@pytest.mark.parametrize("line_break", ["\n", "\r\n", "\t", "\v", "\f", "\x85", "\u2028", "\u2029", " \n\n \t "])
def test_flattening_puts_one_space_where_a_line_ended(line_break: str) -> None:
    assert flatten(f"a{line_break}b") == "a b"


def test_flattening_leaves_other_spaces_alone() -> None:
    assert flatten("a  b") == "a  b"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\ufeffa\u00a0b\u202fc", "a b c"),
        ("a\u200bb\u2060c", "abc"),
        # Joiners are kept: Persian words and family emoji need them.
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("👩\u200d👧", "👩\u200d👧"),
    ],
)
def test_hardening_replaces_only_what_looks_like_something_else(text: str, expected: str) -> None:
    assert harden(text) == expected


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("plain\n\ttext, né 日本 👩‍👩‍👧 \u00a0", "plain\n\ttext, né 日本 👩‍👩‍👧 \u00a0"),
        ("\x1b[2J\x07\r\x7f", r"\x1b[2J\x07\r\x7f"),
        ("\x9b31m\x85", r"\x9b31m\x85"),
        ("\u202eevil\u2066\u200f\u2028", r"\u202eevil\u2066\u200f\u2028"),
        ("\ud800\U000e0041", r"\ud800\U000e0041"),
    ],
)
def test_what_a_terminal_would_act_on_is_shown_as_an_escape(text: str, seen: str) -> None:
    assert visible(text) == seen
    as_json = visible_json(json.dumps(text, ensure_ascii=False))
    assert json.loads(as_json) == text
    assert visible(as_json) == as_json


@pytest.mark.parametrize(
    ("number", "reported"), [(0, "0 items"), (1, "1 item"), (2, "2 items"), (20_000, "20,000 items")]
)
def test_one_of_something_is_singular(number: int, reported: str) -> None:
    assert counted(number, "item") == reported


def test_a_name_that_differs_only_in_case_is_nearest_and_says_so() -> None:
    assert nearest("SHEET", ["Shirt", "sheet", "price"]) == ["sheet", "Shirt"]
    assert [case_mark("SHEET", name) for name in ("sheet", "SHEET", "Shirt")] == [" (case matters)", "", ""]


def test_looking_for_a_near_name_takes_little_time_however_long_the_names_are() -> None:
    assert_linear(lambda size: lambda: nearest("ab" * size, ["ba" * size] * 20), 5_000)
