"""Export records: outputs joined with the rows they were generated from. Everything else is listed with a reason."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any, Literal, NamedTuple

from llmbatch_assets.domain.answer import verdict_field
from llmbatch_assets.domain.canonical import canonical_json
from llmbatch_assets.domain.configuration.output_blocks import Explode
from llmbatch_assets.domain.configuration.parameters import Parameters
from llmbatch_assets.domain.export.columns import Column, ColumnType, OutputField, OutputSchema, Record, export_columns
from llmbatch_assets.domain.grouping_modes import modes_with_group_items
from llmbatch_assets.domain.items.cell import cell_text
from llmbatch_assets.domain.items.table import Snapshot, nearest_first
from llmbatch_assets.domain.items.work import WorkItem
from llmbatch_assets.domain.outcome import AcceptedOutput, FailedAttempt
from llmbatch_assets.domain.text import composed, counted
from llmbatch_assets.errors import ConfigError

NotExportedReason = Literal[
    "failed", "missing", "outdated", "row_beyond_cap", "row_without_element", "element_without_row"
]


class OutdatedOutput(NamedTuple):
    """An output generated with other settings: its file, and the settings that differ."""

    path: str
    differs_in: str


class ItemOutcome(NamedTuple):
    """The outcome of an item: its output, its latest failure with the file of that attempt, or neither.

    ``output_sha`` is that of the output's file.
    """

    item: WorkItem
    output: AcceptedOutput | None = None
    failure: FailedAttempt | None = None
    failure_file: str = ""
    older: OutdatedOutput | None = None
    output_sha: str = ""

    @property
    def reason(self) -> NotExportedReason:
        """Why there is no output."""
        return "failed" if self.failure else "outdated" if self.older else "missing"


class NotExported(NamedTuple):
    """An item, a row of a group, or an element of an output that is not exported: a line of the second file."""

    state: NotExportedReason
    partition_key: str
    work_id: str
    row_index: int | None
    group_key: str | None
    cause: str = ""
    message: str = ""
    failure_file: str = ""
    older_output_file: str = ""
    element_json: str = ""

    @classmethod
    def of(
        cls, item: WorkItem, state: NotExportedReason, row_index: int | None, message: str = "", element: str = ""
    ) -> NotExported:
        """The line for an item, or for the row or element of it that is not exported."""
        ids = (item.partition_key, item.work_id, row_index, item.group_key)
        return cls(state, *ids, message=message, element_json=element)

    def record(self) -> Record:
        """The line in the form that ``NOT_EXPORTED_COLUMNS`` read."""
        return {"not_exported": self._asdict()}


NOT_EXPORTED_COLUMNS = [
    Column(name, "not_exported", (name,), "integer" if name == "row_index" else "string")
    for name in NotExported._fields
]


def _without_output(outcome: ItemOutcome, row_index: int | None) -> NotExported:
    failure, older = outcome.failure, outcome.older
    message = f"the output was generated with another {older.differs_in}; run again" if older else ""
    line = NotExported.of(outcome.item, outcome.reason, row_index, message or "not attempted; run again")
    if failure:
        line = line._replace(cause=failure.cause, message=failure.error["message"], failure_file=outcome.failure_file)
    return line._replace(older_output_file=older.path) if older else line


Entry = Record | NotExported


def entries(join: Join, outcomes: Iterable[ItemOutcome]) -> Iterator[Entry]:
    """Yield records and what is not exported, in table order, or in item order if an item is a whole group."""
    if join.mode == "rows":
        for index, outcome in _in_row_order(outcomes):
            if outcome.output:
                yield _row_record(join, outcome.item, outcome.output, index)
            else:
                yield _without_output(outcome, index)
        return
    for outcome in outcomes:
        item, output = outcome.item, outcome.output
        if output:
            yield from _GROUP_ENTRIES[join.mode](join, item, output)
        else:
            rows = [None] if join.mode == "one" else used_rows(item)
            yield from (_without_output(outcome, row) for row in rows)
        yield from _beyond_cap(item)


def _in_row_order(outcomes: Iterable[ItemOutcome]) -> Iterator[tuple[int, ItemOutcome]]:
    """Each row with the outcome of its item. Further rows of a shared item wait in a heap for their turn."""
    waiting: list[tuple[int, ItemOutcome]] = []
    for outcome in outcomes:
        row = outcome.item.row_index
        assert row is not None, "an item of a row has its index"
        while waiting and waiting[0][0] < row:
            yield heapq.heappop(waiting)
        yield row, outcome
        for index in outcome.item.meta.get("shared_row_indices", ()):
            heapq.heappush(waiting, (index, outcome))
    while waiting:
        yield heapq.heappop(waiting)


def _row_record(join: Join, item: WorkItem, output: AcceptedOutput, index: int) -> Record:
    return {"input": join.snapshot.rows[index], **_output_parts(item, output, index)}


def _output_parts(item: WorkItem, output: AcceptedOutput, index: int | None) -> Record:
    # Positions come from the current plan; those in a cached artifact may be outdated.
    current = {"row_index": index, "group_key": item.group_key, "partition_key": item.partition_key}
    return {"parsed": output.parsed, "judge": output.judge, "meta": {**output.meta, **current}}


def used_rows(item: WorkItem) -> list[int]:
    """The rows of a group that the model saw."""
    rows: list[int] = item.meta["row_indices"]
    return rows[: item.meta["n_rows_used"]]


def _beyond_cap(item: WorkItem) -> Iterator[NotExported]:
    used: int = item.meta["n_rows_used"]
    message = f"the model saw only the first {counted(used, 'row')} of the group (grouping.max_rows_per_group)"
    for index in item.meta["row_indices"][used:]:
        yield NotExported.of(item, "row_beyond_cap", index, message)


def _one(join: Join, item: WorkItem, output: AcceptedOutput) -> Iterator[Entry]:
    indices: list[int] = item.meta["row_indices"]
    yield {
        "input": {join.grouping_column: item.group_key or ""},
        **_output_parts(item, output, None),
        "input_group_rows": [join.snapshot.rows[index] for index in indices],
        "input_group_row_indices": indices,
        "grouping_column": join.grouping_column,
        "group_context": item.context,
    }


def _expand(join: Join, item: WorkItem, output: AcceptedOutput) -> Iterator[Entry]:
    for index in used_rows(item):
        yield {**_row_record(join, item, output, index), "grouping_column": join.grouping_column}


def _explode(join: Join, item: WorkItem, output: AcceptedOutput) -> Iterator[Entry]:
    name = join.explode.list
    elements = output.parsed.get(name) or []
    # With the whole list in every record, the export would grow with the square of the group size.
    rest = output.model_copy(update={"parsed": {key: part for key, part in output.parsed.items() if key != name}})
    finder, matched = _RowFinder(join, item), set[int]()
    for element in elements:
        key = element.get(join.explode.item_key) if isinstance(element, dict) else None
        index = finder.row_of(key)
        if index is None:
            message = f"no row of the group has {key!r} in {join.explode.input_column!r}"
            yield NotExported.of(item, "element_without_row", None, message, canonical_json(element))
            continue
        matched.add(index)
        yield {**_row_record(join, item, rest, index), "element": element, "grouping_column": join.grouping_column}
    for index in used_rows(item):
        if index not in matched:
            message = f"no element of {name} has {join.explode.item_key} {finder.key(index)!r}"
            yield NotExported.of(item, "row_without_element", index, message)


class _RowFinder:
    """Finds the row that an element refers to. Rows with the same value get its elements in turn."""

    def __init__(self, join: Join, item: WorkItem) -> None:
        self._join = join
        rows: dict[str, list[int]] = defaultdict(list)
        for index in used_rows(item):
            rows[self.key(index)].append(index)
        self._turns = {key: cycle(indices) for key, indices in rows.items()}

    def key(self, index: int) -> str:
        """The row's value in ``outputs.explode.input_column``, which elements refer to."""
        return _comparable(self._join.snapshot.rows[index][self._join.explode.input_column])

    def row_of(self, value: Any) -> int | None:
        turns = None if value is None else self._turns.get(_comparable(cell_text(value)))
        return next(turns) if turns else None


