"""Markdown made of text from tables and models: escaped lines, code blocks and tables."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from llmbatch_assets.domain.text import escape_controls

# Characters with a meaning inside a line of Markdown. An underscore has none between letters or digits; escaping no
# more than necessary keeps the source readable. A pattern that begins with one class of characters is searched fastest.
_SPECIAL = re.compile(r"[\\`*\[\]#|~_](?:(?<!_)|(?<![^\W_]_)|(?![^\W_]))")
_ENTITY = re.compile(r"&(?=#?\w+;)")


def plain(text: Any) -> str:
    """Escape text for a line or table cell of Markdown."""
    line = " ".join(escape_controls(str(text)).split())
    if "&" in line:
        line = _ENTITY.sub("&amp;", line)
    return _SPECIAL.sub(r"\\\g<0>", line.replace("<", "&lt;"))


# The tables of a batch have the same few names: headings, columns and fields.
_name = lru_cache(1_000)(plain)


def fenced(text: Any) -> str:
    """Return the text as a code block that its own backticks cannot end."""
    shown = escape_controls(str(text))
    longest = max((len(run) for run in re.findall(r"`+", shown)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{shown}\n{fence}"


def fact_table(heading: tuple[str, str], rows: Iterable[tuple[str, Any]]) -> str:
    """Return a table of two columns. The text is escaped."""
    lines = [f"| {_name(name)} | {plain(value)} |" for name, value in rows]
    return "\n".join([f"| {heading[0]} | {heading[1]} |", "| --- | --- |", *lines])
