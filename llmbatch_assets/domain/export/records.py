"""Outputs joined back to the rows that they were made from; what is left out comes with its reason."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from llmbatch_assets.domain.canonical import canonical_json
from llmbatch_assets.domain.export.columns import Record
from llmbatch_assets.domain.export.not_exported import LeftOut, Standing, left_out, not_made
from llmbatch_assets.domain.items.cell import cell_text
from llmbatch_assets.domain.items.table import Snapshot
from llmbatch_assets.domain.items.work import WorkItem
from llmbatch_assets.domain.outcome import AcceptedOutput
from llmbatch_assets.domain.parameters import Explode, Parameters
from llmbatch_assets.domain.text import composed, counted

Way = Literal["rows", "one", "expand", "explode"]
Entry = Record | LeftOut


@dataclass(frozen=True)
class Join:
    """How the outputs of a batch come together with its rows."""

    snapshot: Snapshot
    grouping_column: str
    way: Way
    explode: Explode

    @classmethod
    def of(cls, snapshot: Snapshot, parameters: Parameters) -> Join:
        """As the parameters say it."""
        grouping, outputs = parameters.grouping, parameters.outputs
        of_group: Way = "explode" if outputs.explode.list else outputs.group_rows
        way = of_group if grouping.effective_mode == "group_output" else "rows"
        return cls(snapshot, grouping.column, way, outputs.explode)

    @property
    def input_columns(self) -> list[str]:
        """The columns that the ``input`` of a record has."""
        return [self.grouping_column] if self.way == "one" else self.snapshot.columns


def entries(join: Join, standings: Iterable[Standing]) -> Iterator[Entry]:
    """Records and what is left out: row by row in the table's order; of groups, in the order of the items."""
    if join.way == "rows":
        for index, standing in _in_row_order(standings):
            output = standing.output
            yield _row_record(join, standing.item, output, index) if output else not_made(standing, index)
        return
    for standing in standings:
        yield from _GROUP_ENTRIES[join.way](join, standing)
        yield from _beyond_cap(standing.item)


def _in_row_order(standings: Iterable[Standing]) -> Iterator[tuple[int, Standing]]:
    """Each row with how its item stands. Rows that share an item wait for their place."""
    waiting: list[tuple[int, Standing]] = []
    for standing in standings:
        row = standing.item.row_index
        assert row is not None, "an item of a row has its index"
        while waiting and waiting[0][0] < row:
            yield heapq.heappop(waiting)
        yield row, standing
        for index in standing.item.meta.get("shared_row_indices", ()):
            heapq.heappush(waiting, (index, standing))
    while waiting:
        yield heapq.heappop(waiting)


def _row_record(join: Join, item: WorkItem, output: AcceptedOutput, index: int) -> Record:
    return {"input": join.snapshot.rows[index], **_made(item, output, index)}


def _made(item: WorkItem, output: AcceptedOutput, index: int | None) -> Record:
    # Positions come from the plan: those in a cached artifact are of the day on which it was made.
    current = {"row_index": index, "group_key": item.group_key, "partition_key": item.partition_key}
    return {"parsed": output.parsed, "judge": output.judge, "meta": {**output.meta, **current}}


def _used_rows(item: WorkItem) -> list[int]:
    """The rows that the model saw of a group."""
    rows: list[int] = item.meta["row_indices"]
    return rows[: item.meta["n_rows_used"]]


def _beyond_cap(item: WorkItem) -> Iterator[LeftOut]:
    used: int = item.meta["n_rows_used"]
    for index in item.meta["row_indices"][used:]:
        message = (
            f"of its group the model is shown the first {counted(used, 'row')} alone (grouping.max_rows_per_group)"
        )
        yield left_out(item, "row_beyond_cap", index, message)


def _one(join: Join, standing: Standing) -> Iterator[Entry]:
    item = standing.item
    if standing.output is None:
        yield not_made(standing, None)
        return
    indices: list[int] = item.meta["row_indices"]
    yield {
        "input": {join.grouping_column: item.group_key or ""},
        **_made(item, standing.output, None),
        "input_group_rows": [join.snapshot.rows[index] for index in indices],
        "input_group_row_indices": indices,
        "grouping_column": join.grouping_column,
        "group_context": item.context,
    }


def _expand(join: Join, standing: Standing) -> Iterator[Entry]:
    for index in _used_rows(standing.item):
        if standing.output is None:
            yield not_made(standing, index)
        else:
            record = _row_record(join, standing.item, standing.output, index)
            yield {**record, "grouping_column": join.grouping_column}


def _explode(join: Join, standing: Standing) -> Iterator[Entry]:
    if standing.output is None:
        yield from _expand(join, standing)
        return
    name, output = join.explode.list, standing.output
    elements = output.parsed.get(name) or []
    # Whole in every record, the list would make the export grow with the square of a group.
    rest = output.model_copy(update={"parsed": {key: part for key, part in output.parsed.items() if key != name}})
    places, matched = _Places(join, standing.item), set[int]()
    for element in elements:
        index = places.of(element)
        if index is None:
            yield _without_row(join, standing.item, element)
            continue
        matched.add(index)
        record = _row_record(join, standing.item, rest, index)
        yield {**record, "element": element, "grouping_column": join.grouping_column}
    for index in _used_rows(standing.item):
        if index not in matched:
            message = f"no element of {name} has {join.explode.item_key} {places.key(index)!r}"
            yield left_out(standing.item, "row_without_element", index, message)


def _without_row(join: Join, item: WorkItem, element: Any) -> LeftOut:
    key = element.get(join.explode.item_key) if isinstance(element, dict) else None
    message = f"no row of the group has {key!r} in {join.explode.input_column!r}"
    return left_out(item, "element_without_row", None, message, canonical_json(element))


class _Places:
    """Finds the row that an element is about. Rows with the same value take its elements in turn."""

    def __init__(self, join: Join, item: WorkItem) -> None:
        self._join = join
        self._rows: dict[str, list[int]] = defaultdict(list)
        self._taken: dict[str, int] = defaultdict(int)
        for index in _used_rows(item):
            self._rows[self.key(index)].append(index)

    def key(self, index: int) -> str:
        """What the row is looked for by."""
        return _comparable(self._join.snapshot.rows[index][self._join.explode.input_column])

    def of(self, element: Any) -> int | None:
        value = element.get(self._join.explode.item_key) if isinstance(element, dict) else None
        key = _comparable(cell_text(value))
        rows = self._rows.get(key)
        if value is None or not rows:
            return None
        self._taken[key] += 1
        return rows[(self._taken[key] - 1) % len(rows)]


def _comparable(text: str) -> str:
    """The form in which what looks alike is alike; tables are read with blanks trimmed."""
    return composed(text).strip()


_GROUP_ENTRIES: dict[str, Callable[[Join, Standing], Iterator[Entry]]] = {
    "one": _one,
    "expand": _expand,
    "explode": _explode,
}