def _comparable(text: str) -> str:
    """The text in composed form (NFC) and trimmed, like the cells of a table."""
    return composed(text).strip()


_GROUP_ENTRIES: dict[str, Callable[[Join, WorkItem, AcceptedOutput], Iterator[Entry]]] = {
    "one": _one,
    "expand": _expand,
    "explode": _explode,
}


# A record per row, per group, per row of a group, or per element of a list in a group's output.
JoinMode = Literal["rows", "one", "expand", "explode"]


def join_mode(parameters: Parameters) -> JoinMode:
    """The mode that the parameters configure."""
    if not parameters.grouping.active_mode.makes_one_item_per_group:
        return "rows"
    return "explode" if parameters.outputs.explode.list else parameters.outputs.group_rows


@dataclass(frozen=True)
class Join:
    """How the outputs of a batch are joined with its rows."""

    snapshot: Snapshot
    grouping_column: str
    mode: JoinMode
    explode: Explode
    max_rows_per_group: int = 0

    @classmethod
    def of(cls, snapshot: Snapshot, parameters: Parameters) -> Join:
        """The join that the parameters configure."""
        grouping = parameters.grouping
        max_rows = grouping.max_rows_per_group or 0
        return cls(snapshot, grouping.column, join_mode(parameters), parameters.outputs.explode, max_rows)

    @property
    def input_columns(self) -> list[str]:
        """The columns in the ``input`` of a record."""
        return [self.grouping_column] if self.mode == "one" else self.snapshot.columns

    def columns(self, schema: OutputSchema, judge: Mapping[str, ColumnType], *, flatten: bool) -> list[Column]:
        """The columns of the export. ``judge`` maps the fields of a verdict to their types. Raises ``ConfigError``."""
        fields = _at_most(schema.fields(flatten=flatten))
        elements: Iterable[OutputField] = ()
        if self.mode == "explode":
            elements = _at_most(_element_schema(self.explode, schema, self.snapshot.columns).fields(flatten=flatten))
            fields = [field for field in fields if field.path != (self.explode.list,)]
        score: ColumnType = "integer" if judge.get("score") == "integer" else "number"
        return export_columns(self.input_columns, fields, elements, verdict_field(judge), score)


