"""Export stage: write the accepted outputs as tables and JSON lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from llmbatch_assets.adapters.tables.export_file import ExportRow
from llmbatch_assets.adapters.tables.formats import exporting, read_table
from llmbatch_assets.domain.configuration.input_blocks import Input
from llmbatch_assets.domain.export.columns import Column, OutputSchema, cells
from llmbatch_assets.domain.export.manifest import (
    PREVIEW_ROWS,
    ExportManifest,
    ExportMeta,
    column_list,
    export_counts,
    export_notes,
    has_model_records,
    preview,
)
from llmbatch_assets.domain.export.records import (
    NOT_EXPORTED_COLUMNS,
    Entry,
    ItemOutcome,
    Join,
    NotExported,
    entries,
)
from llmbatch_assets.domain.file_uses import earlier
from llmbatch_assets.domain.items.cell import cell_text
from llmbatch_assets.domain.items.table import Snapshot
from llmbatch_assets.domain.items.work import WorkItem
from llmbatch_assets.domain.outcome import AcceptedOutput
from llmbatch_assets.errors import ArtifactError, LlmBatchError, TableError
from llmbatch_assets.stages.artifacts import BatchOutputs, artifact_path, batch_outputs, load_artifact
from llmbatch_assets.stages.own_files import require_own_files
from llmbatch_assets.stages.project import Batch
from llmbatch_assets.stages.runtime import utc_now

# Entries per write.
CHUNK = 500


class ExportResult(NamedTuple):
    """The manifest of an export, and its first records as a Markdown table."""

    manifest: ExportManifest
    preview: str


def write_exports(batch: Batch, outputs: BatchOutputs, snapshot: Snapshot) -> ExportResult:
    """Write the configured exports and the file of what is not exported. Their counts add up to the number of items.

    Raises ``ConfigError`` if ``outputs`` names a field or column that does not exist, or a file that no run has written.
    """
    join = Join.of(snapshot, batch.parameters)
    columns = columns_of_export(batch, join)
    require_own_files(batch, "export")
    run = _ExportRun(batch, columns)
    run.write(entries(join, run.counting(outputs.outcomes(batch.shown))))
    return ExportResult(run.manifest(), preview(run.columns, [line.cells for line in run.first_lines]))


def columns_of_export(batch: Batch, join: Join) -> list[Column]:
    """The columns of the batch's exports. Raises ``ConfigError`` as ``write_exports`` does."""
    # Unlike the prompt's schema, this one has fields that a trusted module computes or serializes in its own way.
    schema = OutputSchema(batch.schema.output().model.model_json_schema(mode="serialization"))
    verdict = OutputSchema(batch.schema.judge().json_schema).fields(flatten=False) if batch.judge_prompt else ()
    judge = {field.path[0]: field.type for field in verdict if field.path}
    return join.columns(schema, judge, flatten=batch.parameters.outputs.nested == "flatten")


def notes_on_export(batch: Batch) -> list[str]:
    """Notes on the latest export; none if there is no export yet."""
    if not artifact_path(batch, "export").is_file():
        return []
    return export_notes(load_artifact(batch, "export", ExportManifest))


@dataclass
class _ExportRun:
    """One pass over all items of a batch."""

    batch: Batch
    columns: Sequence[Column]
    items: Counter[str] = field(default_factory=Counter)
    lines: Counter[str] = field(default_factory=Counter)
    changes: dict[str, Counter[str]] = field(default_factory=dict)
    first_lines: list[ExportRow] = field(default_factory=list)
    set_aside: list[str] = field(default_factory=list)

    @property
    def _files(self) -> dict[str, PurePosixPath]:
        return {name: self.batch.layout.export(name) for name in self.batch.parameters.outputs.formats}

    def counting(self, outcomes: Iterable[ItemOutcome]) -> Iterator[ItemOutcome]:
        for outcome in outcomes:
            self.items["exported" if outcome.output else outcome.reason] += 1
            yield outcome

    def write(self, found: Iterator[Entry]) -> None:
        batch = self.batch
        paths = {name: batch.path(path) for name, path in self._files.items()}
        rest, rest_changes = {"csv": batch.path(batch.layout.not_exported)}, dict[str, Counter[str]]()
        outputs = batch.parameters.outputs
        form: dict[str, bool] = {"escape_formulas": outputs.escape_formulas, "csv_bom": outputs.csv_bom}
        with (
            exporting(paths, self.columns, self.changes, **form) as export,
            exporting(rest, NOT_EXPORTED_COLUMNS, rest_changes, **form) as export_rest,
        ):
            while chunk := list(islice(found, CHUNK)):
                export(self._record_lines(chunk))
                export_rest(self._rest_lines(chunk))
            self._set_aside(list(paths.values()))
        self.changes["not_exported"] = rest_changes["csv"]

    def _record_lines(self, chunk: Sequence[Entry]) -> list[ExportRow]:
        lines = [ExportRow(entry, cells(entry, self.columns)) for entry in chunk if not isinstance(entry, NotExported)]
        self.lines["exported"] += len(lines)
        self.first_lines += lines[: PREVIEW_ROWS - len(self.first_lines)]
        return lines

    def _rest_lines(self, chunk: Sequence[Entry]) -> list[ExportRow]:
        rest = [entry for entry in chunk if isinstance(entry, NotExported)]
        self.lines.update(entry.state for entry in rest)
        records = [entry.record() for entry in rest]
        return [ExportRow(record, cells(record, NOT_EXPORTED_COLUMNS)) for record in records]

    def _set_aside(self, paths: Sequence[Path]) -> None:
        """Keep the previous export of a model's outputs when the new one is empty or generated offline."""
        previous = _previous_manifest(self.batch)
        is_offline = self.batch.source.provider == "offline"
        if has_model_records(previous) and (is_offline or not self.lines["exported"]):
            kept = [path.replace(path.with_name(earlier(PurePosixPath(path)).name)) for path in paths if path.is_file()]
            self.set_aside = [self.batch.shown(path) for path in kept]

    def manifest(self) -> ExportManifest:
        return ExportManifest(
            meta=ExportMeta(generated_at_utc=utc_now(), provider=self.batch.source.provider),
            columns=column_list(self.columns),
            counts=export_counts(self.items, self.lines),
            changes={name: dict(sorted(changed.items())) for name, changed in self.changes.items() if changed},
            files={name: str(path) for name, path in self._files.items()},
            not_exported_file=str(self.batch.layout.not_exported),
            set_aside_files=self.set_aside,
        )


def _previous_manifest(batch: Batch) -> dict[str, Any]:
    """The manifest of the previous export; {} if there is none, or one that cannot be read and is about to be replaced."""
    try:
        return dict(load_artifact(batch, "export", ExportManifest).model_dump())
    except LlmBatchError:
        return {}


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
    """Labels of records that are missing, duplicated, or without an accepted output. Raises ``ArtifactError``."""
    expected, exported = _expected_records(batch_outputs(batch)), exported_records(batch)
    wanted = {(one.work_id, one.row_index): one.label for one in expected}
    counts = Counter((one.work_id, one.row_index) for one in exported)
    wrong = [label for key, label in wanted.items() if counts[key] != 1]
    return wrong + list(dict.fromkeys(one.label for one in exported if (one.work_id, one.row_index) not in wanted))


def out_of_date(batch: Batch) -> list[str]:
    """Labels of exported records whose output is not the currently accepted one. Raises ``ArtifactError``."""
    current = set(_expected_records(batch_outputs(batch)))
    return list(dict.fromkeys(one.label for one in exported_records(batch) if one not in current))


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
