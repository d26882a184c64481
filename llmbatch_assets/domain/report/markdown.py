"""Markdown made of text from tables and models: escaped lines, code blocks and tables."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from llmbatch_assets.domain.text import escape_controls

# Characters with a meaning inside a line of Markdown. An underscore has none between letters or digits; escaping no
# more than necessary keeps the source readable.
_SPECIAL = re.compile(r"([\\`*\[\]#|~]|(?<![^\W_])_|_(?![^\W_]))")
_ENTITY = re.compile(r"&(?=#?\w+;)")


def plain(text: Any) -> str:
    """Escape text for a line or table cell of Markdown."""
    line = _ENTITY.sub("&amp;", " ".join(escape_controls(str(text)).split())).replace("<", "&lt;")
    return _SPECIAL.sub(r"\\\1", line)


def fenced(text: Any) -> str:
    """Return the text as a code block that its own backticks cannot end."""
    shown = escape_controls(str(text))
    longest = max((len(run) for run in re.findall(r"`+", shown)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{shown}\n{fence}"


def fact_table(heading: tuple[str, str], rows: Iterable[tuple[str, Any]]) -> str:
    """Return a table of two columns. The text is escaped."""
    lines = [f"| {plain(name)} | {plain(value)} |" for name, value in rows]
    return "\n".join([f"| {heading[0]} | {heading[1]} |", "| --- | --- |", *lines])
