"""Convert cells to text and clean them.

The rules are the same for all formats, so that a table gives the same rows in each of them:

- text is unchanged: ``007`` is ``007``;
- null and NaN are the empty text;
- numbers are never in scientific notation; whole numbers have no decimal point (``1.0`` is ``1``), since spreadsheets
  store all numbers as floats;
- booleans are ``true`` and ``false``;
- dates and times are ISO 8601; a time stamp at midnight without a zone is a date, since spreadsheets and data frames
  store dates that way;
- lists and objects are JSON.
"""

from __future__ import annotations

import datetime as dt
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import count, islice
from numbers import Real
from typing import Any
from uuid import UUID

from pydantic_core import to_jsonable_python

from llmbatch_assets.domain.canonical import canonical_json
from llmbatch_assets.domain.configuration.input_blocks import Input
from llmbatch_assets.domain.items.column_types import InputType, column_type
from llmbatch_assets.domain.text import flatten, harden, has_surrogates

MIDNIGHT = dt.time()
MAX_DIGITS = 1_000

# Most cells are clean, so cells of a column are joined by a separator and checked in blocks. A separator inside a cell
# only means that the block is checked cell by cell.
BLOCK_ROWS = 100
_SEPARATOR = "¶"
_BLANK_FIRST, _BLANK_LAST = f"{_SEPARATOR} ", f" {_SEPARATOR}"


