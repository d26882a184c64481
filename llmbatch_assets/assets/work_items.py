"""``input_snapshot``, ``group_contexts`` and ``work_items``: from the table to the items."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from llmbatch_assets.adapters.tables.records import table_from_asset
from llmbatch_assets.assets.names import Names
from llmbatch_assets.assets.sources import use_sources
from llmbatch_assets.domain.canonical import sha1_named
from llmbatch_assets.domain.items.grouping import plan_work
from llmbatch_assets.domain.items.identity import IDENTITY_VERSION
from llmbatch_assets.domain.items.table import Snapshot, take_snapshot
from llmbatch_assets.domain.items.work import (
    GroupContext,
    WorkItems,
    WorkPlan,
    items_preview,
    plan_metadata,
    work_items_of,
)
from llmbatch_assets.errors import InputError
from llmbatch_assets.resources.partitions import sync_partitions
from llmbatch_assets.stages.plan import Planner
from llmbatch_assets.stages.project import Batch, BatchFile


def work_assets(
    batch_file: BatchFile, names: Names, input_asset: dg.AssetKey | None = None
) -> list[dg.AssetsDefinition]:
    """The snapshot, of the table's file or of what ``input_asset`` gives, and the plan that is made from it."""
    return [_snapshot_asset(batch_file, names, input_asset), _plan_asset(batch_file, names)]


def _snapshot_asset(batch_file: BatchFile, names: Names, input_asset: dg.AssetKey | None) -> dg.AssetsDefinition:
    sources = ["parameters"] if input_asset else ["input_table", "parameters"]

    @dg.asset(
        key=names.key("input_snapshot"),
        group_name=names.group,
        ins={"table": dg.AssetIn(key=input_asset)} if input_asset else {},
        deps=[names.key(name) for name in sources],
        io_manager_key=names.io_manager,
        kinds={"table", "json"},
        description="The input table, cleaned: every value a text, the same bytes for the same table.",
    )
    def input_snapshot(context: dg.AssetExecutionContext, **given: Any) -> dg.MaterializeResult[Snapshot]:
        batch = batch_file.load()
        if input_asset:
            name = f"asset {input_asset.to_user_string()}"
            snapshot = take_snapshot(table_from_asset(given["table"], name), name, batch.parameters.input)
        else:
            snapshot = batch.read_snapshot()
        return dg.MaterializeResult(
            value=snapshot,
            metadata={"n_rows": snapshot.n_rows, "n_cols": snapshot.n_cols, "columns": ", ".join(snapshot.columns)},
            data_version=dg.DataVersion(sha1_named(columns=snapshot.columns, rows=snapshot.rows)),
            tags=use_sources(context, batch, names, *sources),
        )

    return input_snapshot


def _plan_asset(batch_file: BatchFile, names: Names) -> dg.AssetsDefinition:
    @dg.multi_asset(
        name=names.own("plan_work"),
        group_name=names.group,
        ins={"input_snapshot": dg.AssetIn(key=names.key("input_snapshot"))},
        deps=[names.key("parameters")],
        outs={
            "group_contexts": dg.AssetOut(
                key=names.key("group_contexts"),
                io_manager_key=names.io_manager,
                kinds={"json"},
                dagster_type=list[GroupContext],
                description="What the rows of a group say together, each context once; empty without shared contexts.",
            ),
            "work_items": dg.AssetOut(
                key=names.key("work_items"),
                io_manager_key=names.io_manager,
                kinds={"json"},
                dagster_type=WorkItems,
                description="One item per output to be made. Registers one partition of llm_outputs for each.",
            ),
        },
    )
    def group_contexts_and_work_items(
        context: dg.AssetExecutionContext, input_snapshot: Snapshot
    ) -> Iterator[dg.MaterializeResult[object]]:
        batch = batch_file.load()
        plan = plan_work(input_snapshot, batch.parameters)
        work_items = work_items_of(plan, batch.parameters, batch.layout.group_contexts.name)
        version = dg.DataVersion(_how_items_are_made(batch))
        tags = use_sources(context, batch, names, "parameters")
        for warning in plan.warnings:
            context.log.warning(warning)
        yield dg.MaterializeResult(
            asset_key=names.key("group_contexts"),
            value=plan.contexts,
            metadata={"n_group_contexts": len(plan.contexts)},
            data_version=version,
            tags=tags,
        )
        yield dg.MaterializeResult(
            asset_key=names.key("work_items"),
            value=work_items,
            metadata={
                **plan_metadata(plan),
                **_headline(batch, plan),
                "preview": dg.MetadataValue.md(items_preview(plan.items)),
            },
            data_version=version,
            tags=tags,
        )
        # After the artifact: a key without its item would be a partition that nothing can fill.
        keys = [item.partition_key for item in plan.items]
        added, removed = sync_partitions(context.instance, names.own("work_items"), keys)
        context.log.info(f"partitions of llm_outputs: {len(plan.items)} in all, {added} added, {removed} removed")

    return group_contexts_and_work_items


def _headline(batch: Batch, plan: WorkPlan) -> dict[str, str]:
    """What a run would do now. Nothing is said while prompts or schema cannot be used: the items do not need them."""
    try:
        return {"plan": Planner(batch, plan, trusting=True).report().headline}
    except InputError:
        return {}


def _how_items_are_made(batch: Batch) -> str:
    # Not which rows there are: a new row is a missing partition, and leaves the others fresh.
    parameters = batch.parameters
    blocks = {name: getattr(parameters, name).model_dump() for name in ("grouping", "context", "work_items")}
    return sha1_named(scheme=IDENTITY_VERSION, **blocks)
