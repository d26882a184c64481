"""Fingerprints of what the export and the report are made from, and checksums of their files.

Files are up to date if their manifest has the current fingerprint, and they have the checksums in it. Neither opens the
file of an output that the index knows, nor parses the table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from llmbatch_assets.adapters.files.checksums import code_sha, file_checksum, file_sha
from llmbatch_assets.domain.canonical import readable_json, sha1_named, sha1_text
from llmbatch_assets.domain.export.manifest import FileChecksum
from llmbatch_assets.domain.items.work import WorkItem
from llmbatch_assets.errors import LlmBatchError
from llmbatch_assets.stages.artifacts import BatchOutputs, artifact_path, load_artifact
from llmbatch_assets.stages.project import Batch


def export_fingerprint(batch: Batch, states: Sequence[Sequence[str]]) -> str:
    """The fingerprint of an export of items with these states; "" if it cannot be known."""
    parameters, layout = batch.parameters, batch.layout
    settings = {
        "outputs": parameters.outputs.model_dump(mode="json"),
        "grouping": parameters.grouping.model_dump(mode="json"),
        "paths": [str(layout.export(name)) for name in parameters.outputs.formats],
        "not_exported": str(layout.not_exported),
        "failures": str(layout.llm_failures),
        "provider": batch.source.provider,
        "judge_schema": batch.schema.judge().sha if batch.judge_prompt else None,
    }
    return _fingerprint(batch, states, settings)


def exported_state(outputs: BatchOutputs, item: WorkItem, output_sha: str | None = None) -> list[str]:
    """The state of an item as far as the export shows it. ``output_sha`` is that of its output's file, if it was read."""
    index, cache_id = outputs.index, outputs.identity.cache_id(item.work_id)
    if output_sha is None:
        output_sha = index.output_sha(cache_id)
    if output_sha:
        return [cache_id, output_sha]
    return [cache_id, "", *index.failure_shas(cache_id)[-1:], *(outputs.older(item) or ())]


def report_fingerprint(batch: Batch, outputs: BatchOutputs) -> str:
    """The fingerprint of the current report; "" if it cannot be known."""
    layout = batch.layout
    settings = {
        "batch": batch.name,
        "config": batch.config_sha(),
        "identity": batch.source.identity.sha,
        # Totals and the last runs.
        "records": [file_sha(batch.path(path)) for path in (layout.ledger, layout.run_history)],
        # The report links to the folder if it exists.
        "has_failures": batch.path(layout.llm_failures).is_dir(),
    }
    items = [_reported_state(outputs, item) for item in outputs.items]
    return _fingerprint(batch, items, settings)


def _reported_state(outputs: BatchOutputs, item: WorkItem) -> list[str]:
    index, cache_id = outputs.index, outputs.identity.cache_id(item.work_id)
    output_sha = index.output_sha(cache_id)
    return [cache_id, output_sha, *index.failure_shas(cache_id)]


def _fingerprint(batch: Batch, items: Sequence[Sequence[str]], settings: Mapping[str, Any]) -> str:
    artifacts = [file_sha(artifact_path(batch, asset)) for asset in ("input_snapshot", "work_items")]
    if not all(artifacts):
        return ""
    schema = [file_sha(batch.path(batch.layout.schema_py)), *_schema_shas(batch)]
    return sha1_named(code=code_sha(), artifacts=artifacts, schema=schema, settings=settings, items=items)


def _schema_shas(batch: Batch) -> list[str]:
    """What a trusted schema is besides its file, since it may import others."""
    if not batch.parameters.llm_schema.trust:
        return []
    output = batch.schema.output()
    # Not sorted, because the columns are in the order of the fields.
    forms = [output.json_schema, output.model.model_json_schema(mode="serialization")]
    return [sha1_text(readable_json(form)) for form in forms]


def checksums_of(batch: Batch, paths: Iterable[str | PurePosixPath]) -> dict[str, FileChecksum]:
    """The checksums of files that were just written."""
    found = {str(path): file_checksum(batch.path(path)) for path in paths}
    return {path: checksum for path, checksum in found.items() if checksum}


def up_to_date_manifest(batch: Batch, asset: str, kind: Any, fingerprint: str) -> Any:
    """The manifest of the last export or report if its files are up to date, else None."""
    try:
        manifest = load_artifact(batch, asset, kind)
    except LlmBatchError:
        return None
    if not fingerprint or manifest.meta.fingerprint != fingerprint:
        return None
    return manifest if checksums_of(batch, manifest.checksums) == manifest.checksums else None