def cell_text(value: Any) -> str:
    """Convert a value to text. Raises ``ValueError`` for bytes that are not UTF-8, huge numbers and unknown types."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    for kinds, text_of in _TEXTS:
        if isinstance(value, kinds):
            return text_of(value)
    return canonical_json(_plain(value))


def _utf8(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as broken:
        raise ValueError(
            f"contains bytes that are not UTF-8 text: {broken}; convert the column to text, for example hexadecimal"
        ) from None


def _number(value: Real | Decimal) -> str:
    # Convert by way of its own text: a 32-bit float is 0.1, not 0.10000000149011612.
    number = value if isinstance(value, Decimal) else Decimal(str(value))
    if number.is_nan():
        return ""
    if number.is_infinite():
        return str(value)
    if abs(number.adjusted()) > MAX_DIGITS:
        raise ValueError(f"{value:.3e} has more than {MAX_DIGITS} digits; write it as text")
    # normalize() would round to the precision of the decimal context.
    written = format(number if number else abs(number), "f")
    return written.rstrip("0").rstrip(".") if "." in written else written


def _moment(value: dt.date | dt.time | dt.timedelta) -> str:
    if isinstance(value, dt.timedelta):
        return str(to_jsonable_python(value))
    if isinstance(value, dt.datetime) and value.tzinfo is None and value.time() == MIDNIGHT:
        # The time stamps of pandas have nanoseconds, which their time() leaves out.
        return value.isoformat() if getattr(value, "nanosecond", 0) else value.date().isoformat()
    return value.isoformat()


# ABCs are slow, so the common numbers come first.
_TEXTS: list[tuple[Any, Callable[[Any], str]]] = [
    (int | float | Decimal, _number),
    (bytes, _utf8),
    (dt.date | dt.time | dt.timedelta, _moment),
    (UUID, str),
    (Real, _number),
]


def _plain(value: Any) -> Any:
    """Convert the values inside lists and objects to JSON types."""
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple) or getattr(value, "ndim", None):
        # Also arrays of numpy.
        return [_plain(part) for part in value]
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, Real | Decimal):
        return _json_number(value)
    if isinstance(value, bytes | dt.date | dt.time | dt.timedelta | UUID):
        return cell_text(value)
    raise ValueError(f"is of type {type(value).__name__}, which has no text form; convert it to text")


def _json_number(value: Any) -> float | int | str | None:
    """Return a JSON number, None for NaN, or text if no float is exact."""
    written = _number(value)
    if not written:
        return None
    if not math.isfinite(value):
        raise ValueError("contains an infinite number")
    if "." not in written:
        return int(written)
    number = float(written)
    return number if Decimal(repr(number)) == Decimal(written) else written


def _may_need_cleaning(cells: str) -> bool:
    """Return whether joined cells may need cleaning. Of the printable characters, only space and backslash do."""
    return (
        not cells.isprintable()
        or "\\" in cells
        or _BLANK_LAST in cells
        or _BLANK_FIRST in cells
        or cells.startswith(" ")
        or cells.endswith(" ")
    )


class EscapedCell(str):
    r"""A cell in which delimiters are escaped with a backslash: ``foo\,bar``.

    Only the file's reader knows: in a quoted cell, the backslash is an ordinary character.
    """

    delimiter: str

    @classmethod
    def of(cls, text: str, delimiter: str) -> EscapedCell:
        cell = cls(text)
        cell.delimiter = delimiter
        return cell


def _unescaped(text: str) -> str:
    return text.replace(f"\\{text.delimiter}", text.delimiter) if isinstance(text, EscapedCell) else text


class Cleaner:
    """Cleans cells and counts what it changed, by kind and column."""

    def __init__(self, settings: Input, columns: Sequence[str]) -> None:
        self._collapse = settings.collapse_whitespace
        self._null_tokens = frozenset(token.strip().lower() for token in settings.null_tokens)
        self._longest_token = max(map(len, self._null_tokens), default=0)
        self._columns = columns
        self._changes: dict[str, Counter[str]] = {}
        self._kinds: dict[str, set[type]] = {name: set() for name in columns}

    @property
    def column_types(self) -> dict[str, InputType]:
        """The types of the columns that held something other than text."""
        types = {name: column_type(kinds) for name, kinds in self._kinds.items()}
        return {name: kind for name, kind in types.items() if kind != "string"}

    @property
    def changes(self) -> dict[str, dict[str, int]]:
        """Number of changed cells, as ``{kind: {column: count}}``."""
        return {kind: dict(sorted(counts.items())) for kind, counts in sorted(self._changes.items())}

    def rows(self, rows: Iterable[Sequence[Any]]) -> Iterator[dict[str, str]]:
        """Yield cleaned rows as dicts by column. Raises ``ValueError`` with row and column for a cell without a text form."""
        source = iter(rows)
        for start in count(1, BLOCK_ROWS):
            block = list(islice(source, BLOCK_ROWS))
            if not block:
                return
            places = range(start, start + len(block))
            columns = zip(*block, strict=True)
            cleaned = [self._column(name, cells, places) for name, cells in zip(self._columns, columns, strict=True)]
            for cells in zip(*cleaned, strict=True):
                # The line above made them equally long; strict=True would cost a third more time.
                yield dict(zip(self._columns, cells, strict=False))

    def _column(self, name: str, cells: Sequence[Any], places: Sequence[int]) -> Sequence[str]:
        try:
            joined = _SEPARATOR.join(cells)
            if any(cells):
                self._kinds[name].add(str)
        except TypeError:
            self._kinds[name].update(type(cell) for cell in cells if not isinstance(cell, str) or cell)
            cells = [self._text(name, *placed) for placed in zip(cells, places, strict=True)]
            joined = _SEPARATOR.join(cells)
        if _may_need_cleaning(joined):
            cells = [
                self._cleaned(name, text, place) if _may_need_cleaning(text) else text
                for text, place in zip(cells, places, strict=True)
            ]
        short = {text for text in cells if len(text) <= self._longest_token}
        if not self._null_tokens.isdisjoint(map(str.lower, short)):
            cells = [self._unless_null(name, text) for text in cells]
        return cells

    def _text(self, column: str, cell: Any, place: int) -> str:
        try:
            return cell_text(cell)
        except ValueError as broken:
            raise ValueError(f"row {place}, column {column!r}: {broken}") from None
        except RecursionError:
            raise ValueError(f"row {place}, column {column!r}: is nested too deeply") from None

    def _unless_null(self, column: str, text: str) -> str:
        if not text or text.lower() not in self._null_tokens:
            return text
        self._count("null_token", column)
        return ""

    def _cleaned(self, column: str, text: str, place: int) -> str:
        if has_surrogates(text):
            raise ValueError(f"row {place}, column {column!r}: contains an invalid character (a lone surrogate)")
        if "\0" in text:
            raise ValueError(
                f"row {place}, column {column!r}: contains a NUL character, which text files cannot store; remove it, or "
                "convert binary values to text, for example hexadecimal"
            )
        steps = {
            "unescaped": _unescaped,
            "invisible": harden,
            "line_breaks": flatten if self._collapse else str,
            "trimmed": str.strip,
        }
        for kind, step in steps.items():
            before, text = text, step(text)
            if text != before:
                self._count(kind, column)
        return text

    def _count(self, kind: str, column: str) -> None:
        self._changes.setdefault(kind, Counter())[column] += 1
