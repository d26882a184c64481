"""One batch as Dagster definitions, for this package's code location or that of another Dagster project."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import EllipsisType
from typing import Any, TypeAlias

import dagster as dg
from dagster._core.definitions.external_asset import create_external_asset_from_source_asset

from llmbatch_assets.assets import STAGES
from llmbatch_assets.assets.checks import batch_checks
from llmbatch_assets.assets.export_table import EXPORT_TABLE, export_table_asset
from llmbatch_assets.assets.llm_outputs import generate_pending_job, llm_outputs_asset
from llmbatch_assets.assets.names import Names
from llmbatch_assets.assets.prepare import prepare_assets
from llmbatch_assets.assets.publish import publish_assets
from llmbatch_assets.assets.sensors import Job, batch_sensors, daily_schedules, source_assets
from llmbatch_assets.resources.io_manager import JsonIOManager
from llmbatch_assets.resources.llm import LlmResource
from llmbatch_assets.resources.runs import ReporterFactory
from llmbatch_assets.stages.prepare import SOURCE_VERSIONS
from llmbatch_assets.stages.project import BatchFile

InputAsset: TypeAlias = dg.AssetKey | dg.AssetsDefinition | dg.AssetSpec | dg.SourceAsset | Sequence[str] | str


@dataclass(frozen=True)
class BatchDefinitions:
    """The definitions that one batch adds to a code location."""

    names: Names
    assets: list[dg.AssetsDefinition]
    jobs: list[Job]
    checks: list[dg.AssetChecksDefinition]
    sensors: list[dg.SensorDefinition]
    schedules: list[dg.ScheduleDefinition]
    resources: dict[str, object]

    def definitions(self) -> dg.Definitions:
        """Return them as one object, for ``dg.Definitions.merge``."""
        return dg.Definitions(
            assets=self.assets,
            asset_checks=self.checks,
            jobs=self.jobs,
            sensors=self.sensors,
            schedules=self.schedules,
            resources=self.resources,
        )


def build_batch(
    config: Path | str | BatchFile,
    reporter: ReporterFactory | None = None,
    *,
    input_asset: InputAsset | None = None,
    key_prefix: Sequence[str] | str = (),
    group_name: str | None = None,
    owners: Sequence[str] = (),
    tags: Mapping[str, str] | None = None,
    automation_condition: dg.AutomationCondition[Any] | EllipsisType | None = ...,
    table_io_manager_key: str | None = None,
) -> BatchDefinitions:
    """Build the assets, checks, jobs, sensors, schedule and resources of the batch that a configuration file describes.

    The file is read now for the names, and again by each run. Raises ``ConfigError``.

    Args:
        config: Path of the configuration file.
        reporter: Makes the object that reports the progress of ``llm_outputs``; by default, progress goes to Dagster's log.
        input_asset: An asset that returns the table, in place of ``input.path``: a data frame, an Arrow table or a list
            of records.
        key_prefix: Is put before all asset keys and before the names of jobs, sensors, schedules and partitions.
        group_name: Group of all assets. The default is the name of the batch, or ``llmbatch`` for ``parameters.yaml``.
        owners: Owners of all assets: email addresses, or ``team:`` and a name.
        tags: Tags of all assets.
        automation_condition: Replaces the condition by which ``export`` and ``report`` follow ``llm_outputs``. With None,
            they are only made by jobs and by hand.
        table_io_manager_key: Adds the asset ``export_table``: the exported records as a pandas DataFrame, which your I/O
            manager with this key stores.
    """
    batch_file = config if isinstance(config, BatchFile) else BatchFile(Path(config).resolve())
    prefix = (key_prefix,) if isinstance(key_prefix, str) else tuple(key_prefix)
    names = Names(batch_file.load().name, prefix, group_name or "")
    build = _Build(batch_file, names, reporter, _asset_key(input_asset), table_io_manager_key)
    published = build.stages["publish"]
    customized = _attributes(published, owners, tags or {}, automation_condition)
    return build.definitions(customized, published if automation_condition else ())


def _asset_key(asset: InputAsset | None) -> dg.AssetKey | None:
    if asset is None or isinstance(asset, dg.AssetKey):
        return asset
    if isinstance(asset, dg.AssetsDefinition | dg.AssetSpec | dg.SourceAsset):
        return asset.key
    return dg.AssetKey.from_coercible(asset)


@dataclass(frozen=True)
class _Build:
    """The making of one batch's definitions."""

    batch_file: BatchFile
    names: Names
    reporter: ReporterFactory | None
    input_key: dg.AssetKey | None
    table_io_manager_key: str | None

    @property
    def stages(self) -> dict[str, Sequence[str]]:
        table = [EXPORT_TABLE] if self.table_io_manager_key else []
        return {**STAGES, "publish": [*STAGES["publish"], *table]}

    @property
    def sources(self) -> list[str]:
        return [name for name in SOURCE_VERSIONS if self.input_key is None or name != "input_table"]

    def definitions(
        self, customized: Callable[[dg.AssetSpec], dg.AssetSpec], automated: Sequence[str]
    ) -> BatchDefinitions:
        """Return the definitions. ``customized`` replaces attributes; ``automated`` assets have automation conditions."""
        batch_file, names, run = self.batch_file, self.names, self.batch_file.load().parameters.run
        tags = {"llmbatch/batch": "default" if names.is_default else names.batch} | (
            {"llmbatch/run_id": run.run_id} if run.run_id else {}
        )
        jobs: dict[str, Job] = {
            **_jobs(names, self.stages, tags),
            "generate_pending": generate_pending_job(batch_file, names, tags, self.reporter),
        }
        return BatchDefinitions(
            names=names,
            assets=[asset.map_asset_specs(customized) for asset in self._assets()],
            jobs=list(jobs.values()),
            checks=batch_checks(batch_file, names),
            sensors=batch_sensors(batch_file, names, jobs, self.sources, self.input_key, automated),
            schedules=daily_schedules(names, jobs, run.timezone),
            resources={
                names.io_manager: JsonIOManager(config_file=str(batch_file.path), offline=batch_file.offline),
                names.llm: LlmResource(),
            },
        )

    def _assets(self) -> list[dg.AssetsDefinition]:
        batch_file, names, table = self.batch_file, self.names, self.table_io_manager_key
        with warnings.catch_warnings():
            for feature in ("backfill_policy", "observable_source_asset"):
                warnings.filterwarnings("ignore", message=f".*`{feature}`", category=dg.BetaWarning)
            return [
                # Source assets cannot have owners. Dagster itself converts them when it loads the definitions.
                *map(create_external_asset_from_source_asset, source_assets(batch_file, names, self.sources)),
                *prepare_assets(batch_file, names, self.reporter, self.input_key),
                llm_outputs_asset(batch_file, names, self.reporter),
                *publish_assets(batch_file, names),
                *([export_table_asset(batch_file, names, table)] if table else []),
            ]


