"""Cells that a spreadsheet would run as formulas when it opens a text file, written so that it shows them instead.

https://owasp.org/www-community/attacks/CSV_Injection names the characters that begin one. A cell that begins with one,
also behind blanks, gets an apostrophe in front. Numbers, telephone numbers and list items begin with a sign, too, and
are left alone: nothing in them can call, look up or fetch anything.
"""

from __future__ import annotations

import re

MARK = "'"
# The wide forms are what Japanese and Chinese keyboards give, and begin a formula there.
_SIGNS = "=+\\-@\uff1d\uff0b\uff0d\uff20"
_FORMULA = re.compile(rf"{MARK}*(?:[\t\r\n]|\s*[{_SIGNS}])")
_CURRENCY = "[$€£¥]?"
_NUMBER = rf"[+-] ?{_CURRENCY} ?(?:\d[\d., \u00a0\u202f]*|[.,]\d+)(?:[eE][+-]?\d+)?(?:%|{_CURRENCY})"
_TELEPHONE = r"\+\d{1,3} [\d(][\d ()./-]*"
# No call, no look-up in another file, no program: only words and what stands between them.
_LIST_ITEM = r"- +[^\W\d_][^(|!\[{=@]*"
_SIGNS_ALONE = r"[+-]+"
_HARMLESS = re.compile(rf"{MARK}* *(?:{_NUMBER}|{_TELEPHONE}|{_LIST_ITEM}|{_SIGNS_ALONE})")


def _would_run(text: str) -> bool:
    """Whether the text, without marks in front of it, would be run."""
    return _FORMULA.match(text) is not None and _HARMLESS.fullmatch(text) is None


def neutral(text: str) -> str:
    """The text as a cell that no spreadsheet runs."""
    # Most texts begin with a letter or a digit.
    return MARK + text if not text[:1].isalnum() and _would_run(text) else text


def marked_twice(text: str) -> str:
    """The text as it is, but for one that looks like it had been made neutral: that one must survive ``original``."""
    return MARK + text if text.startswith(MARK) and _would_run(text) else text


def original(cell: str) -> str:
    """The text of which ``neutral`` or ``marked_twice`` made the cell."""
    return cell[len(MARK) :] if cell.startswith(MARK) and _would_run(cell) else cell
