"""The keys of the records that an export should have, and a sum that tells whether it has them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from llmbatch_assets.domain.canonical import sha1_text
from llmbatch_assets.domain.export.records import JoinMode, used_rows
from llmbatch_assets.domain.items.cell import cell_text
from llmbatch_assets.domain.items.work import WorkItem


class RecordKey(NamedTuple):
    """The item, row and output of a record. ``row_index`` is "" if the record stands for a group."""

    work_id: str
    row_index: str
    cache_id: str

    @property
    def label(self) -> str:
        """The record as people know it."""
        return f"row {self.row_index}" if self.row_index else f"item {self.work_id}"


def record_key(meta: Mapping[str, Any], mode: JoinMode) -> RecordKey:
    """The key of a record with this ``meta``. The records that a group's list is made into together stand for the group."""
    row_index = "" if mode == "explode" else cell_text(meta.get("row_index"))
    return RecordKey(cell_text(meta.get("work_id")), row_index, cell_text(meta.get("cache_id")))


def expected_keys(item: WorkItem, cache_id: str, mode: JoinMode) -> Iterator[RecordKey]:
    """The keys of the records of an item with an accepted output."""
    rows: Iterable[int | None] = [item.row_index, *item.meta.get("shared_row_indices", ())]
    if mode == "expand":
        rows = used_rows(item)
    for row in rows:
        yield RecordKey(item.work_id, "" if row is None else str(row), cache_id)


def records_sum(keys: Iterable[RecordKey], start: str = "") -> str:
    """The sum of the keys' hashes and ``start``. It is the same in any order, and a key counts as often as it occurs."""
    total = sum((int(sha1_text(" ".join(key)), 16) for key in keys), int(start or "0", 16))
    return f"{total % 16**40:040x}"


@dataclass
class RecordTally:
    """The sum of records of which only the ``meta`` is seen, some at a time."""

    mode: JoinMode
    _sum: str = ""
    _groups: set[RecordKey] = field(default_factory=set)

    def add(self, metas: Iterable[Mapping[str, Any]]) -> None:
        """Add records with these ``meta``."""
        keys = (record_key(meta, self.mode) for meta in metas)
        if self.mode == "explode":
            self._groups.update(keys)
        else:
            self._sum = records_sum(keys, self._sum)

    @property
    def sum(self) -> str:
        """The sum of all records so far."""
        return records_sum(self._groups, self._sum)
