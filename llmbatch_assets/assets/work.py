"""``input_snapshot``, ``group_contexts`` and ``work_items``: from the table to the items."""

from collections.abc import Iterator

import dagster as dg

from llmbatch_assets.adapters.project import Batch, BatchFile
from llmbatch_assets.assets.keys import Names
from llmbatch_assets.domain.canonical import sha1_named
from llmbatch_assets.domain.grouping import make_plan
from llmbatch_assets.domain.identity import IDENTITY_VERSION
from llmbatch_assets.domain.plan_preview import facts, preview
from llmbatch_assets.domain.table import Snapshot
from llmbatch_assets.domain.work import GroupContext, WorkItems, WorkPlan, work_items_of
from llmbatch_assets.errors import InputError
from llmbatch_assets.resources.planning import Planner

# Keys are added in statements of this size: databases limit the variables of one.
KEYS_AT_ONCE = 10_000


def work_assets(batch_file: BatchFile, names: Names) -> list[dg.AssetsDefinition]:
    """The snapshot, and the plan that is made from it."""

    @dg.asset(
        key=names.key("input_snapshot"),
        group_name=names.group,
        deps=[names.key("input_table"), names.key("parameters")],
        io_manager_key=names.io_manager,
        kinds={"table", "json"},
        description="The input table, cleaned: every value a text, the same bytes for the same table.",
    )
    def input_snapshot() -> dg.MaterializeResult[Snapshot]:
        snapshot = batch_file.load().read_snapshot()
        return dg.MaterializeResult(
            value=snapshot,
            metadata={"n_rows": snapshot.n_rows, "n_cols": snapshot.n_cols, "columns": ", ".join(snapshot.columns)},
            data_version=dg.DataVersion(sha1_named(columns=snapshot.columns, rows=snapshot.rows)),
        )

    @dg.multi_asset(
        name=names.own("plan_work"),
        group_name=names.group,
        ins={"input_snapshot": dg.AssetIn(key=names.key("input_snapshot"))},
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
    def plan_work(
        context: dg.AssetExecutionContext, input_snapshot: Snapshot
    ) -> Iterator[dg.MaterializeResult[object]]:
        batch = batch_file.load()
        plan = make_plan(input_snapshot, batch.parameters)
        work_items = work_items_of(plan, batch.parameters, batch.layout.group_contexts.name)
        version = dg.DataVersion(_how_items_are_made(batch))
        for warning in plan.warnings:
            context.log.warning(warning)
        yield dg.MaterializeResult(
            asset_key=names.key("group_contexts"),
            value=plan.contexts,
            metadata={"n_group_contexts": len(plan.contexts)},
            data_version=version,
        )
        yield dg.MaterializeResult(
            asset_key=names.key("work_items"),
            value=work_items,
            metadata={**facts(plan), **_headline(batch, plan), "preview": dg.MetadataValue.md(preview(plan.items))},
            data_version=version,
        )
        # After the artifact: a key without its item would be a partition that nothing can fill.
        added, removed = sync_partitions(context.instance, names, [item.partition_key for item in plan.items])
        context.log.info(f"partitions of llm_outputs: {len(plan.items)} in all, {added} added, {removed} removed")

    return [input_snapshot, plan_work]


def _headline(batch: Batch, plan: WorkPlan) -> dict[str, str]:
    """What a run would do now. Nothing is said while prompts or schema cannot be used: the items do not need them."""
    try:
        return {"plan": Planner(batch, plan, trusting=True).report().headline}
    except InputError:
        return {}


def sync_partitions(instance: dg.DagsterInstance, names: Names, keys: list[str]) -> tuple[int, int]:
    """Make the registered partition keys exactly ``keys``; gives how many were added and removed. Files stay."""
    partitions = names.partitions.name
    assert partitions is not None
    wanted, present = set(keys), set(instance.get_dynamic_partitions(partitions))
    added = [key for key in keys if key not in present]
    removed = sorted(present - wanted)
    for start in range(0, len(added), KEYS_AT_ONCE):
        instance.add_dynamic_partitions(partitions, added[start : start + KEYS_AT_ONCE])
    for key in removed:
        instance.delete_dynamic_partition(partitions, key)
    return len(added), len(removed)


def _how_items_are_made(batch: Batch) -> str:
    # Not which rows there are: a new row is a missing partition, and leaves the others fresh.
    parameters = batch.parameters
    blocks = {name: getattr(parameters, name).model_dump() for name in ("grouping", "context", "work_items")}
    return sha1_named(scheme=IDENTITY_VERSION, **blocks)
