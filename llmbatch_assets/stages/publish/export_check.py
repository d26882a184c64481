"""Check the exported files against the current outputs.

The manifest says which records the export gave to the writers, how many rows each of them wrote, and the checksums of the
files. A file is parsed only if something of this is not as it should be, to name the rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from llmbatch_assets.adapters.tables.formats import read_table
from llmbatch_assets.domain.configuration.input_blocks import Input
from llmbatch_assets.domain.export.manifest import ExportManifest
from llmbatch_assets.domain.export.record_keys import RecordKey, expected_keys, record_key, records_sum
from llmbatch_assets.domain.export.records import JoinMode, join_mode
from llmbatch_assets.domain.items.cell import cell_text
from llmbatch_assets.errors import ArtifactError, LlmBatchError, TableError
from llmbatch_assets.stages.artifacts import BatchOutputs, batch_outputs, load_artifact
from llmbatch_assets.stages.project import Batch
from llmbatch_assets.stages.publish.export import current_export
from llmbatch_assets.stages.publish.fingerprints import checksums_of


class ExportedRecord(NamedTuple):
    """The key of an exported record, and when its output was made."""

    key: RecordKey
    created_at_utc: str

    @property
    def place(self) -> tuple[str, str]:
        return self.key.work_id, self.key.row_index


class ExportProblems(NamedTuple):
    """Labels of exported records by what is wrong with them."""

    # Missing, duplicated, or without an accepted output.
    not_once: Sequence[str] = ()
    # Not from the currently accepted output.
    outdated: Sequence[str] = ()


def export_problems(batch: Batch) -> ExportProblems:
    """Compare the export with the current outputs. Raises ``ArtifactError``."""
    outputs = batch_outputs(batch)
    manifest = current_export(batch, outputs)
    if manifest and not _miscounted(manifest) and manifest.records == _expected_sum(batch, outputs):
        return ExportProblems()
    expected = list(_expected_records(batch, outputs))
    found = [_problems(expected, exported_records(batch, name)) for name in _doubtful_formats(batch)]
    not_once, outdated = (
        list(dict.fromkeys(label for labels in kind for label in labels)) for kind in zip(*found, strict=True)
    )
    return ExportProblems(not_once, outdated)


def _expected_sum(batch: Batch, outputs: BatchOutputs) -> str:
    """The sum of the records that the current outputs are made into. Opens no file of an output that is known."""
    mode = join_mode(batch.parameters)
    with_id = ((item, outputs.identity.cache_id(item.work_id)) for item in outputs.items)
    accepted = ((item, cache_id) for item, cache_id in with_id if outputs.index.output_sha(cache_id))
    return records_sum(key for item, cache_id in accepted for key in expected_keys(item, cache_id, mode))


def _miscounted(manifest: ExportManifest) -> set[str]:
    """The formats whose writer did not write as many rows as there are records."""
    return {name for name, n_rows in manifest.written_rows.items() if n_rows != manifest.counts["n_records"]}


def _doubtful_formats(batch: Batch) -> Sequence[str]:
    """The formats whose files are not those that the export should have written; the first one if it is none by itself."""
    formats = batch.parameters.outputs.formats
    try:
        manifest: ExportManifest = load_artifact(batch, "export", ExportManifest)
    except LlmBatchError:
        return formats[:1]
    doubtful = _miscounted(manifest)
    for name, path in manifest.files.items():
        if checksums_of(batch, [path]).get(path) != manifest.checksums.get(path):
            doubtful.add(name)
    return [name for name in formats if name in doubtful] or formats[:1]


def _problems(expected: Sequence[ExportedRecord], exported: Sequence[ExportedRecord]) -> ExportProblems:
    wanted, current = {one.place: one.key.label for one in expected}, set(expected)
    counts = Counter(one.place for one in exported)
    missing_or_repeated = [label for place, label in wanted.items() if counts[place] != 1]
    unexpected = [one.key.label for one in exported if one.place not in wanted]
    return ExportProblems(missing_or_repeated + unexpected, [one.key.label for one in exported if one not in current])


def exported_records(batch: Batch, file_format: str) -> Sequence[ExportedRecord]:
    """The records in the file of the format; none if it is missing or empty. Raises ``ArtifactError``."""
    path = batch.path(batch.layout.export(file_format))
    if not path.is_file() or not path.stat().st_size:
        return []
    columns, rows = read_export(batch, path, file_format)
    mode = join_mode(batch.parameters)
    records = [_exported_record(dict(zip(columns, row, strict=False)), mode) for row in rows]
    return list(dict.fromkeys(records)) if mode == "explode" else records


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


def _exported_record(record: Mapping[str, Any], mode: JoinMode) -> ExportedRecord:
    # JSON lines have one meta object, tables a column per field.
    names = (*RecordKey._fields, "created_at_utc")
    meta = record.get("meta") or {name: record.get(f"meta_{name}") for name in names}
    return ExportedRecord(record_key(meta, mode), cell_text(meta.get("created_at_utc")))


def _expected_records(batch: Batch, outputs: BatchOutputs) -> Iterator[ExportedRecord]:
    """The records that the current outputs are made into."""
    mode = join_mode(batch.parameters)
    for item, output in outputs:
        for key in expected_keys(item, str(output.meta["cache_id"]), mode):
            yield ExportedRecord(key, str(output.meta["created_at_utc"]))
