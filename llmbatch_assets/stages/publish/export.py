"""Export stage: write the accepted outputs as tables and JSON lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

from llmbatch_assets.adapters.tables.export_file import ExportRow
from llmbatch_assets.adapters.tables.formats import exporting
from llmbatch_assets.domain.export.columns import Column, OutputSchema, cell_reader
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
from llmbatch_assets.domain.export.record_keys import RecordTally
from llmbatch_assets.domain.export.records import (
    NOT_EXPORTED_COLUMNS,
    Entry,
    ItemOutcome,
    Join,
    NotExported,
    entries,
    join_mode,
)
from llmbatch_assets.domain.file_uses import earlier
from llmbatch_assets.domain.items.table import Snapshot
from llmbatch_assets.errors import LlmBatchError
from llmbatch_assets.stages.artifacts import BatchOutputs, artifact_path, load_artifact
from llmbatch_assets.stages.own_files import require_own_files
from llmbatch_assets.stages.project import Batch
from llmbatch_assets.stages.publish.fingerprints import (
    checksums_of,
    export_fingerprint,
    exported_state,
    up_to_date_manifest,
)
from llmbatch_assets.stages.runtime import YOUNG_OBJECTS_OF_TABLES, rare_collections, utc_now

# Entries per write.
CHUNK = 500
# Lines that stand for the output of a group, like a record.
_ELEMENT_STATES = {"row_without_element", "element_without_row"}
_cells_of_rest = cell_reader(NOT_EXPORTED_COLUMNS)


def current_export(batch: Batch, outputs: BatchOutputs) -> ExportManifest | None:
    """The manifest of the last export if writing it again would change nothing, else None."""
    fingerprint = export_fingerprint(batch, [exported_state(outputs, item) for item in outputs.items])
    found: ExportManifest | None = up_to_date_manifest(batch, "export", ExportManifest, fingerprint)
    return found


def write_exports(batch: Batch, outputs: BatchOutputs, snapshot: Snapshot) -> ExportManifest:
    """Write the configured exports and the file of what is not exported. Their counts add up to the number of items.

    Raises ``ConfigError`` if ``outputs`` names a field or column that does not exist, or a file that no run has written.
    """
    join = Join.of(snapshot, batch.parameters)
    columns = columns_of_export(batch, join)
    require_own_files(batch, "export")
    run = _ExportRun(batch, columns)
    with rare_collections(YOUNG_OBJECTS_OF_TABLES):
        run.write(entries(join, run.outcomes(outputs)))
    return run.manifest()


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
    states: list[list[str]] = field(default_factory=list)
    items: Counter[str] = field(default_factory=Counter)
    lines: Counter[str] = field(default_factory=Counter)
    changes: dict[str, Counter[str]] = field(default_factory=dict)
    written_rows: Counter[str] = field(default_factory=Counter)
    first_lines: list[ExportRow] = field(default_factory=list)
    set_aside: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._cells = cell_reader(self.columns)
        self._given = RecordTally(join_mode(self.batch.parameters))

    @property
    def _files(self) -> dict[str, PurePosixPath]:
        return {name: self.batch.layout.export(name) for name in self.batch.parameters.outputs.formats}

    def outcomes(self, outputs: BatchOutputs) -> Iterator[ItemOutcome]:
        """The outcome of each item, counted."""
        shown = _shown_by_folder(self.batch)
        for item in outputs.items:
            # A failure's state first: if it changes before it is read, the next export notices.
            state = exported_state(outputs, item, "") if not outputs.has_file(item) else None
            outcome = outputs.outcome(item, shown)
            self.states.append(state or exported_state(outputs, item, outcome.output_sha))
            self.items["exported" if outcome.output else outcome.reason] += 1
            yield outcome

    def write(self, found: Iterator[Entry]) -> None:
        batch = self.batch
        paths = {name: batch.path(path) for name, path in self._files.items()}
        rest, rest_changes = {"csv": batch.path(batch.layout.not_exported)}, dict[str, Counter[str]]()
        outputs = batch.parameters.outputs
        form: dict[str, bool] = {"escape_formulas": outputs.escape_formulas, "csv_bom": outputs.csv_bom}
        with (
            exporting(paths, self.columns, self.changes, self.written_rows, **form) as export,
            exporting(rest, NOT_EXPORTED_COLUMNS, rest_changes, **form) as export_rest,
        ):
            while chunk := list(islice(found, CHUNK)):
                lines = self._record_lines(chunk)
                self._given.add(line.record["meta"] for line in lines)
                export(lines)
                export_rest(self._rest_lines(chunk))
            self._set_aside(list(paths.values()))
        self.changes["not_exported"] = rest_changes["csv"]

    def _record_lines(self, chunk: Sequence[Entry]) -> list[ExportRow]:
        records = [entry for entry in chunk if not isinstance(entry, NotExported)]
        lines = [ExportRow(record, self._cells(record)) for record in records]
        self.lines["exported"] += len(lines)
        self.first_lines += lines[: PREVIEW_ROWS - len(self.first_lines)]
        return lines

    def _rest_lines(self, chunk: Sequence[Entry]) -> list[ExportRow]:
        rest = [entry for entry in chunk if isinstance(entry, NotExported)]
        self.lines.update(entry.state for entry in rest)
        self._given.add(self._meta_of(entry.work_id) for entry in rest if entry.state in _ELEMENT_STATES)
        records = [entry.record() for entry in rest]
        return [ExportRow(record, _cells_of_rest(record)) for record in records]

    def _meta_of(self, work_id: str) -> dict[str, str]:
        return {"work_id": work_id, "cache_id": self.batch.source.identity.cache_id(work_id)}

    def _set_aside(self, paths: Sequence[Path]) -> None:
        """Keep the previous export of a model's outputs when the new one is empty or generated offline."""
        previous = _previous_manifest(self.batch)
        is_offline = self.batch.source.provider == "offline"
        if has_model_records(previous) and (is_offline or not self.lines["exported"]):
            kept = [path.replace(path.with_name(earlier(PurePosixPath(path)).name)) for path in paths if path.is_file()]
            self.set_aside = [self.batch.shown(path) for path in kept]

    def manifest(self) -> ExportManifest:
        fingerprint = export_fingerprint(self.batch, self.states)
        provider, not_exported = self.batch.source.provider, self.batch.layout.not_exported
        return ExportManifest(
            meta=ExportMeta(generated_at_utc=utc_now(), provider=provider, fingerprint=fingerprint),
            columns=column_list(self.columns),
            counts=export_counts(self.items, self.lines),
            changes={name: dict(sorted(changed.items())) for name, changed in self.changes.items() if changed},
            files={name: str(path) for name, path in self._files.items()},
            not_exported_file=str(not_exported),
            set_aside_files=self.set_aside,
            checksums=checksums_of(self.batch, [*self._files.values(), not_exported]),
            records=self._given.sum,
            written_rows=dict(sorted(self.written_rows.items())),
            preview=preview(self.columns, [line.cells for line in self.first_lines]),
        )


def _shown_by_folder(batch: Batch) -> Callable[[Path], str]:
    """``Batch.shown``, which takes a while, asked once for each folder."""
    shown = cache(batch.shown)
    return lambda path: f"{shown(path.parent)}/{path.name}"


def _previous_manifest(batch: Batch) -> dict[str, Any]:
    """The manifest of the previous export; {} if there is none, or one that cannot be read and is about to be replaced."""
    try:
        return dict(load_artifact(batch, "export", ExportManifest).model_dump())
    except LlmBatchError:
        return {}
