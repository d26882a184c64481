"""One batch as Dagster definitions, for this package's code location or that of another Dagster project."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from llmbatch_assets.assets import STAGES
from llmbatch_assets.assets.checks import batch_checks
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

# Shared, because Dagster refuses to merge definitions whose resources of the same key are different objects.
_LLM = LlmResource()


@dataclass(frozen=True)
class BatchDefinitions:
    """The definitions that one batch adds to a code location."""

    names: Names
    assets: list[dg.AssetsDefinition | dg.SourceAsset]
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
    input_asset: dg.AssetKey | None = None,
    key_prefix: Sequence[str] = (),
) -> BatchDefinitions:
    """Build the assets, checks, jobs, sensors, schedule and resources of the batch that a configuration file describes.

    The file is read now for the names, and again by each run. ``reporter`` makes the object that reports the progress
    of ``llm_outputs``; by default, progress goes to Dagster's log. ``input_asset`` names an asset that returns the table,
    in place of ``input.path``: a data frame, an Arrow table or a list of records. ``key_prefix`` is put before all asset
    keys and before the names of jobs, sensors, schedules and partitions. Raises ``ConfigError``.
    """
    batch_file = config if isinstance(config, BatchFile) else BatchFile(Path(config).resolve())
    batch = batch_file.load()
    names = Names(batch.name, tuple(key_prefix))
    sources = [name for name in SOURCE_VERSIONS if input_asset is None or name != "input_table"]
    with warnings.catch_warnings():
        for feature in ("backfill_policy", "observable_source_asset"):
            warnings.filterwarnings("ignore", message=f".*`{feature}`", category=dg.BetaWarning)
        assets: list[dg.AssetsDefinition | dg.SourceAsset] = [
            *source_assets(batch_file, names, sources),
            *prepare_assets(batch_file, names, reporter, input_asset),
            llm_outputs_asset(batch_file, names, reporter),
            *publish_assets(batch_file, names),
        ]
    io_manager = JsonIOManager(config_file=str(batch_file.path), offline=batch_file.offline)
    tags = {"llmbatch/batch": names.batch} | (
        {"llmbatch/run_id": run_id} if (run_id := batch.parameters.run.run_id) else {}
    )
    jobs: dict[str, Job] = {
        **_jobs(names, tags),
        "generate_pending": generate_pending_job(batch_file, names, tags, reporter),
    }
    return BatchDefinitions(
        names=names,
        assets=assets,
        jobs=list(jobs.values()),
        checks=batch_checks(batch_file, names),
        sensors=batch_sensors(batch_file, names, jobs, sources, input_asset),
        schedules=daily_schedules(names, jobs, batch.parameters.run.timezone),
        resources={names.io_manager: io_manager, "llm": _LLM},
    )


def _jobs(names: Names, tags: dict[str, str]) -> dict[str, Job]:
    descriptions = {
        "prepare": "Prepares schema, snapshot and work items: everything before the first call.",
        "publish": "Writes the export and the report.",
        "run_all": "Runs all stages in order: prepare, generate what is pending, publish. For schedules; in the UI, it asks for "
        "partitions: choose All.",
    }
    stages = {**STAGES, "run_all": [asset for assets in STAGES.values() for asset in assets]}
    return {
        job: dg.define_asset_job(
            names.own(job),
            selection=dg.AssetSelection.assets(*(names.key(asset) for asset in stages[job])),
            description=description,
            tags=tags,
            # Starting a process per step would take seconds, longer than most steps.
            executor_def=dg.in_process_executor,
        )
        for job, description in descriptions.items()
    }
