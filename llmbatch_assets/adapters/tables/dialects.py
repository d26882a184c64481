r"""Dialects of delimited text: how quotes and backslashes are read, and signs that a file uses another dialect.

In the usual dialect, a cell that starts with a quote ends at the next quote that is not doubled. Two other dialects look
similar but give different rows: quotes inside a cell are escaped with a backslash (MySQL, Spark), or quotes are plain text
(many tab-separated files). A file is never read in one of these without a setting, nor is it silently misread.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from typing import NamedTuple

_LINE_BREAK = re.compile(r"\r\n|\r|\n")
_NULL = "\\N"


class Dialect(NamedTuple):
    """The delimiter with ``input.quoting`` and ``input.escape``."""

    delimiter: str
    quoting: str = "auto"
    escape: str = "auto"

    @property
    def may_be_another(self) -> bool:
        return self.quoting == self.escape == "auto"

    def records(self, text: str) -> Iterator[tuple[int, list[str]]]:
        """Yield each record with the number of lines up to its end. Raises ``csv.Error``."""
        is_escaped = self.escape == "backslash"
        if is_escaped:
            text = self._with_escaped_backslashes(text)
        # newline="" keeps quoted line breaks. Bytes, because a StringIO takes four of them for each character.
        source = io.TextIOWrapper(
            io.BytesIO(text.encode("utf-8", "surrogatepass")), "utf-8", "surrogatepass", newline=""
        )
        reader = csv.reader(
            source,
            delimiter=self.delimiter,
            strict=True,
            quoting=csv.QUOTE_NONE if self.quoting == "none" else csv.QUOTE_MINIMAL,
            escapechar="\\" if is_escaped else None,
        )
        for record in reader:
            # MySQL's form of a missing value.
            yield reader.line_num, ["" if cell == _NULL else cell for cell in record] if is_escaped else record

    def _with_escaped_backslashes(self, text: str) -> str:
        r"""Double the backslashes that escape nothing, as in ``C:\new``, because the csv module would drop them."""
        special = f'\\"{self.delimiter}\r\n'
        return re.sub(
            r"\\(.?)",
            lambda found: found[0] if found[1] and found[1] in special else f"\\\\{found[1]}",
            text,
            flags=re.DOTALL,
        )

    def fits(self, text: str, width: int) -> bool:
        """Return whether every record has this number of cells."""
        try:
            return all(len(record) == width for _, record in self.records(text) if record)
        except csv.Error:
            return False


def other_dialect(text: str, width: int, delimiter: str, first_line: int) -> str:
    """Advise to set a dialect that gives every row as many cells as the header has; "" if there is none."""
    at = text.find('\\"')
    if at >= 0 and Dialect(delimiter, escape="backslash").fits(text, width):
        line = first_line + len(_LINE_BREAK.findall(text, 0, at))
        return (
            f"quotes inside cells seem to be escaped with a backslash (line {line}): if so, set input.escape: backslash"
        )
    if '"' in text and width > 1 and Dialect(delimiter, "none").fits(text, width):
        return "quotes seem to be plain text, since every line has as many cells as the header: if so, set input.quoting: none"
    return ""


def escapes_quotes(text: str, joined: str, width: int, delimiter: str) -> bool:
    r"""Return whether a cell that was joined at ``\,`` is rather a quoted cell with an escaped quote: ``"TV 55\", black"``."""
    is_suspect = '"' in joined and f'\\"{delimiter}' in text
    return is_suspect and Dialect(delimiter, escape="backslash").fits(text, width)


def merges_lines(text: str, width: int, delimiter: str) -> bool:
    """Return whether each line has as many cells as the header, so that no cell needs to span several lines."""
    lines = (line for line in _LINE_BREAK.split(text) if line)
    return width > 1 and all(line.count(delimiter) == width - 1 for line in lines)


def has_plain_quotes(text: str, delimiter: str) -> bool:
    """Return whether a cell contains a single quote mark. A program that quotes cells would have doubled it."""
    between = f'[^{re.escape(delimiter)}\r\n"]'
    return re.search(f'{between}"{between}', text) is not None
