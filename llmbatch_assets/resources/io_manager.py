"""Dagster's way to our artifacts: whole ones as JSON files, the outputs of a batch as a lazy reader."""

from pathlib import Path
from typing import Any

import dagster as dg

from llmbatch_assets.adapters.files.atomic import log_written, write_json_if_changed
from llmbatch_assets.stages.artifacts import BatchOutputs, artifact_path, batch_outputs, load_artifact
from llmbatch_assets.stages.project import Batch, BatchFile


class JsonIOManager(dg.ConfigurableIOManager):
    """Keeps the artifacts of one batch, in its folders and in the one canonical form."""

    config_file: str
    offline: bool = False

    def _batch(self) -> Batch:
        return BatchFile(Path(self.config_file), self.offline).load()

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Write a whole artifact. The same bytes are not written again."""
        batch = self._batch()
        path = artifact_path(batch, context.asset_key.path[-1])
        size, written = write_json_if_changed(path, obj)
        context.log.info(f"{'wrote' if written else 'unchanged:'} {batch.shown(path)} (bytes={size})")
        # What a manifest says was written was written just before it.
        for file, rows in _files_of(obj).items():
            log_written(file, batch.path(file).stat().st_size, rows)
        if written:
            log_written(batch.shown(path), size)
        context.add_output_metadata({"path": dg.MetadataValue.path(batch.shown(path)), "bytes": size})

    def load_input(self, context: dg.InputContext) -> Any:
        """The artifact as the type that the asset's parameter is annotated with."""
        batch, asset = self._batch(), context.asset_key.path[-1]
        kind = context.dagster_type.typing_type
        return batch_outputs(batch) if kind is BatchOutputs else load_artifact(batch, asset, kind)


def _files_of(artifact: Any) -> dict[str, int | None]:
    """Return the files that a manifest lists, with their number of rows where it is known."""
    if not isinstance(artifact, dict):
        return {}
    counts = artifact.get("counts", {})
    files: dict[str, int | None] = dict.fromkeys(artifact.get("files", {}).values(), counts.get("n_records"))
    if not_exported := artifact.get("not_exported_file"):
        files[not_exported] = counts.get("n_not_exported")
    return files
