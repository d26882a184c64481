"""Outputs joined back to the rows that they were made from."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel

from llmbatch_assets.domain.canonical import canonical_json
from llmbatch_assets.domain.outcome import AcceptedOutput
from llmbatch_assets.domain.table import Row, Snapshot
from llmbatch_assets.domain.work import WorkItem

Record = dict[str, Any]


class ExportManifest(BaseModel):
    """What later steps read of ``pipeline5_manifest.json``."""

    files: dict[str, str]


# A column that every export has, and hardly another table.
EXPORT_MARK = "meta_cache_id"
_KEYS = ("work_id", "row_index", "group_key", "group_context_id")
_REST = ("cache_id", "model", "temperature", "created_at_utc")


class Column(NamedTuple):
    """One column of the export: its name, and where a record holds its value."""

    name: str
    part: str
    key: str


def export_columns(input_columns: Iterable[str], output_fields: Iterable[str]) -> list[Column]:
    """Columns in their fixed order: input, keys, output fields in schema order, judge, the rest of meta.

    An output field that is named like an input column gets the prefix ``parsed_``, an input column that is named like
    one of ours ``input_``: nothing overwrites anything.
    """
    given = [Column(name, "input", name) for name in input_columns]
    keys = [Column(f"meta_{key}", "meta", key) for key in _KEYS]
    judged = [Column(f"judge_{key}", "judge", key) for key in ("verdict", "score")]
    judged.append(Column("judge_reasons_json", "judge", "reasons"))
    rest = [Column(f"meta_{key}", "meta", key) for key in _REST]
    ours = {column.name for column in (*keys, *judged, *rest)}
    taken = ours | {column.name for column in given}
    columns: list[Column] = []
    for column in given:
        others = {name for name in taken if name != column.name or name in ours}
        columns.append(_apart(column, "input_", others))
        taken.add(columns[-1].name)
    columns += keys
    for name in output_fields:
        columns.append(_apart(Column(name, "parsed", name), "parsed_", taken))
        taken.add(columns[-1].name)
    return columns + judged + rest


def _apart(column: Column, prefix: str, taken: set[str]) -> Column:
    """The column under a name that none of ``taken`` has."""
    while column.name in taken:
        column = column._replace(name=prefix + column.name)
    return column


def records(
    snapshot: Snapshot, grouping_column: str | None, pairs: Iterable[tuple[WorkItem, AcceptedOutput]]
) -> Iterator[Record]:
    """One record per row that an output was made for, in the table's order; for an output of a group, one per group."""
    waiting: list[tuple[int, WorkItem, AcceptedOutput]] = []
    for item, output in pairs:
        if item.row_index is None:
            yield _group_record(snapshot, grouping_column or "", item, output)
            continue
        # Rows that share an output wait for their place; there are none unless duplicates are shared.
        while waiting and waiting[0][0] < item.row_index:
            yield _record(snapshot.rows, *heapq.heappop(waiting))
        yield _record(snapshot.rows, item.row_index, item, output)
        for index in item.meta.get("shared_row_indices", ()):
            heapq.heappush(waiting, (index, item, output))
    while waiting:
        yield _record(snapshot.rows, *heapq.heappop(waiting))


def _record(rows: Sequence[Row], index: int, item: WorkItem, output: AcceptedOutput) -> Record:
    return {"input": rows[index], **_made(index, item, output)}


def _made(index: int | None, item: WorkItem, output: AcceptedOutput) -> Record:
    # Positions come from the plan: those in a cached artifact are of the day on which it was made.
    current = {"row_index": index, "group_key": item.group_key, "partition_key": item.partition_key}
    return {"parsed": output.parsed, "judge": output.judge, "meta": {**output.meta, **current}}


def _group_record(snapshot: Snapshot, column: str, item: WorkItem, output: AcceptedOutput) -> Record:
    indices: list[int] = item.meta["row_indices"]
    return {
        "input": {column: item.group_key or ""},
        **_made(None, item, output),
        "input_group_rows": [snapshot.rows[index] for index in indices],
        "input_group_row_indices": indices,
        "grouping_column": column,
        "group_context": item.context,
    }


def cells(record: Record, columns: Iterable[Column]) -> list[str]:
    """The record as one line of a table."""
    return [cell_text((record[column.part] or {}).get(column.key)) for column in columns]


def cell_text(value: Any) -> str:
    """A value as a cell: texts as they are, nothing as "", lists and objects as JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else canonical_json(value)


def export_manifest(
    columns: Iterable[Column], files: Mapping[str, str], n_records: int, counts: Mapping[str, int], now: str
) -> dict[str, Any]:
    """``pipeline5_manifest.json``: what was written, with which columns, and what is not in it."""
    return {
        "meta": {"pipeline": 5, "generated_at_utc": now},
        "columns": [{"name": column.name, "from": f"{column.part}.{column.key}"} for column in columns],
        "counts": {"n_records": n_records, **counts},
        "files": dict(files),
    }
