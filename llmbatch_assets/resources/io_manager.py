"""Dagster's I/O manager for artifacts: JSON files, and a lazy reader for the outputs of a batch."""

from pathlib import Path
from typing import Any

import dagster as dg

from llmbatch_assets.adapters.files.atomic import log_unchanged, log_written, write_json_if_changed
from llmbatch_assets.domain.text import visible
from llmbatch_assets.resources.runs import failing_with_message
from llmbatch_assets.stages.artifacts import BatchOutputs, StoredSnapshot, artifact_path, batch_outputs, load_artifact
from llmbatch_assets.stages.downstream.tables import exported_table, output_records, outputs_table, table_builder
from llmbatch_assets.stages.project import Batch, BatchFile


class JsonIOManager(dg.ConfigurableIOManager):
    """Stores the artifacts of one batch in its folders, as canonical JSON."""

    config_file: str
    offline: bool = False

    def _batch(self) -> Batch:
        return BatchFile(Path(self.config_file), self.offline).load()

    @failing_with_message()
    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Write an artifact, unless the file already has the same content."""
        if obj is None:
            # The outputs of llm_outputs, which were stored one by one.
            return
        batch = self._batch()
        path = artifact_path(batch, context.asset_key.path[-1])
        size, written = write_json_if_changed(path, obj)
        shown = visible(batch.shown(path))
        context.log.info(f"{'wrote' if written else 'unchanged:'} {shown} (bytes={size})")
        if written:
            # The files that a manifest lists were written just before it.
            for file, rows in _files_of(obj).items():
                log_written(file, batch.path(file).stat().st_size, rows)
            log_written(batch.shown(path), size)
        elif files := _files_of(obj):
            log_unchanged(files, obj["meta"]["generated_at_utc"])
        context.add_output_metadata({"path": dg.MetadataValue.path(shown), "bytes": size})

    @failing_with_message()
    def load_input(self, context: dg.InputContext) -> Any:
        """Load the artifact as the type of the asset's parameter.

        As a data frame or an Arrow table, outputs have a row per item, and the export has a row per record. An asset with
        the partitions of ``llm_outputs`` gets the outputs of its own partitions.
        """
        batch, asset = self._batch(), context.asset_key.path[-1]
        kind = context.dagster_type.typing_type
        if kind is BatchOutputs:
            return batch_outputs(batch)
        if kind is StoredSnapshot:
            return StoredSnapshot(batch)
        if (build := table_builder(kind)) and asset in ("llm_outputs", "export"):
            return build(exported_table(batch) if asset == "export" else outputs_table(batch, _partitions(context)))
        if asset == "llm_outputs" and (own := _own_partitions(context)):
            records = output_records(batch, own)
            return records if context.step_context.has_partition_key_range else records[own[0]]
        return load_artifact(batch, asset, kind)


def _partitions(context: dg.InputContext) -> set[str] | None:
    """Return the partitions that the input consists of; None if the asset is loaded without its partitions."""
    return set(context.asset_partition_keys) if context.has_asset_partitions else None


def _own_partitions(context: dg.InputContext) -> list[str]:
    """Return the partitions of a run whose asset is partitioned like the input; otherwise none."""
    asset = context.step_context.assets_def
    is_alike = context.has_asset_partitions and asset and asset.partitions_def == context.asset_partitions_def
    return list(context.asset_partition_keys) if is_alike else []


def _files_of(artifact: Any) -> dict[str, int | None]:
    """Return the files that a manifest lists, with their number of rows where it is known."""
    if not isinstance(artifact, dict):
        return {}
    counts = artifact.get("counts", {})
    files: dict[str, int | None] = dict.fromkeys(artifact.get("files", {}).values(), counts.get("n_records"))
    if not_exported := artifact.get("not_exported_file"):
        files[not_exported] = counts.get("n_not_exported")
    return files