def _attributes(
    published: Sequence[str],
    owners: Sequence[str],
    tags: Mapping[str, str],
    condition: dg.AutomationCondition[Any] | EllipsisType | None,
) -> Callable[[dg.AssetSpec], dg.AssetSpec]:
    """Return a function that adds attributes to the spec of an asset. The condition is that of the published ones."""

    def customized(spec: dg.AssetSpec) -> dg.AssetSpec:
        replaced = condition if spec.key.path[-1] in published else ...
        return spec.replace_attributes(
            owners=[*spec.owners, *owners], tags={**spec.tags, **tags}, automation_condition=replaced
        )

    return customized


def _jobs(names: Names, stages: Mapping[str, Sequence[str]], tags: dict[str, str]) -> dict[str, Job]:
    descriptions = {
        "prepare": "Prepares schema, snapshot and work items: everything before the first call.",
        "publish": "Writes the export and the report.",
        "run_all": "Runs all stages in order: prepare, generate what is pending, publish. For schedules; in the UI, it asks for "
        "partitions: choose All. If items fail, the run fails, and publish_automatically writes export and report.",
    }
    chosen = {**stages, "run_all": [asset for assets in stages.values() for asset in assets]}
    return {
        job: dg.define_asset_job(
            names.own(job),
            selection=dg.AssetSelection.assets(*(names.key(asset) for asset in chosen[job])),
            description=description,
            tags=tags,
            # Starting a process per step would take seconds, longer than most steps.
            executor_def=dg.in_process_executor,
        )
        for job, description in descriptions.items()
    }
