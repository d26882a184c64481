"""Check the exported file against the current outputs. It is parsed only if it is not the file that the export wrote."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from llmbatch_assets.adapters.tables.formats import read_table
from llmbatch_assets.domain.configuration.input_blocks import Input
from llmbatch_assets.domain.items.cell import cell_text
from llmbatch_assets.domain.items.work import WorkItem
from llmbatch_assets.domain.outcome import AcceptedOutput
from llmbatch_assets.errors import ArtifactError, TableError
from llmbatch_assets.stages.artifacts import batch_outputs
from llmbatch_assets.stages.project import Batch
from llmbatch_assets.stages.publish.export import current_export


class ExportedRecord(NamedTuple):
    """The item, row and output of an exported record. ``row_index`` is "" for the record of a group."""

    work_id: str
    row_index: str
    cache_id: str
    created_at_utc: str

    @property
    def label(self) -> str:
        return f"row {self.row_index}" if self.row_index else f"item {self.work_id}"


class ExportProblems(NamedTuple):
    """Labels of exported records by what is wrong with them."""

    # Missing, duplicated, or without an accepted output.
    not_once: Sequence[str] = ()
    # Not from the currently accepted output.
    outdated: Sequence[str] = ()


def export_problems(batch: Batch) -> ExportProblems:
    """Compare the export with the current outputs. Raises ``ArtifactError``."""
    outputs = batch_outputs(batch)
    if current_export(batch, outputs):
        return ExportProblems()
    expected, exported = _expected_records(outputs), exported_records(batch)
    return ExportProblems(_not_once(expected, exported), _outdated(expected, exported))


def _not_once(expected: Iterable[ExportedRecord], exported: Iterable[ExportedRecord]) -> list[str]:
    wanted = {(one.work_id, one.row_index): one.label for one in expected}
    counts = Counter((one.work_id, one.row_index) for one in exported)
    wrong = [label for key, label in wanted.items() if counts[key] != 1]
    return wrong + list(dict.fromkeys(one.label for one in exported if (one.work_id, one.row_index) not in wanted))


def _outdated(expected: Iterable[ExportedRecord], exported: Iterable[ExportedRecord]) -> list[str]:
    current = set(expected)
    return list(dict.fromkeys(one.label for one in exported if one not in current))


def exported_records(batch: Batch) -> Sequence[ExportedRecord]:
    """The records in the file of the first configured format; none if it is missing or empty. Raises ``ArtifactError``."""
    file_format = batch.parameters.outputs.formats[0]
    path = batch.path(batch.layout.export(file_format))
    if not path.is_file() or not path.stat().st_size:
        return []
    columns, rows = read_export(batch, path, file_format)
    records = [_exported_record(dict(zip(columns, row, strict=False))) for row in rows]
    parameters = batch.parameters
    if parameters.outputs.spreads_groups and parameters.grouping.active_mode.makes_one_item_per_group:
        # The records of a group together stand for the group.
        return list(dict.fromkeys(one._replace(row_index="") for one in records))
    return records


# The limit protects against untrusted tables; our own exports are trusted.
_ANY_SIZE_MB = 10**9


def read_export(batch: Batch, path: Path, file_format: str) -> tuple[list[str], list[Sequence[Any]]]:
    """The columns and rows of an export. Raises ``ArtifactError`` if it is damaged or was changed to something else."""
    try:
        settings = {"path": str(path), "format": file_format, "max_expanded_mb": _ANY_SIZE_MB}
        table = read_table(path, Input.model_validate(settings))
        return list(table.columns), list(table.rows)
    except TableError as broken:
        # The reader's advice is about input tables.
        problem = str(broken).partition(";")[0]
        raise ArtifactError(f"{problem}; write the export again with: {batch.command} --select export") from None


def _exported_record(record: Mapping[str, Any]) -> ExportedRecord:
    # JSON lines have one meta object, tables a column per field.
    meta = record.get("meta") or {name: record.get(f"meta_{name}") for name in ExportedRecord._fields}
    return ExportedRecord(*(cell_text(meta.get(name)) for name in ExportedRecord._fields))


def _expected_records(outputs: Iterable[tuple[WorkItem, AcceptedOutput]]) -> list[ExportedRecord]:
    """The records expected from the current outputs: one per row with an output, or one per group."""
    expected = []
    for item, output in outputs:
        rows = [item.row_index, *item.meta.get("shared_row_indices", ())]
        made = (str(output.meta["cache_id"]), str(output.meta["created_at_utc"]))
        expected += [ExportedRecord(item.work_id, "" if row is None else str(row), *made) for row in rows]
    return expected
