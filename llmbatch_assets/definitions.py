"""The code location: every ``configs/*.yaml`` of the project is one batch."""

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
    """All batches of the nearest project. Raises ``ConfigError`` where its own configuration is wrong."""
    config = find_config(None, os.environ, Path.cwd())
    if not os.environ.get("DAGSTER_HOME"):
        _tell_no_home(BatchFile(config).root / "dagster_home")
    batches = list(_batches(config))
    return dg.Definitions(
        assets=[asset for batch in batches for asset in batch.assets],
        asset_checks=[check for batch in batches for check in batch.checks],
        jobs=[job for batch in batches for job in batch.jobs],
        schedules=[schedule for batch in batches for schedule in batch.schedules],
        sensors=[sensor for batch in batches for sensor in batch.sensors],
        resources={key: resource for batch in batches for key, resource in batch.resources.items()},
        # Of runs that are launched without one of our jobs, such as backfills.
        executor=dg.in_process_executor,
    )


def _batches(config: Path) -> Iterator[BatchDefinitions]:
    """The batch of this file, and those beside it. A mistake in another batch does not hide this one."""
    for path in config_files(config):
        try:
            yield build_batch(path)
        except ConfigError as mistake:
            if path == config:
                raise
            _tell_left_out(path, str(mistake))


@cache
def _tell_left_out(path: Path, mistake: str) -> None:
    # Once: Dagster asks for the definitions several times while it loads them.
    log.error(
        f"the batch {path.stem} is left out; mend {path} (llmbatch check --config {path} tells all that is wrong) "
        f"and reload: {mistake}"
    )


@cache
def _tell_no_home(home: Path) -> None:
    log.warning(
        f"DAGSTER_HOME is not set, so Dagster forgets its runs and partitions when it ends; stop it, say "
        f"export DAGSTER_HOME={home} and start it again (llmbatch ui does so by itself)"
    )
