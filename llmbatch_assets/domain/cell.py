"""One cell: from whatever a file holds to the text that the snapshot keeps.

The rule, the same for all formats, so that one table gives the same rows from each of them:

- text stays as it is: ``007`` is ``007``;
- nothing (null, NaN) is the empty text;
- numbers are written out, never in scientific notation; a number without a fraction has no decimal point, since
  spreadsheets know no other numbers: ``1.0`` is ``1``;
- booleans are ``true`` and ``false``;
- dates and times are ISO 8601; a time stamp at midnight without a zone is a date, since spreadsheets and data frames
  know no other dates;
- lists and objects are JSON.
"""

from __future__ import annotations

import datetime as dt
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from llmbatch_assets.domain.canonical import canonical_json
from llmbatch_assets.domain.parameters import Input
from llmbatch_assets.domain.text import flatten, harden

MIDNIGHT = dt.time()

# What most rows hold none of. One search over a whole row for it is what makes cleaning cheap.
_UNCLEAN = re.compile(r"[\r\n\t\v\f\x1c-\x1f\x85\u00a0\u1680\u2000-\u200b\u2028\u2029\u202f\u205f\u2060\u3000\ufeff\\]")
_SEPARATOR = "\0"


def cell_text(value: Any) -> str:
    """The text of a value. Raises ``ValueError`` for bytes that are no UTF-8 text."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float | Decimal):
        return _number(value)
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, dt.date | dt.time | dt.timedelta):
        return _moment(value)
    return canonical_json(_plain(value))


def _number(value: float | Decimal) -> str:
    number = value if isinstance(value, Decimal) else Decimal(str(value))
    if number.is_nan():
        return ""
    if number.is_infinite():
        return str(value)
    if number == number.to_integral_value():
        return str(int(number))
    return format(number.normalize(), "f")


def _moment(value: dt.date | dt.time | dt.timedelta) -> str:
    if isinstance(value, dt.timedelta):
        return str(value)
    if isinstance(value, dt.datetime) and value.tzinfo is None and value.time() == MIDNIGHT:
        return value.date().isoformat()
    return value.isoformat()


def _plain(value: Any) -> Any:
    """Lists and objects with plain values inside, as JSON takes them."""
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value if value is None or isinstance(value, str | bool | int | float) else cell_text(value)


def _needs_cleaning(row: str) -> bool:
    """Whether a row, its cells joined by the separator, holds a blank at an end of a cell or an unclean character."""
    return (
        row.startswith(" ")
        or row.endswith(" ")
        or f" {_SEPARATOR}" in row
        or f"{_SEPARATOR} " in row
        or _UNCLEAN.search(row) is not None
    )


class Cleaner:
    """Cleans cells and counts what it changed, by kind and column."""

    def __init__(self, settings: Input, columns: Sequence[str], escaped: str = "") -> None:
        self._collapse = settings.collapse_whitespace
        self._null_tokens = frozenset(token.lower() for token in settings.null_tokens)
        self._longest_token = max(map(len, self._null_tokens), default=0)
        self._columns = columns
        self._escaped = escaped
        self._changes: dict[str, Counter[str]] = {}

    @property
    def changes(self) -> dict[str, dict[str, int]]:
        """How many cells were changed: ``{kind: {column: cells}}``."""
        return {kind: dict(sorted(counts.items())) for kind, counts in sorted(self._changes.items())}

    def row(self, cells: Sequence[Any]) -> dict[str, str]:
        """The cells of a row, cleaned, by column."""
        texts = [cell if isinstance(cell, str) else cell_text(cell) for cell in cells]
        if _needs_cleaning(_SEPARATOR.join(texts)):
            texts = [self._cleaned(name, text) for name, text in zip(self._columns, texts, strict=True)]
        longest = self._longest_token
        return {
            name: text if len(text) > longest else self._unless_null(name, text)
            for name, text in zip(self._columns, texts, strict=True)
        }

    def _unless_null(self, column: str, text: str) -> str:
        if not text or text.lower() not in self._null_tokens:
            return text
        self._count("null_token", column)
        return ""

    def _cleaned(self, column: str, text: str) -> str:
        steps = {
            "invisible": harden,
            "unescaped": self._unescape,
            "line_breaks": flatten if self._collapse else str,
            "trimmed": str.strip,
        }
        for kind, step in steps.items():
            before, text = text, step(text)
            if text != before:
                self._count(kind, column)
        return text

    def _unescape(self, text: str) -> str:
        return text.replace(f"\\{self._escaped}", self._escaped) if self._escaped else text

    def _count(self, kind: str, column: str) -> None:
        self._changes.setdefault(kind, Counter())[column] += 1
