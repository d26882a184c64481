r"""Escape cells of csv and tsv exports: formulas for spreadsheets, and control characters for terminals.

A cell that a spreadsheet would run as a formula gets an apostrophe in front. https://owasp.org/www-community/attacks/CSV_Injection
lists the characters that start a formula. Numbers, telephone numbers and list items may also start with such a character, but
are harmless and stay unchanged.

Control characters, direction overrides and lone surrogates are written as ``\x{1b}``. Cells of JSON have no such characters,
because JSON escapes them itself. Reading our own exports undoes both escapes.
"""

from __future__ import annotations

import re

from llmbatch_assets.domain.text import BRACED_ESCAPE, escape_controls

_MARK = "'"
# The wide forms come from Japanese and Chinese keyboards, and start a formula there.
_FORMULA = re.compile(rf"{_MARK}*(?:[\t\r\n]|\s*[=+\-@\uff1d\uff0b\uff0d\uff20])")
_CURRENCY = "[$€£¥]?"
_NUMBER = rf"[+-] ?{_CURRENCY} ?(?:\d[\d., \u00a0\u202f]*|[.,]\d+)(?:[eE][+-]?\d+)?(?:%|{_CURRENCY})"
_TELEPHONE = r"\+\d{1,3} [\d(][\d ()./-]*"
# Without the characters of function calls, external references and commands.
_LIST_ITEM = r"- +[^\W\d_][^(|!\[{=@]*"
_HARMLESS = re.compile(rf"{_MARK}* *(?:{_NUMBER}|{_TELEPHONE}|{_LIST_ITEM}|[+-]+)")


def _is_formula(text: str) -> bool:
    """Return whether a spreadsheet would run the text without the apostrophes in front."""
    return _FORMULA.match(text) is not None and _HARMLESS.fullmatch(text) is None


def escape_formula(text: str) -> str:
    """Return the text as a cell that no spreadsheet runs as a formula."""
    # Most texts start with a letter or digit.
    return _MARK + text if not text[:1].isalnum() and _is_formula(text) else text


def escape_marked_formula(text: str) -> str:
    """Return the text unchanged unless it looks like an escaped formula, which must survive ``unescape_formula``."""
    return _MARK + text if text.startswith(_MARK) and _is_formula(text) else text


# A text that looks like an escape gets its backslash escaped.
_LITERAL = re.compile(r"\\(?=x\{[0-9a-f]{1,4}\})")
_CONTROL = re.compile(r"\\x\{([0-9a-f]{1,4})\}")


def escape_cell_controls(text: str) -> str:
    """Return the text with control characters escaped."""
    if "\\x{" in text:
        text = _LITERAL.sub(lambda found: BRACED_ESCAPE.format(ord(found.group())), text)
    return escape_controls(text, BRACED_ESCAPE)


def unescape_cell(cell: str) -> str:
    """Undo ``escape_formula`` or ``escape_marked_formula``, and then ``escape_cell_controls``."""
    if cell.startswith(_MARK) and _is_formula(cell):
        cell = cell[len(_MARK) :]
    return _CONTROL.sub(lambda found: chr(int(found.group(1), 16)), cell) if "\\x{" in cell else cell
