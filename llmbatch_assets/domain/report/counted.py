"""Counts by chosen columns: ``report.count_by``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from llmbatch_assets.domain.canonical import canonical_json
from llmbatch_assets.domain.items.table import Row
from llmbatch_assets.domain.items.work import WorkItem
from llmbatch_assets.domain.outcome import AcceptedOutput
from llmbatch_assets.domain.report.tallies import End, EndCounts
from llmbatch_assets.domain.text import cut, nearest
from llmbatch_assets.errors import ConfigError

EMPTY_VALUE = "(empty)"
VALUE_CHARS = 120


class Counted(NamedTuple):
    """A column of the table, or a field of the output."""

    name: str
    part: Literal["input", "output"]


def counted_columns(names: Iterable[str], columns: Sequence[str], fields: Sequence[str]) -> list[Counted]:
    """What ``report.count_by`` names; a name that table and output share means both.

    Raises ``ConfigError`` for names that neither has.
    """
    names = list(dict.fromkeys(names))
    unknown = [name for name in names if name not in columns and name not in fields]
    if unknown:
        raise ConfigError("\n".join(_unknown(name, columns, fields) for name in unknown))
    found = [(Counted(name, "input"), columns) for name in names] + [
        (Counted(name, "output"), fields) for name in names
    ]
    kept = [counted for counted, known in found if counted.name in known]
    return sorted(kept, key=lambda counted: names.index(counted.name))


def _unknown(name: str, columns: Sequence[str], fields: Sequence[str]) -> str:
    known = [*columns, *fields]
    near = nearest(name, known)[:3]
    hint = (
        f"did you mean {' or '.join(near)}?" if near else f"columns: {', '.join(columns)}; fields: {', '.join(fields)}"
    )
    return f"report.count_by: neither the table nor the output has {name!r}; {hint}"


@dataclass
class ColumnCounts:
    """Counts by the values of one column or field.

    A column of the table counts rows, by how their item ended. A field counts accepted items, a list each of its parts.
    """

    counted: Counted
    ends: EndCounts = field(default_factory=EndCounts)

    def add(self, item: WorkItem, end: End, output: AcceptedOutput | None, rows: Sequence[Row]) -> None:
        """Count an item."""
        if self.counted.part == "input":
            for index in row_indices(item):
                self.ends.add(_shown(rows[index].get(self.counted.name)), end)
        elif output is not None:
            for value in _parts(output.parsed.get(self.counted.name)):
                self.ends.add(_shown(value), end)


def row_indices(item: WorkItem) -> list[int]:
    """The rows that an item stands for."""
    if item.row_index is None:
        return list(item.meta.get("row_indices", ()))
    return [item.row_index, *item.meta.get("shared_row_indices", ())]


def _parts(value: Any) -> list[Any]:
    return value if isinstance(value, list) and value else [value]


def _shown(value: Any) -> str:
    if value is None or value in ("", [], {}):
        return EMPTY_VALUE
    text = value if isinstance(value, str) else canonical_json(value)
    return cut(" ".join(text.split()), VALUE_CHARS)[0] or EMPTY_VALUE
