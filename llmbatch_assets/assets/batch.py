"""One batch as Dagster definitions. Public: another Dagster project can build one, too."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from llmbatch_assets.adapters.project import BatchFile
from llmbatch_assets.assets.delivery import delivery_assets
from llmbatch_assets.assets.keys import Names
from llmbatch_assets.assets.outputs import llm_outputs_asset
from llmbatch_assets.assets.report import report_asset
from llmbatch_assets.assets.schema import schema_assets
from llmbatch_assets.assets.sources import source_assets
from llmbatch_assets.assets.work import work_assets
from llmbatch_assets.resources.generation import ReporterFactory
from llmbatch_assets.resources.json_io_manager import JsonIOManager
from llmbatch_assets.resources.llm import LlmResource

PREPARE = ("llm_schema_py", "llm_schema_txt", "input_snapshot", "group_contexts", "work_items")
GENERATE = ("llm_outputs",)
PUBLISH = ("export", "report")
STAGES = {"prepare": PREPARE, "generate": GENERATE, "publish": PUBLISH}


@dataclass(frozen=True)
class BatchDefinitions:
    """What one batch brings into a code location."""

    names: Names
    assets: list[dg.AssetsDefinition | dg.SourceAsset]
    jobs: list[dg.UnresolvedAssetJobDefinition]
    resources: dict[str, object]

    def definitions(self) -> dg.Definitions:
        """Everything together."""
        return dg.Definitions(assets=self.assets, jobs=self.jobs, resources=self.resources)


def build_batch(config: Path | str | BatchFile, reporter: ReporterFactory | None = None) -> BatchDefinitions:
    """The assets, jobs and resources of the batch that a configuration file describes.

    The file is read now, for the batch's names, and again at each run. ``reporter`` makes whoever watches a run of
    ``llm_outputs``; by default Dagster's log does. Raises ``ConfigError``.
    """
    batch_file = config if isinstance(config, BatchFile) else BatchFile(Path(config).resolve())
    batch = batch_file.load()
    names = Names(batch.name)
    with warnings.catch_warnings():
        for joint in ("backfill_policy", "observable_source_asset"):
            warnings.filterwarnings("ignore", message=f".*`{joint}`", category=dg.BetaWarning)
        assets: list[dg.AssetsDefinition | dg.SourceAsset] = [
            *source_assets(batch_file, names),
            *schema_assets(batch_file, names, reporter),
            *work_assets(batch_file, names),
            llm_outputs_asset(batch_file, names, reporter),
            *delivery_assets(batch_file, names),
            report_asset(batch_file, names),
        ]
    io_manager = JsonIOManager(config_file=str(batch_file.path), offline=batch_file.offline)
    tags = {"llmbatch/batch": names.batch} | (
        {"llmbatch/run_id": run_id} if (run_id := batch.parameters.run.run_id) else {}
    )
    return BatchDefinitions(names, assets, _jobs(names, tags), {names.io_manager: io_manager, "llm": LlmResource()})


def _jobs(names: Names, tags: dict[str, str]) -> list[dg.UnresolvedAssetJobDefinition]:
    descriptions = {
        "prepare": "Schema, snapshot and work items: everything before the first call.",
        "generate": "Generate what has no output yet; run it without choosing a partition.",
        "publish": "Export and report.",
    }
    return [
        dg.define_asset_job(
            names.own(stage),
            selection=dg.AssetSelection.assets(*(names.key(asset) for asset in assets)),
            description=descriptions[stage],
            tags=tags,
        )
        for stage, assets in STAGES.items()
    ]
