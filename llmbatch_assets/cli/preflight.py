"""Everything that can be wrong before a run begins, told before it begins."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from llmbatch_assets.adapters.project import Batch
from llmbatch_assets.domain.grouping import make_plan
from llmbatch_assets.errors import MissingArtifactError
from llmbatch_assets.resources.json_io_manager import artifact_path

log = logging.getLogger(__name__)

_NEEDS = {
    "work_items": ("input_snapshot",),
    "llm_outputs": ("work_items", "group_contexts"),
    "export": ("input_snapshot", "work_items"),
    "report": ("work_items", "llm_outputs", "export"),
}


def preflight(batch: Batch, assets: Sequence[str]) -> None:
    """Raise the ``InputError`` that a run of these assets would end in. Nothing is written."""
    if {"llm_outputs", "export", "report"} & set(assets):
        _ = batch.conversations
    elif {"llm_schema_py", "llm_schema_txt"} & set(assets):
        batch.schema.output()
    if "input_snapshot" in assets:
        snapshot = batch.read_snapshot()
        plan = make_plan(snapshot, batch.parameters)
        for warning in (*snapshot.meta["warnings"], *plan.warnings):
            log.warning("%s: %s", batch.parameters.input.path, warning)
    for asset in assets:
        _require(batch, asset, [needed for needed in _NEEDS.get(asset, ()) if needed not in assets])


def _require(batch: Batch, asset: str, needed: Sequence[str]) -> None:
    for upstream in needed:
        path = artifact_path(batch, upstream)
        if not path.is_file():
            raise MissingArtifactError(
                f"{asset} starts from {batch.shown(path)}, which does not exist; "
                f"make it with: {batch.command} --select {upstream}"
            )
