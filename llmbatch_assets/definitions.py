"""The code location that Dagster loads: each ``configs/*.yaml`` of the project is one batch.

Dagster can be started from any folder. The project is then found by the location's working directory, by a file on the
command line, or by the ``dagster_home`` in use.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import dagster as dg

from llmbatch_assets.assets.batch import BatchDefinitions, build_batch
from llmbatch_assets.errors import ConfigError, SharedFilesError
from llmbatch_assets.stages.project import (
    CONFIG_ENV,
    DEFAULT_CONFIG,
    BatchFile,
    config_files,
    find_config,
    nearest_config,
)

log = dg.get_dagster_logger("llmbatch_assets")
# `dagster definitions validate`, `dg check defs` and `dg list defs` load definitions and run nothing.
_COMMANDS_WITHOUT_RUNS = {"validate", "check", "list"}

_OPTIONS_WITH_FILE = {"-w", "--workspace", "-f", "--python-file"}


def _is_started_by_dagster() -> bool:
    return any(part.startswith(("dagster", "dg")) for part in Path(sys.argv[0]).parts[-2:])


# While it imports a code location, Dagster has the location's working directory at the beginning of the path.
_WORKING_DIRECTORY = Path(sys.path[0]).resolve() if _is_started_by_dagster() else None


@dg.definitions
def defs() -> dg.Definitions:
    """The batches of the nearest project. Raises ``ConfigError`` if the configuration that was found is invalid."""
    config = _find_config()
    is_command = Path(sys.argv[0]).stem in {"dagster", "dg"} and not _COMMANDS_WITHOUT_RUNS.isdisjoint(sys.argv[1:3])
    if not os.environ.get("DAGSTER_HOME") and not is_command:
        _warn_of_missing_home(BatchFile(config).root / "dagster_home")
    # The executor is for runs that use none of our jobs, such as backfills.
    executor = dg.Definitions(executor=dg.in_process_executor)
    return dg.Definitions.merge(*(batch.definitions() for batch in _batches(config)), executor)


def _find_config() -> Path:
    if os.environ.get(CONFIG_ENV):
        return find_config(None, os.environ, Path.cwd())
    home = os.environ.get("DAGSTER_HOME")
    folders = [*_folders_on_command_line(), Path.cwd(), *([Path(home).resolve().parent] if home else [])]
    if _WORKING_DIRECTORY and (_WORKING_DIRECTORY / DEFAULT_CONFIG).is_file():
        folders.insert(0, _WORKING_DIRECTORY)
    config = next((config for folder in folders if (config := nearest_config(folder))), None)
    if config is None:
        raise ConfigError(
            f"no {DEFAULT_CONFIG} in {Path.cwd()} or above. Start Dagster in the folder of your project, or set the "
            f"environment variable {CONFIG_ENV} to the path of its {DEFAULT_CONFIG}, or set working_directory to that folder "
            "for this python_module in workspace.yaml"
        )
    if config != nearest_config(Path.cwd()):
        # For run processes, whose command line is different.
        os.environ[CONFIG_ENV] = str(config)
    return config


def _folders_on_command_line() -> Iterator[Path]:
    """The folders of the workspace and Python files that Dagster was started with."""
    words = sys.argv[1:] if _is_started_by_dagster() else []
    for option, value in itertools.pairwise(itertools.chain(*(word.split("=", 1) for word in words))):
        if option in _OPTIONS_WITH_FILE:
            yield Path(value).resolve().parent


def _batches(config: Path) -> Iterator[BatchDefinitions]:
    """The batch of this file and the other batches in its folder. Other batches that are invalid are skipped.

    Batches that would write the same files are both skipped, because each could overwrite the other's files.
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
