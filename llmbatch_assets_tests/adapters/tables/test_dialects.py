r"""A file in another dialect is never misread in silence, and a setting reads it."""

from __future__ import annotations

import csv
import io
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbatch_assets.adapters.tables.dialects import Dialect, has_plain_quotes, merges_lines, other_dialect
from llmbatch_assets_tests.domain.strategies import quick


def records(text: str, delimiter: str = ",", quoting: str = "auto", escape: str = "auto") -> list[list[str]]:
    return [record for _, record in Dialect(delimiter, quoting, escape).records(text)]


@pytest.mark.parametrize(
    ("text", "cells"),
    [
        ('1,"TV 55\\", black"\n', ["1", 'TV 55", black']),
        ('"say \\"so\\"",2\n', ['say "so"', "2"]),
        ("a\\,b,2\n", ["a,b", "2"]),
        ('"ends with \\\\",2\n', ["ends with \\", "2"]),
        ('"two\\\nlines",2\n', ["two\nlines", "2"]),
        # What escapes nothing stays, and doubled quotes are read as well.
        ("C:\\new,\\d+\n", ["C:\\new", "\\d+"]),
        ('"say ""so""",2\n', ['say "so"', "2"]),
        # A missing value of MySQL.
        ("\\N,2\n", ["", "2"]),
    ],
)
def test_backslashes_escape_quotes_delimiters_and_themselves(text: str, cells: list[str]) -> None:
    assert records(text, escape="backslash") == [cells]


def test_quotes_can_be_plain_text() -> None:
    assert records('1\t"Hello\n2\tfine"\n', "\t", "none") == [["1", '"Hello'], ["2", 'fine"']]
    assert records('"a\\,b",c\n', ",", "none", "backslash") == [['"a,b"', "c"]]


@quick
@given(rows=st.lists(st.lists(st.text(st.sampled_from('a",\\\n ')), min_size=2, max_size=2), min_size=1, max_size=4))
def test_what_is_written_with_backslashes_comes_back(rows: list[list[str]]) -> None:
    def cell(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    assert records("".join(",".join(map(cell, row)) + "\n" for row in rows), escape="backslash") == rows


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ('id,a\n1,"TV 55\\", black"\n', "(line 2): if so, set input.escape: backslash"),
        ('id,a\n1,x\n2,"say \\"so\\""\n', "(line 3): if so, set input.escape: backslash"),
        ('id,a\n1,"so" she said\n', "set input.quoting: none"),
        # No setting helps.
        ('id,a\n1,"open\n2\n', ""),
        ("id,a\n1,2,3\n", ""),
    ],
)
def test_a_dialect_is_advised_if_every_row_fits_it(text: str, advice: str) -> None:
    assert other_dialect(text, 2, ",", 1).endswith(advice)


def test_lines_that_are_rows_by_themselves_are_seen() -> None:
    assert merges_lines('id\ta\n1\t"Hello\n2\tfine"\n', 2, "\t")
    assert not merges_lines('id\ta\n1\t"two\nlines"\n', 2, "\t")
    assert not merges_lines('a\n"two\nlines"\n', 1, "\t")
    assert has_plain_quotes('1\t5" pipe', "\t")
    assert not has_plain_quotes('1\t"say ""so"""\n2\t"x"\t""', "\t")


def test_a_large_file_is_judged_in_a_moment() -> None:
    out = io.StringIO()
    csv.writer(out).writerows([["id", "text"], *([str(n), 'some "text", quoted\nand more'] for n in range(50_000))])
    began = time.monotonic()
    assert not merges_lines(out.getvalue(), 2, ",")
    assert other_dialect(out.getvalue(), 2, ",", 1) == ""
    assert time.monotonic() - began < 5
