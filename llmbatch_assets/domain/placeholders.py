"""The placeholders that prompts and row templates know, and how a column is written in braces."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Sequence
from functools import cached_property
from typing import Literal, NamedTuple

from llmbatch_assets.domain.grouping_modes import GroupingMode
from llmbatch_assets.domain.text import composed, nearest

# Placeholder of a row template for the lines of all columns.
KV_BLOCK = "__ROW_KV_BLOCK__"
MAX_LISTED = 20
# Each takes a comparison with every column.
MAX_HINTS = 5
EMPTY = "always empty"
_WORD = re.compile(r"\w+")

Place = Literal["generation prompt", "judge prompt", "schema prompt", "row_template", "group header and footer"]
_PROMPTS: tuple[Place, ...] = ("generation prompt", "judge prompt")


class Placeholder(NamedTuple):
    """A placeholder and its value, by kind of grouping mode. Empty texts mean: as in ``of_rows``."""

    name: str
    places: tuple[Place, ...]
    of_rows: str
    with_shared_context: str = ""
    of_groups: str = ""

    def value(self, mode: GroupingMode) -> str:
        """Describe the value in a grouping mode."""
        if mode.shares_group_context and self.with_shared_context:
            return self.with_shared_context
        return (mode.makes_one_item_per_group and self.of_groups) or self.of_rows


_GROUP = "the rows of the group"
# Stands for all columns in the documentation.
COLUMN = Placeholder(
    "column",
    _PROMPTS,
    "the value of the column in the item's row",
    of_groups="only for `grouping.column`: the group key",
)
PLACEHOLDERS = (
    Placeholder("context", _PROMPTS, "the row", f"{_GROUP}, then the row", _GROUP),
    Placeholder("row", _PROMPTS, "the row", of_groups=_GROUP),
    Placeholder("group_context", _PROMPTS, EMPTY, with_shared_context=_GROUP),
    COLUMN,
    Placeholder("llm_schema", _PROMPTS, "the JSON Schema of an output"),
    Placeholder("llm_schema_txt", _PROMPTS, "the schema text, as in `schema/llm_schema.txt`"),
    Placeholder("judge_schema", _PROMPTS, "the JSON Schema of a verdict; empty without a judge"),
    Placeholder("output_json", ("judge prompt",), "the output to judge, as JSON"),
    Placeholder("context", ("schema prompt",), "the generation prompt, with its placeholders"),
    Placeholder("task", ("schema prompt",), "`llm_schema.task`"),
    Placeholder(KV_BLOCK, ("row_template",), "a line `column: value` for each column that the model sees"),
    Placeholder("column", ("row_template",), "the value of the column"),
    Placeholder("group_key", ("group header and footer",), "the value of `grouping.column`"),
    Placeholder("n_rows", ("group header and footer",), "the number of rows of the group"),
)


def names_in(place: Place) -> frozenset[str]:
    """Return the names of the built-in placeholders in a place."""
    return frozenset(one.name for one in PLACEHOLDERS if place in one.places and one.name != COLUMN.name)


GENERATION_NAMES = names_in("generation prompt")
JUDGE_NAMES = names_in("judge prompt")
SCHEMA_NAMES = names_in("schema prompt")
GROUP_PLACEHOLDERS = names_in("group header and footer")
# The placeholders that distinguish an item from others, besides columns.
ITEM_NAMES = frozenset({"context", "row", "group_context"})


def braced(names: Iterable[str]) -> str:
    """Return placeholder names as they are written in a template, for messages."""
    return ", ".join(f"{{{name}}}" for name in names)


class ColumnNames:
    """The columns of a table by the placeholders that stand for them. A table can have thousands of columns.

    ``{Text}`` and ``{"Text"}`` stand for the column `Text`; ``{Skill_Level}`` also stands for `Skill Level`, unless there
    is a column of exactly that name.
    """

    def __init__(self, columns: Iterable[str]) -> None:
        self._columns = dict.fromkeys(columns)

    @cached_property
    def _by_word(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for column in self._columns:
            found.setdefault(re.sub(r"\W+", "_", column).strip("_"), []).append(column)
        return found

    def named(self, name: str) -> list[str]:
        """Return the columns that a placeholder can stand for; more than one if it is ambiguous."""
        is_quoted = name.startswith('"')
        exact = composed(json.loads(name) if is_quoted else name)
        if exact in self._columns:
            return [exact]
        return [] if is_quoted else self._by_word.get(name, [])


def columns_named(name: str, columns: Iterable[str]) -> list[str]:
    """Return the columns that one placeholder can stand for."""
    return ColumnNames(columns).named(name)


def column_placeholder(column: str, taken: Collection[str] = ()) -> str:
    """Return the name by which a template writes a column: a quoted one if it is no word, or ``taken``."""
    return column if _WORD.fullmatch(column) and column not in taken else json.dumps(column, ensure_ascii=False)


def ambiguity(name: str, found: Sequence[str]) -> str:
    """Return the message about a placeholder that can stand for several columns."""
    quoted = braced(column_placeholder(column, taken=found) for column in found)
    return f"{{{name}}} can stand for any of the columns {', '.join(map(repr, found))}; write one of: {quoted}"


def unknown_placeholders(unknown: Sequence[str], known: Iterable[str], columns: Collection[str] = ()) -> str:
    """Return the message about unknown placeholders: similar ones, then those that are known, nearest columns first."""
    names = sorted(known)
    written = {column: column_placeholder(column, names) for column in columns}
    by_plain_name = {name: name for name in names} | {
        column: placeholder for column, placeholder in written.items() if column not in names
    }

    def with_hint(name: str) -> str:
        near = [by_plain_name[one] for one in nearest(name.strip('"').replace("_", " "), list(by_plain_name))[:2]]
        return f"{{{name}}}" + (f" (did you mean {' or '.join(f'{{{one}}}' for one in near)}?)" if near else "")

    close = nearest(unknown[0].strip('"'), list(columns), least=0.5)
    ordered = [written[column] for column in [*close, *(column for column in columns if column not in close)]]
    more = ", ..." if len(ordered) > MAX_LISTED else ""
    listed = f"; columns: {braced(ordered[:MAX_LISTED])}{more}" if ordered else ""
    hints = [*map(with_hint, unknown[:MAX_HINTS]), *braced(unknown[MAX_HINTS:]).split(", ")]
    return (
        f"unknown placeholder {', '.join(filter(None, hints))}. Known placeholders: {braced(names)}{listed}. "
        f"Double the braces to write a word in braces: {{{{{unknown[0]}}}}}"
    )
