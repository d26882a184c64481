"""The check before a run or a plan: mistakes stop it, warnings are logged."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import NamedTuple

from llmbatch_assets.adapters.providers.credentials import missing_keys
from llmbatch_assets.domain.items.work import WorkPlan
from llmbatch_assets.domain.plan.selection import Selection
from llmbatch_assets.errors import ConfigError, InputError
from llmbatch_assets.stages.checking.batch_check import EVERYTHING, TableCheck, check_batch
from llmbatch_assets.stages.plan import plan_next_run
from llmbatch_assets.stages.project import Batch, BatchFile
from llmbatch_assets.stages.write_schema import reason_to_write

log = logging.getLogger(__name__)


class Preflight(NamedTuple):
    """The warnings about a batch without mistakes, and its work and the result for the table if that was read."""

    warnings: list[str]
    work: WorkPlan | None
    table: TableCheck | None


def preflight(
    batch_file: BatchFile,
    assets: Collection[str] = EVERYTHING,
    forced: Collection[str] = (),
    known_table: TableCheck | None = None,
) -> Preflight:
    """Check what a run of these assets reads, without the table if its result is known.

    Raises ``InputError`` with every mistake that ``llmbatch check`` reports.
    """
    found = check_batch(batch_file, assets, forced, known_table)
    if found.mistakes:
        raise InputError("\n".join(found.mistakes))
    return Preflight(found.warnings, found.work, found.table)


def log_warnings(warnings: Collection[str]) -> None:
    for warning in warnings:
        log.warning("%s", warning)


def require_keys(batch: Batch, assets: Collection[str], selection: Selection, forced: Collection[str]) -> None:
    """Raise ``ConfigError`` if a run of these assets would call a model and an API key is not set."""
    missing = missing_keys(batch.parameters, batch.root)
    if missing and _makes_calls(batch, assets, selection, forced):
        raise ConfigError("; ".join(missing))


def _makes_calls(batch: Batch, assets: Collection[str], selection: Selection, forced: Collection[str]) -> bool:
    if "llm_schema_py" in assets and reason_to_write(batch, force="llm_schema_py" in forced):
        return True
    if "llm_outputs" not in assets:
        return False
    plan = plan_next_run(batch, selection, force="llm_outputs" in forced, makes_items="work_items" in assets)
    return plan.estimate.calls.high > 0
