"""Prepare a batch: clean the table, and divide its rows into work items."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from llmbatch_assets.adapters.tables.records import table_from_asset
from llmbatch_assets.domain.canonical import sha1_named
from llmbatch_assets.domain.items.identity import IDENTITY_VERSION
from llmbatch_assets.domain.items.prompt_columns import missing_columns
from llmbatch_assets.domain.items.table import Snapshot, take_snapshot
from llmbatch_assets.domain.items.work import WorkItems, WorkPlan, work_items_of
from llmbatch_assets.domain.run.quality import CheckFinding
from llmbatch_assets.errors import InputError, TableError
from llmbatch_assets.stages.artifacts import work_of
from llmbatch_assets.stages.plan import Planner
from llmbatch_assets.stages.project import Batch
from llmbatch_assets.stages.write_schema import reason_to_write


class PreparedWork(NamedTuple):
    """The work of a batch: as a plan, and in the shape of the artifact."""

    plan: WorkPlan
    work_items: WorkItems
    # Covers how items are made, not which rows there are: a new row is a missing partition, and the others stay fresh.
    version: str


def snapshot_of_asset(batch: Batch, table: Any, name: str) -> Snapshot:
    """The cleaned form of a table that another asset returned. Raises ``TableError``."""
    name = f"asset {name}"
    return take_snapshot(table_from_asset(table, name), name, batch.parameters.input)


def snapshot_version(snapshot: Snapshot) -> str:
    return sha1_named(columns=snapshot.columns, rows=snapshot.rows)


def prepare_work(batch: Batch, snapshot: Snapshot) -> PreparedWork:
    """Divide the rows of the snapshot into work items."""
    parameters = batch.parameters
    plan = work_of(batch, snapshot)
    blocks = {name: getattr(parameters, name).model_dump() for name in ("grouping", "context", "work_items")}
    if named := batch.columns_of_prompts(snapshot.columns):
        blocks["columns_of_prompts"] = named
    return PreparedWork(
        plan,
        work_items_of(plan, parameters, batch.layout.group_contexts.name),
        sha1_named(scheme=IDENTITY_VERSION, **blocks),
    )


def warnings_about_prompts(batch: Batch, snapshot: Snapshot) -> list[str]:
    """Return the warnings about the prompts, and their mistakes: these stop only runs that call the model."""
    try:
        batch.check_prompts(snapshot.columns)
        return batch.prompt_warnings(snapshot.columns)
    except InputError as mistake:
        return [str(mistake)]


class Outlook(NamedTuple):
    """What a run would do with new items, in one line, and the finding of the check ``up_to_date``."""

    headline: str
    age: CheckFinding


def outlook_on(batch: Batch, plan: WorkPlan) -> Outlook | None:
    """Return the outlook; None if prompts or schema have mistakes, which do not affect items."""
    planner = Planner(batch, plan)
    try:
        if missing_columns(batch.generation_prompt, batch.judge_prompt, plan.items):
            return None
        return Outlook(planner.report().headline, planner.up_to_date())
    except InputError:
        return None


def _table_sha(batch: Batch) -> str:
    path = batch.path(batch.parameters.input.path)
    try:
        stat = path.stat()
        return _file_sha(path, stat.st_mtime_ns, stat.st_size)
    except OSError as refused:
        raise TableError(f"input.path: {path} cannot be read: {refused.strerror}") from None


@lru_cache(maxsize=64)
def _file_sha(path: Path, _mtime_ns: int, _size: int) -> str:
    # Sensors ask again and again, and a table can be large.
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha1").hexdigest()


def has_schema(batch: Batch) -> bool:
    """Return whether the prepare stage can use the schema as it is; otherwise the model would have to write it."""
    try:
        return not reason_to_write(batch)
    except InputError:
        return False


def schema_file_sha(batch: Batch) -> str:
    """Fingerprint of the schema module's file; "" if there is none."""
    path = batch.path(batch.layout.schema_py)
    return hashlib.sha1(path.read_bytes(), usedforsecurity=False).hexdigest() if path.is_file() else ""


def _prompts_sha(batch: Batch) -> str:
    judge = batch.judge_prompt
    return batch.generation_prompt.sha + (judge.sha if judge else "")


# Fingerprints of the user's files, by the name of their asset.
SOURCE_VERSIONS: dict[str, Callable[[Batch], str]] = {
    "input_table": _table_sha,
    "prompts": _prompts_sha,
    "parameters": Batch.config_sha,
    "model_settings": Batch.model_settings_sha,
}
