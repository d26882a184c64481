"""Dagster's way to our artifacts: whole ones as JSON files, the outputs of a batch as a lazy reader."""

from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import TypeAdapter, ValidationError

from llmbatch_assets.adapters.files import keep_json, read_json
from llmbatch_assets.adapters.output_reader import OutputReader
from llmbatch_assets.adapters.output_store import FileStore
from llmbatch_assets.adapters.project import Batch, BatchFile
from llmbatch_assets.domain.work import WorkItems
from llmbatch_assets.errors import ArtifactError

_PATHS = {
    "input_snapshot": "snapshot",
    "group_contexts": "group_contexts",
    "work_items": "work_items",
}
_MANIFESTS = {"llm_outputs": 4, "export": 5, "report": 6}


def artifact_path(batch: Batch, asset: str) -> Path:
    """Where an asset's JSON artifact lies."""
    layout = batch.layout
    relative = layout.manifest(_MANIFESTS[asset]) if asset in _MANIFESTS else getattr(layout, _PATHS[asset])
    return batch.path(relative)


def output_store(batch: Batch) -> FileStore:
    """The output cache of a batch."""
    layout = batch.layout
    return FileStore(
        outputs=batch.path(layout.llm_outputs),
        failures=batch.path(layout.llm_failures),
        forced=batch.path(layout.forced),
        keep_failures=batch.parameters.cache.dump_failures,
    )


def load_artifact(batch: Batch, asset: str, kind: Any) -> Any:
    """An asset's artifact as the type ``kind``. Raises ``MissingArtifactError`` or ``ArtifactError``."""
    path = artifact_path(batch, asset)
    content = read_json(path, f"{batch.command} --select {asset}")
    try:
        return TypeAdapter(kind).validate_python(content)
    except ValidationError as broken:
        first = broken.errors()[0]
        raise ArtifactError(
            f"{path} is not what {asset} writes ({'.'.join(map(str, first['loc']))}: {first['msg']}); "
            f"make it again with: {batch.command} --select {asset}"
        ) from None


def output_reader(batch: Batch) -> OutputReader:
    """The outputs of the batch as it is configured now."""
    work_items = load_artifact(batch, "work_items", WorkItems)
    warnings = work_items.meta.get("warnings", ())
    return OutputReader(output_store(batch), batch.source.identity, work_items.items, warnings)


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
        size, written = keep_json(path, obj)
        context.log.info(f"{'wrote' if written else 'unchanged:'} {batch.shown(path)} (bytes={size})")
        context.add_output_metadata({"path": dg.MetadataValue.path(batch.shown(path)), "bytes": size})

    def load_input(self, context: dg.InputContext) -> Any:
        """The artifact as the type that the asset's parameter is annotated with."""
        batch, asset = self._batch(), context.asset_key.path[-1]
        kind = context.dagster_type.typing_type
        return output_reader(batch) if kind is OutputReader else load_artifact(batch, asset, kind)
