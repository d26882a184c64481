"""Open the Dagster instance, and translate the errors of its storage."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
from alembic.util.exc import CommandError
from dagster._check import CheckError
from dagster._core.instance.ref import InstanceRef
from dagster._core.storage.noop_compute_log_manager import NoOpComputeLogManager
from sqlalchemy.exc import DBAPIError

from llmbatch_assets.errors import ConfigError, LlmBatchError, RunPermanentError, StopCause

# Dagster's default starts two processes per step that copy its output to files, and end with tracebacks on Ctrl-C.
_CAPTURED = "LocalComputeLogManager"
_NOT_CAPTURED: dict[str, object] = {
    "compute_logs": {"module": NoOpComputeLogManager.__module__, "class": NoOpComputeLogManager.__name__}
}
# Short messages for errors that Dagster buries in a traceback.
_REASONS = {
    r'environment variable "(\w+)" which is not set': r"the environment variable \1 is not set",
    r"Couldn't import module dagster_postgres": "PostgreSQL needs: pip install 'llmbatch-assets[postgres]'",
    r"No module named 'psycopg'": "the URL of PostgreSQL must begin with postgresql+psycopg2://",
}


def open_instance() -> dg.DagsterInstance:
    """The instance in DAGSTER_HOME. Raises ``LlmBatchError`` if it cannot be opened.

    Errors of a database server that is down pass through.
    """
    home = os.environ["DAGSTER_HOME"]
    try:
        settings = InstanceRef.from_dir(home)
        if settings.compute_logs_data.class_name == _CAPTURED:
            settings = InstanceRef.from_dir(home, overrides=_NOT_CAPTURED)
        return dg.DagsterInstance.from_ref(settings)
    except (dg.DagsterError, CheckError, ImportError, ValueError, OSError) as broken:
        raise ConfigError(
            f"{home}/dagster.yaml does not describe a usable Dagster instance: {_reason(str(broken))}"
        ) from broken
    except (DBAPIError, CommandError) as broken:
        raise LlmBatchError(
            f"Dagster's records in {home} cannot be opened ({getattr(broken, 'orig', broken)}). They do not contain "
            f"outputs: move {home}/history and {home}/schedules away, and the next run registers all outputs again"
        ) from broken


def show_automation_as_on(instance: dg.DagsterInstance) -> None:
    """Let Dagster's pages not say that automation is off.

    Jobs and groups of assets with automation conditions show the switch of an older mechanism, "Auto-materialize", which is
    off by default and which automation sensors ignore.
    """
    # Imported late: only the sensors need the daemon's module, which takes half a second to import.
    from dagster._daemon.asset_daemon import get_auto_materialize_paused, set_auto_materialize_paused

    if instance.auto_materialize_use_sensors and get_auto_materialize_paused(instance):
        set_auto_materialize_paused(instance, False)


def _reason(broken: str) -> str:
    found = ((re.search(pattern, broken), message) for pattern, message in _REASONS.items())
    return next((match.expand(message) for match, message in found if match), broken)


@contextmanager
def translating_storage_errors() -> Iterator[None]:
    """Raise ``RunPermanentError`` if Dagster's storage cannot be used."""
    try:
        yield
    except LlmBatchError:
        raise
    except Exception as error:
        database_error = _database_error(error)
        if database_error is None:
            raise
        reason = str(database_error.orig).partition("\n")[0]
        raise RunPermanentError(
            StopCause.DAGSTER_STORAGE,
            f"Dagster's storage (dagster.yaml in {os.environ.get('DAGSTER_HOME')}) cannot be used: {reason}. Is the disk full, "
            "or the database server down? Accepted outputs are kept, and the next run continues from there",
        ) from error


def _database_error(error: BaseException) -> DBAPIError | None:
    """Return the database's error. Dagster's PostgreSQL storage wraps it in one of its own."""
    link: BaseException | None = error
    while link is not None and not isinstance(link, DBAPIError):
        link = link.__cause__
    return link
