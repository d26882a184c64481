"""The Dagster instance that a command works with, opened."""

from __future__ import annotations

import os
import re

import dagster as dg
from alembic.util.exc import CommandError
from dagster._check import CheckError
from dagster._core.instance.ref import InstanceRef
from dagster._core.storage.noop_compute_log_manager import NoOpComputeLogManager
from sqlalchemy.exc import DBAPIError

from llmbatch_assets.errors import ConfigError, LlmBatchError

# Dagster's default: two processes a step copy what it prints into files, and die with tracebacks of Ctrl-C.
_CAPTURED = "LocalComputeLogManager"
_NOT_CAPTURED: dict[str, object] = {
    "compute_logs": {"module": NoOpComputeLogManager.__module__, "class": NoOpComputeLogManager.__name__}
}
# What Dagster tells in the midst of a traceback.
_REASONS = {
    r'environment variable "(\w+)" which is not set': r"the environment variable \1 is not set",
    r"Couldn't import module dagster_postgres": "PostgreSQL needs: pip install 'llmbatch-assets[postgres]'",
    r"No module named 'psycopg'": "the URL of PostgreSQL has to begin with postgresql+psycopg2://",
}


def open_instance() -> dg.DagsterInstance:
    """The instance in DAGSTER_HOME. Raises ``LlmBatchError`` with what is in the way, but for a server that is down."""
    home = os.environ["DAGSTER_HOME"]
    try:
        told = InstanceRef.from_dir(home)
        if told.compute_logs_data.class_name == _CAPTURED:
            told = InstanceRef.from_dir(home, overrides=_NOT_CAPTURED)
        return dg.DagsterInstance.from_ref(told)
    except (dg.DagsterError, CheckError, ImportError, ValueError, OSError) as broken:
        raise ConfigError(f"{home}/dagster.yaml gives no Dagster instance: {_reason(str(broken))}") from broken
    except (DBAPIError, CommandError) as broken:
        raise LlmBatchError(
            f"Dagster's records in {home} cannot be opened ({getattr(broken, 'orig', broken)}). Outputs are not among them: "
            f"move {home}/history and {home}/schedules away, and the next run tells Dagster anew what there is"
        ) from broken


def _reason(broken: str) -> str:
    found = ((re.search(pattern, broken), told) for pattern, told in _REASONS.items())
    return next((match.expand(told) for match, told in found if match), broken)
