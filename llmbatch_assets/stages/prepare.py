"""Prepare a batch: clean the table, and divide its rows into work items."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

from llmbatch_assets.adapters.tables.records import table_from_asset
from llmbatch_assets.domain.canonical import sha1_named
from llmbatch_assets.domain.items.grouping import plan_work
from llmbatch_assets.domain.items.identity import IDENTITY_VERSION
from llmbatch_assets.domain.items.table import Snapshot, take_snapshot
from llmbatch_assets.domain.items.work import WorkItems, WorkPlan, work_items_of
from llmbatch_assets.errors import InputError
from llmbatch_assets.stages.plan import Planner
from llmbatch_assets.stages.project import Batch


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
    plan = plan_work(snapshot, parameters)
    blocks = {name: getattr(parameters, name).model_dump() for name in ("grouping", "context", "work_items")}
    return PreparedWork(
        plan,
        work_items_of(plan, parameters, batch.layout.group_contexts.name),
        sha1_named(scheme=IDENTITY_VERSION, **blocks),
    )


def plan_headline(batch: Batch, plan: WorkPlan) -> str:
    """Summarize in one line what a run would do now; "" if prompts or schema have mistakes, which do not affect items."""
    try:
        return Planner(batch, plan, trusting=True).report().headline
    except InputError:
        return ""


def _table_sha(batch: Batch) -> str:
    with batch.path(batch.parameters.input.path).open("rb") as table:
        return hashlib.file_digest(table, "sha1").hexdigest()


def _prompts_sha(batch: Batch) -> str:
    judge = batch.judge_prompt
    return batch.generation_prompt.sha + (judge.sha if judge else "")


# Fingerprints of the user's files, by the name of their asset.
SOURCE_VERSIONS: dict[str, Callable[[Batch], str]] = {
    "input_table": _table_sha,
    "prompts": _prompts_sha,
    "parameters": Batch.config_sha,
}