# A small schema can nest objects so that the total number of fields is huge.
MAX_FIELDS = 100_000


def _at_most(fields: Iterator[OutputField]) -> list[OutputField]:
    found = list(islice(fields, MAX_FIELDS + 1))
    if len(found) > MAX_FIELDS:
        raise ConfigError(
            f"outputs.nested: flatten gives the output more than {MAX_FIELDS:,} columns; set outputs.nested: json"
        )
    return found


def _element_schema(explode: Explode, schema: OutputSchema, columns: Sequence[str]) -> OutputSchema:
    """The schema of the list's elements. Raises ``ConfigError`` if the list, its key or the column does not exist."""
    if explode.list not in schema.properties:
        raise _unknown("list", f"the output has no field {explode.list!r}", explode.list, schema.properties)
    element = schema.elements(explode.list)
    if element is None:
        raise ConfigError(
            f"outputs.explode.list: {explode.list!r} is not a list of objects; name a field that is, or remove "
            "outputs.explode"
        )
    if explode.item_key not in element.properties:
        problem = f"the elements of {explode.list!r} have no field {explode.item_key!r}"
        raise _unknown("item_key", problem, explode.item_key, element.properties)
    if explode.input_column not in columns:
        problem = f"the table has no column {explode.input_column!r}"
        raise _unknown("input_column", problem, explode.input_column, columns)
    return element


def _unknown(key: str, problem: str, name: str, known: Iterable[str]) -> ConfigError:
    return ConfigError(f"outputs.explode.{key}: {problem}; it has: {nearest_first(name, list(known))}")


def export_warnings(parameters: Parameters) -> list[str]:
    """Warnings about settings that have no effect."""
    outputs = parameters.outputs
    if parameters.grouping.active_mode.makes_one_item_per_group:
        return []
    given = {"outputs.explode": outputs.explode.list, "outputs.group_rows": outputs.group_rows == "expand"}
    modes = modes_with_group_items()
    return [f"{key} has no effect: it applies only to grouping.mode {modes}" for key, is_set in given.items() if is_set]
