"""Pipeline 5 of one batch: from accepted outputs to files for people and programs."""

from typing import Any

from llmbatch_assets.adapters.exporters import export_file
from llmbatch_assets.adapters.output_reader import OutputReader
from llmbatch_assets.adapters.project import Batch
from llmbatch_assets.domain.export import export_columns, export_manifest, records
from llmbatch_assets.domain.table import Snapshot
from llmbatch_assets.resources.generation import utc_now


def deliver_exports(batch: Batch, outputs: OutputReader, snapshot: Snapshot) -> dict[str, Any]:
    """Write every configured export; gives the manifest, whose counts add up to the number of items."""
    grouping = batch.parameters.grouping
    grouped = grouping.effective_mode == "group_output"
    column = grouping.column if grouped else None
    fields = batch.schema.output().json_schema.get("properties", {})
    columns = export_columns([column] if column else snapshot.columns, fields)
    files: dict[str, str] = {}
    for file_format in batch.parameters.outputs.formats:
        path = batch.layout.export(file_format)
        export_file(batch.path(path), file_format, records(snapshot, column, outputs), columns)
        files[file_format] = str(path)
    n_records = sum(1 for _ in records(snapshot, column, outputs))
    return export_manifest(columns, files, n_records, _counts(outputs), utc_now())


def _counts(outputs: OutputReader) -> dict[str, int]:
    states = [outputs.store.state(outputs.identity.cache_id(item.work_id)) for item in outputs.items]
    accepted, missing = states.count("accepted"), states.count("missing")
    return {
        "n_items": len(states),
        "n_exported": accepted,
        "n_failed": len(states) - accepted - missing,
        "n_missing": missing,
    }
