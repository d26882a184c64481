"""An export compared with the outputs that it should hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from llmbatch_assets.domain.items.work import WorkItem
from llmbatch_assets.domain.outcome import AcceptedOutput


class Delivered(NamedTuple):
    """A record of an export: whose it is, and of which output. A record of a group has no row: ""."""

    work_id: str
    row_index: str
    cache_id: str
    created_at_utc: str

    @property
    def place(self) -> str:
        """How a person is told of it."""
        return f"row {self.row_index}" if self.row_index else f"item {self.work_id}"


def expected_outputs(pairs: Iterable[tuple[WorkItem, AcceptedOutput]]) -> list[Delivered]:
    """What an export of these outputs holds: one for each row that an output was made for, or for each group."""
    expected = []
    for item, output in pairs:
        rows = [item.row_index, *item.meta.get("shared_row_indices", ())]
        made = (str(output.meta["cache_id"]), str(output.meta["created_at_utc"]))
        expected += [Delivered(item.work_id, "" if row is None else str(row), *made) for row in rows]
    return expected


def not_once(expected: Sequence[Delivered], exported: Sequence[Delivered]) -> list[str]:
    """The places that are missing, there more than once, or there without an accepted output."""
    wanted = {(one.work_id, one.row_index): one.place for one in expected}
    counts = Counter((one.work_id, one.row_index) for one in exported)
    known = [place for key, place in wanted.items() if counts[key] != 1]
    return known + list(dict.fromkeys(one.place for one in exported if (one.work_id, one.row_index) not in wanted))


def out_of_date(expected: Sequence[Delivered], exported: Sequence[Delivered]) -> list[str]:
    """The places whose record is not of the output that is accepted now."""
    current = set(expected)
    return list(dict.fromkeys(one.place for one in exported if one not in current))
