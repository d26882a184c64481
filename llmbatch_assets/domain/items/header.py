"""Find the row of column names in a table that has other rows above it, and advise on rows that do not fit the header."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

SAMPLE_ROWS = 50
_SHOWN_CHARS = 40
_NUMBER = re.compile(r"[-+]?[\d.,]*\d[\d.,]*%?")


class NumberedRow(NamedTuple):
    """A row with its number in the file, from 1."""

    number: int
    cells: Sequence[Any]


def header_advice(rows: Sequence[NumberedRow], what: str) -> str:
    """Advise to set ``input.header_row`` if a later row looks more like column names than the first; else "".

    ``what`` is the word for a row of the file: line or row.
    """
    likely = _likely_header(rows)
    if likely is None:
        return ""
    first = rows[0]
    return (
        f"{what} {first.number} ({_shown(first)}) looks like a title or comment, and {what} {likely.number} "
        f"({_shown(likely)}) seems to name the columns: if so, set input.header_row: {likely.number}"
    )


def _likely_header(rows: Sequence[NumberedRow]) -> NumberedRow | None:
    first, *others = rows
    widths = Counter(len(row.cells) for row in others)
    if not widths:
        return None
    width = widths.most_common(1)[0][0]
    n_filled = sum(bool(str(cell).strip()) for cell in first.cells)
    # A header in which only a name or two is missing has more names than this.
    is_title = n_filled * 2 <= width or str(first.cells[0]).startswith("#")
    if width < 2 or not is_title or _names_columns(first, width):
        return None
    return next((row for row in others if _names_columns(row, width)), None)


def _names_columns(row: NumberedRow, width: int) -> bool:
    names = [str(cell).strip() for cell in row.cells]
    is_whole = len(names) == width and all(names) and len(set(names)) == width
    return is_whole and not any(map(_NUMBER.fullmatch, names)) and not names[0].startswith("# ")


def _shown(row: NumberedRow) -> str:
    """Return the beginning of the row, without empty cells."""
    text = ", ".join(str(cell) for cell in row.cells if str(cell).strip())
    return repr(text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "...")


def width_advice(cells: Sequence[str], width: int, delimiter: str) -> str:
    """Advise on a row that has another number of cells than the header."""
    if len(cells) < width:
        return "Add the missing cells, or quote a cell that contains a line break"
    if len(cells) == width + 1 and not cells[-1].strip():
        return (
            f"The row ends with {delimiter!r}, the header does not: remove it from the end of the rows, or add it to the "
            "header with a column name"
        )
    if len(cells) == width + 1 and cells[0].strip().isdecimal():
        return f"Quote cells that contain {delimiter!r}; if the first cells number the rows, name their column in the header"
    return f"Quote cells that contain {delimiter!r}"
