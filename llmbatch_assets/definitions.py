"""The code location that Dagster loads: each ``configs/*.yaml`` of the project is one batch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import dagster as dg

from llmbatch_assets.assets.batch import BatchDefinitions, build_batch
from llmbatch_assets.errors import ConfigError
from llmbatch_assets.stages.project import BatchFile, config_files, find_config

log = dg.get_dagster_logger("llmbatch_assets")


@dg.definitions
def defs() -> dg.Definitions:
    """All batches of the nearest project. Raises ``ConfigError`` if the configuration that was found is invalid."""
    config = find_config(None, os.environ, Path.cwd())
    if not os.environ.get("DAGSTER_HOME"):
        _warn_of_missing_home(BatchFile(config).root / "dagster_home")
    batches = list(_batches(config))
    return dg.Definitions(
        assets=[asset for batch in batches for asset in batch.assets],
        asset_checks=[check for batch in batches for check in batch.checks],
        jobs=[job for batch in batches for job in batch.jobs],
        schedules=[schedule for batch in batches for schedule in batch.schedules],
        sensors=[sensor for batch in batches for sensor in batch.sensors],
        resources={key: resource for batch in batches for key, resource in batch.resources.items()},
        # For runs that use none of our jobs, such as backfills.
        executor=dg.in_process_executor,
    )


def _batches(config: Path) -> Iterator[BatchDefinitions]:
    """The batch of this file and those beside it. Those that are invalid are skipped; this one raises."""
    for path in config_files(config):
        try:
            yield build_batch(path)
        except ConfigError as mistake:
            if path == config:
                raise
            _report_skipped(path, str(mistake))


@cache
def _report_skipped(path: Path, mistake: str) -> None:
    # Cached to log it once: Dagster calls the function several times while it loads the definitions.
    log.error(
        f"skipping batch {path.stem}; fix {path} (llmbatch check --config {path} reports every mistake) "
        f"and reload the definitions: {mistake}"
    )


@cache
def _warn_of_missing_home(home: Path) -> None:
    log.warning(
        "DAGSTER_HOME is not set: Dagster will lose runs and partitions when it exits. Stop it, run "
        f"`export DAGSTER_HOME={home}` and restart, or use `llmbatch ui`, which sets it."
    )
