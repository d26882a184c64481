"""The artifacts of a batch by the names of the assets that write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError

from llmbatch_assets.adapters.files.atomic import read_json
from llmbatch_assets.adapters.store.outputs import FileStore
from llmbatch_assets.adapters.store.reader import OutputReader
from llmbatch_assets.domain.items.grouping import plan_work
from llmbatch_assets.domain.items.work import GroupContext, WorkItem, WorkItems
from llmbatch_assets.errors import ArtifactError
from llmbatch_assets.stages.project import Batch

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
        check=lambda parsed: batch.conversations.output_contract.validate(parsed),
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


class Planned(NamedTuple):
    """The items of a batch; ``from_table``: no run has kept them yet, so they were made of the table as it is now."""

    items: list[WorkItem]
    contexts: list[GroupContext]
    from_table: bool


def planned(batch: Batch) -> Planned:
    """The items that the last run kept, else those that a run would make now.

    Raises ``ArtifactError``, or an ``InputError`` of the table.
    """
    if artifact_path(batch, "work_items").is_file():
        contexts = load_artifact(batch, "group_contexts", list[GroupContext])
        return Planned(load_artifact(batch, "work_items", WorkItems).items, contexts, from_table=False)
    plan = plan_work(batch.read_snapshot(), batch.parameters)
    return Planned(plan.items, plan.contexts, from_table=True)
