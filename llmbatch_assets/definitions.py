"""The code location that Dagster loads: each ``configs/*.yaml`` of the project is one batch."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import dagster as dg

from llmbatch_assets.assets.batch import BatchDefinitions, build_batch
from llmbatch_assets.errors import ConfigError, SharedFilesError
from llmbatch_assets.stages.project import BatchFile, config_files, find_config

log = dg.get_dagster_logger("llmbatch_assets")
# `dagster definitions validate`, `dg check defs` and `dg list defs` load definitions and run nothing.
_COMMANDS_WITHOUT_RUNS = {"validate", "check", "list"}


@dg.definitions
def defs() -> dg.Definitions:
    """The batches of the nearest project. Raises ``ConfigError`` if the configuration that was found is invalid."""
    config = find_config(None, os.environ, Path.cwd())
    is_command = Path(sys.argv[0]).stem in {"dagster", "dg"} and not _COMMANDS_WITHOUT_RUNS.isdisjoint(sys.argv[1:3])
    if not os.environ.get("DAGSTER_HOME") and not is_command:
        _warn_of_missing_home(BatchFile(config).root / "dagster_home")
    # The executor is for runs that use none of our jobs, such as backfills.
    executor = dg.Definitions(executor=dg.in_process_executor)
    return dg.Definitions.merge(*(batch.definitions() for batch in _batches(config)), executor)


def _batches(config: Path) -> Iterator[BatchDefinitions]:
    """The batch of this file and those in the same folder. Invalid ones are skipped, unless it is this one.

    Batches that would write the same files are both skipped: either could replace what the other made.
    """
    shared: SharedFilesError | None = None
    n_built = 0
    for path in config_files(config):
        try:
            yield build_batch(path)
            n_built += 1
        except ConfigError as mistake:
            if path == config and not isinstance(mistake, SharedFilesError):
                raise
            shared = mistake if isinstance(mistake, SharedFilesError) else shared
            _report_skipped(path, str(mistake))
    if shared and not n_built:
        raise shared


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
