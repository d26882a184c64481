"""Everything that can be wrong before a run begins, told before it begins."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence

from llmbatch_assets.adapters.providers.credentials import missing_keys
from llmbatch_assets.adapters.providers.prices import require_prices
from llmbatch_assets.domain.export.join import Join, export_warnings
from llmbatch_assets.domain.items.grouping import plan_work
from llmbatch_assets.domain.items.table import Snapshot
from llmbatch_assets.domain.plan.selection import Selection
from llmbatch_assets.domain.request import checked_prompts, prompt_warnings
from llmbatch_assets.errors import ConfigError, MissingArtifactError
from llmbatch_assets.stages.artifacts import artifact_path
from llmbatch_assets.stages.export import columns_of_export
from llmbatch_assets.stages.plan import plan_of_run
from llmbatch_assets.stages.project import Batch
from llmbatch_assets.stages.report import columns_to_count
from llmbatch_assets.stages.write_schema import reason_to_write, schema_txt_mismatch

log = logging.getLogger(__name__)

_NEEDS = {
    "work_items": ("input_snapshot",),
    "llm_outputs": ("work_items", "group_contexts"),
    "export": ("input_snapshot", "work_items"),
    "report": ("input_snapshot", "work_items", "llm_outputs", "export"),
}


def preflight(batch: Batch, assets: Sequence[str], *, force_schema: bool = False) -> None:
    """Raise the ``InputError`` that a run of these assets would end in. Nothing is written."""
    schema_is_due = "llm_schema_py" in assets and bool(reason_to_write(batch, force=force_schema))
    _check_contracts(batch, assets, schema_is_due=schema_is_due)
    if {"llm_schema_py", "llm_outputs"} & set(assets):
        require_prices(batch.parameters)
    if "llm_outputs" in assets:
        for warning in prompt_warnings(batch.generation_prompt):
            log.warning("%s", warning)
        if "llm_schema_txt" not in assets and (mismatch := schema_txt_mismatch(batch)):
            log.warning("%s", mismatch)
    if "input_snapshot" in assets:
        snapshot = _check_table(batch, with_export="export" in assets and not schema_is_due)
        if "report" in assets and not schema_is_due:
            columns_to_count(batch, snapshot.columns)
    for asset in assets:
        _require(batch, asset, [needed for needed in _NEEDS.get(asset, ()) if needed not in assets])


def require_keys(batch: Batch, assets: Sequence[str], selection: Selection, forced: Collection[str]) -> None:
    """Raise ``ConfigError`` where a run of these assets has calls to make and a key for them is not set."""
    missing = missing_keys(batch.parameters, batch.root)
    if missing and _makes_calls(batch, assets, selection, forced):
        raise ConfigError("; ".join(missing))


def _makes_calls(batch: Batch, assets: Sequence[str], selection: Selection, forced: Collection[str]) -> bool:
    if "llm_schema_py" in assets and reason_to_write(batch, force="llm_schema_py" in forced):
        return True
    if "llm_outputs" not in assets:
        return False
    plan = plan_of_run(batch, selection, force="llm_outputs" in forced, plans="work_items" in assets)
    return plan.estimate.calls.high > 0


def _check_table(batch: Batch, *, with_export: bool) -> Snapshot:
    snapshot = batch.read_snapshot()
    plan = plan_work(snapshot, batch.parameters)
    for warning in (*snapshot.meta["warnings"], *plan.warnings):
        log.warning("%s: %s", batch.parameters.input.path, warning)
    if with_export:
        columns_of_export(batch, Join.of(snapshot, batch.parameters))
        for warning in export_warnings(batch.parameters):
            log.warning("%s", warning)
    return snapshot


def _check_contracts(batch: Batch, assets: Sequence[str], *, schema_is_due: bool) -> None:
    needs_prompts = bool({"llm_outputs", "export", "report"} & set(assets))
    if schema_is_due:
        # The module that there is, if any, is about to be replaced.
        if needs_prompts:
            checked_prompts(batch.generation_prompt, batch.judge_prompt)
    elif not batch.path(batch.layout.schema_py).is_file() and (needs_prompts or "llm_schema_txt" in assets):
        force = "" if batch.parameters.llm_schema.auto_generate else " --force"
        raise MissingArtifactError(
            f"{batch.layout.schema_py} does not exist; write it, or have it written with: "
            f"{batch.command} --select llm_schema_py{force}"
        )
    elif needs_prompts:
        _ = batch.conversations
    elif {"llm_schema_py", "llm_schema_txt"} & set(assets):
        batch.check_schema()


def _require(batch: Batch, asset: str, needed: Sequence[str]) -> None:
    for upstream in needed:
        path = artifact_path(batch, upstream)
        if not path.is_file():
            raise MissingArtifactError(
                f"{asset} starts from {batch.shown(path)}, which does not exist; "
                f"make it with: {batch.command} --select {upstream}"
            )
