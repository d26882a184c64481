"""The exported file read back and compared with the accepted outputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from llmbatch_assets.adapters.tables.readers import read_table
from llmbatch_assets.domain.items.cell import cell_text
from llmbatch_assets.domain.items.work import WorkItem
from llmbatch_assets.domain.outcome import AcceptedOutput
from llmbatch_assets.domain.parameters import Input
from llmbatch_assets.stages.artifacts import batch_outputs
from llmbatch_assets.stages.project import Batch


class ExportedRecord(NamedTuple):
    """The item, row and output of an exported record. ``row_index`` is "" for the record of a group."""

    work_id: str
    row_index: str
    cache_id: str
    created_at_utc: str

    @property
    def label(self) -> str:
        return f"row {self.row_index}" if self.row_index else f"item {self.work_id}"


def not_exported_once(batch: Batch) -> list[str]:
    """Labels of records that are missing, duplicated, or without an accepted output. Raises ``TableError``."""
    expected, exported = _expected_records(batch_outputs(batch)), exported_records(batch)
    wanted = {(one.work_id, one.row_index): one.label for one in expected}
    counts = Counter((one.work_id, one.row_index) for one in exported)
    wrong = [label for key, label in wanted.items() if counts[key] != 1]
    return wrong + list(dict.fromkeys(one.label for one in exported if (one.work_id, one.row_index) not in wanted))


def out_of_date(batch: Batch) -> list[str]:
    """Labels of exported records whose output is not the currently accepted one. Raises ``TableError``."""
    current = set(_expected_records(batch_outputs(batch)))
    return list(dict.fromkeys(one.label for one in exported_records(batch) if one not in current))


def exported_records(batch: Batch) -> Sequence[ExportedRecord]:
    """The records in the file of the first configured format; none if it is missing or empty. Raises ``TableError``."""
    file_format = batch.parameters.outputs.formats[0]
    path = batch.path(batch.layout.export(file_format))
    if not path.is_file() or not path.stat().st_size:
        return []
    table = read_table(path, Input.model_validate({"path": str(path), "format": file_format}))
    records = [_exported_record(dict(zip(table.columns, row, strict=False))) for row in table.rows]
    if (
        not batch.parameters.outputs.spreads_groups
        or not batch.parameters.grouping.active_mode.makes_one_item_per_group
    ):
        return records
    # The records of a group together stand for the group.
    return list(dict.fromkeys(one._replace(row_index="") for one in records))


def _exported_record(record: Mapping[str, Any]) -> ExportedRecord:
    # JSON lines have one meta object, tables a column per field.
    meta = record.get("meta") or {name: record.get(f"meta_{name}") for name in ExportedRecord._fields}
    return ExportedRecord(*(cell_text(meta.get(name)) for name in ExportedRecord._fields))


def _expected_records(outputs: Iterable[tuple[WorkItem, AcceptedOutput]]) -> list[ExportedRecord]:
    """The records that the current outputs should give: one per row that has an output, or one per group."""
    expected = []
    for item, output in outputs:
        rows = [item.row_index, *item.meta.get("shared_row_indices", ())]
        made = (str(output.meta["cache_id"]), str(output.meta["created_at_utc"]))
        expected += [ExportedRecord(item.work_id, "" if row is None else str(row), *made) for row in rows]
    return expected
