"""Counts of items by value, including the columns of ``report.count_by``. Memory use is bounded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from llmbatch_assets.domain.canonical import canonical_json
from llmbatch_assets.domain.items.table import Row
from llmbatch_assets.domain.items.work import WorkItem
from llmbatch_assets.domain.outcome import AcceptedOutput
from llmbatch_assets.domain.text import cut, nearest
from llmbatch_assets.errors import ConfigError

# Further values are counted together.
MAX_VALUES = 50_000
EMPTY_VALUE = "(empty)"
VALUE_CHARS = 120

ItemEnd = Literal["accepted", "failed", "missing"]
ITEM_ENDS: tuple[ItemEnd, ...] = ("accepted", "failed", "missing")


class ValueCount(NamedTuple):
    """The number of items or rows with one value, by how they ended."""

    value: str
    accepted: int
    failed: int
    missing: int

    @property
    def total(self) -> int:
        return self.accepted + self.failed + self.missing

    @property
    def open(self) -> int:
        """The number without an output."""
        return self.failed + self.missing


class ValueCounts(NamedTuple):
    """The values that are shown, and the sum of the others, which are at least ``n_rest`` values."""

    shown: list[ValueCount]
    rest: ValueCount
    n_rest: int


@dataclass
class ValueCounter:
    """Counts how items ended, by value."""

    limit: int = MAX_VALUES
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    beyond: Counter[str] = field(default_factory=Counter)

    def add(self, value: str, end: ItemEnd) -> None:
        if value not in self.counts and len(self.counts) >= self.limit:
            self.beyond[end] += 1
        else:
            self.counts.setdefault(value, Counter())[end] += 1

    def total(self, end: ItemEnd) -> int:
        return sum(counter[end] for counter in self.counts.values()) + self.beyond[end]

    def top(self, most: int, order: Callable[[ValueCount], int] | None = None) -> ValueCounts:
        """At most ``most`` values, sorted by ``order``; ties, or all without it, stay in order of appearance."""
        every = [_value_count(value, counter) for value, counter in self.counts.items()]
        if order is not None:
            every.sort(key=order)
        hidden = sum((self.counts[one.value] for one in every[most:]), self.beyond.copy())
        return ValueCounts(every[:most], _value_count("", hidden), len(every[most:]))


def _value_count(value: str, counter: Counter[str]) -> ValueCount:
    return ValueCount(value, *(counter[end] for end in ITEM_ENDS))


class TextCount(NamedTuple):
    """A text, its number of occurrences, and a few of the items that have it."""

    text: str
    times: int
    examples: list[str]


@dataclass
class TextCounter:
    """Counts texts and keeps up to ``n_examples`` items for each."""

    n_examples: int
    limit: int = MAX_VALUES
    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    beyond: int = 0

    def add(self, texts: Iterable[str], example: str) -> None:
        """Count the texts of one item."""
        for text in texts:
            if text not in self.counts and len(self.counts) >= self.limit:
                self.beyond += 1
                continue
            self.counts[text] += 1
            shown = self.examples.setdefault(text, [])
            if len(shown) < self.n_examples and example not in shown:
                shown.append(example)

    def top(self, most: int) -> list[TextCount]:
        """The most frequent texts; equally frequent ones in alphabetical order."""
        ordered = sorted(self.counts.items(), key=lambda pair: (-pair[1], pair[0]))
        return [TextCount(text, count, self.examples[text]) for text, count in ordered[:most]]

    @property
    def n_texts(self) -> int:
        """The number of different texts, counting each one beyond the limit as different."""
        return len(self.counts) + self.beyond


class CountedColumn(NamedTuple):
    """A column of the table or a field of the output."""

    name: str
    part: Literal["input", "output"]


def counted_columns(names: Iterable[str], columns: Sequence[str], fields: Sequence[str]) -> list[CountedColumn]:
    """The columns and fields that ``report.count_by`` names. A name that is both gives two of them.

    Raises ``ConfigError`` for unknown names.
    """
    names = list(dict.fromkeys(names))
    unknown = [name for name in names if name not in columns and name not in fields]
    if unknown:
        raise ConfigError("\n".join(_unknown(name, columns, fields) for name in unknown))
    known = {"input": columns, "output": fields}
    both = [(CountedColumn(name, "input"), CountedColumn(name, "output")) for name in names]
    return [column for pair in both for column in pair if column.name in known[column.part]]


def _unknown(name: str, columns: Sequence[str], fields: Sequence[str]) -> str:
    near = nearest(name, [*columns, *fields])[:3]
    known = f"columns: {', '.join(columns)}; fields: {', '.join(fields)}"
    hint = f"did you mean {' or '.join(near)}?" if near else known
    return f"report.count_by: neither the table nor the output has {name!r}; {hint}"


@dataclass
class ColumnCounter:
    """Counts the values of one column or field.

    Rows are counted by a column's value and how their item ended, accepted items by a field's value. If the field is a
    list, each element counts.
    """

    column: CountedColumn
    values: ValueCounter = field(default_factory=ValueCounter)

    def add(self, item: WorkItem, end: ItemEnd, output: AcceptedOutput | None, rows: Sequence[Row]) -> None:
        if self.column.part == "input":
            for index in row_indices(item):
                self.values.add(_value_text(rows[index].get(self.column.name)), end)
        elif output is not None:
            value = output.parsed.get(self.column.name)
            for element in value if isinstance(value, list) and value else [value]:
                self.values.add(_value_text(element), end)


def row_indices(item: WorkItem) -> list[int]:
    """The table rows of an item."""
    if item.row_index is None:
        return list(item.meta.get("row_indices", ()))
    return [item.row_index, *item.meta.get("shared_row_indices", ())]


def _value_text(value: Any) -> str:
    if value is None or value in ("", [], {}):
        return EMPTY_VALUE
    text = value if isinstance(value, str) else canonical_json(value)
    return cut(" ".join(text.split()), VALUE_CHARS)[0] or EMPTY_VALUE
