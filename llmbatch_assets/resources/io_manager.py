"""Dagster's I/O manager for artifacts: JSON files, and a lazy reader for the outputs of a batch."""

from pathlib import Path
from typing import Any

import dagster as dg

from llmbatch_assets.adapters.files.atomic import keep_json, tell_written
from llmbatch_assets.adapters.store.reader import OutputReader
from llmbatch_assets.stages.artifacts import artifact_path, load_artifact, output_reader
from llmbatch_assets.stages.project import Batch, BatchFile


class JsonIOManager(dg.ConfigurableIOManager):
    """Stores the artifacts of one batch in its folders, as canonical JSON."""

    config_file: str
    offline: bool = False

    def _batch(self) -> Batch:
        return BatchFile(Path(self.config_file), self.offline).load()

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Write an artifact, unless the file already has the same content."""
        batch = self._batch()
        path = artifact_path(batch, context.asset_key.path[-1])
        size, written = keep_json(path, obj)
        context.log.info(f"{'wrote' if written else 'unchanged:'} {batch.shown(path)} (bytes={size})")
        # The files that a manifest lists were written just before it.
        for file in _files_of(obj):
            tell_written(file, batch.path(file).stat().st_size)
        if written:
            tell_written(batch.shown(path), size)
        context.add_output_metadata({"path": dg.MetadataValue.path(batch.shown(path)), "bytes": size})

    def load_input(self, context: dg.InputContext) -> Any:
        """Load the artifact as the type of the asset's parameter."""
        batch, asset = self._batch(), context.asset_key.path[-1]
        kind = context.dagster_type.typing_type
        return output_reader(batch) if kind is OutputReader else load_artifact(batch, asset, kind)


def _files_of(artifact: Any) -> list[str]:
    """The files that a manifest says were written."""
    if not isinstance(artifact, dict):
        return []
    return [*artifact.get("files", {}).values(), *filter(None, [artifact.get("not_exported_file")])]
