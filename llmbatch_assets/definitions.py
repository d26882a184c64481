"""The code location: every ``configs/*.yaml`` of the project is one batch."""

from __future__ import annotations

import os
from pathlib import Path

import dagster as dg

from llmbatch_assets.adapters.project import config_files, find_config
from llmbatch_assets.assets.batch import build_batch


@dg.definitions
def defs() -> dg.Definitions:
    """All batches of the nearest project."""
    config = find_config(None, os.environ, Path.cwd())
    batches = [build_batch(path) for path in config_files(config)]
    return dg.Definitions(
        assets=[asset for batch in batches for asset in batch.assets],
        asset_checks=[check for batch in batches for check in batch.checks],
        jobs=[job for batch in batches for job in batch.jobs],
        sensors=[sensor for batch in batches for sensor in batch.sensors],
        resources={key: resource for batch in batches for key, resource in batch.resources.items()},
    )
