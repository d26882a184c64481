"""The assets of the prepare stage: the schema as code and text, the snapshot of the table, and the work items."""

from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg
from pydantic import Field

from llmbatch_assets.assets.checks import report_check
from llmbatch_assets.assets.descriptions import description
from llmbatch_assets.assets.names import Names
from llmbatch_assets.assets.sensors import use_sources
from llmbatch_assets.domain.items.table import Snapshot
from llmbatch_assets.domain.items.work import GroupContext, WorkItems, WorkPlan, items_preview, plan_metadata
from llmbatch_assets.domain.text import visible
from llmbatch_assets.errors import RunInterruptedError
from llmbatch_assets.resources.llm import LlmResource, llm_resource
from llmbatch_assets.resources.runs import ReporterFactory, cancel, failing_with_message
from llmbatch_assets.stages.prepare import (
    Outlook,
    outlook_on,
    prepare_work,
    snapshot_of_asset,
    snapshot_version,
    warnings_about_prompts,
)
from llmbatch_assets.stages.project import Batch, BatchFile
from llmbatch_assets.stages.write_schema import ensure_schema_txt, reason_to_write, write_schema


class SchemaModuleConfig(dg.Config):
    """Configuration of ``llm_schema_py``."""

    force: bool = Field(default=False, description="Archive the module and let the model write a new one.")


class SchemaTextConfig(dg.Config):
    """Configuration of ``llm_schema_txt``."""

    force: bool = Field(default=False, description="Archive and rewrite the text even if it is up to date.")


def prepare_assets(
    batch_file: BatchFile, names: Names, reporter: ReporterFactory | None, input_asset: dg.AssetKey | None
) -> list[dg.AssetsDefinition]:
    """The assets of this stage. ``input_asset``, if any, provides the table in place of ``input.path``."""
    return [
        _schema_module_asset(batch_file, names, reporter),
        _schema_text_asset(batch_file, names),
        _snapshot_asset(batch_file, names, input_asset),
        _work_asset(batch_file, names),
    ]


def _schema_module_asset(batch_file: BatchFile, names: Names, reporter: ReporterFactory | None) -> dg.AssetsDefinition:
    @dg.asset(
        key=names.key("llm_schema_py"),
        group_name=names.group,
        deps=[names.key("parameters"), names.key("prompts")],
        required_resource_keys={names.llm},
        kinds={"python", "pydantic"},
        description=description("llm_schema_py"),
    )
    @failing_with_message()
    def llm_schema_py(context: dg.AssetExecutionContext, config: SchemaModuleConfig) -> dg.MaterializeResult[None]:
        batch = batch_file.load()
        path = batch.layout.schema_py
        reason = reason_to_write(batch, force=config.force)
        metadata: dict[str, int | float | str] = {"source": f"generated ({reason})" if reason else "existing file"}
        if reason:
            say = reporter(context, batch).say if reporter else context.log.info
            say(f"The model will write {path}: {reason}")
            metadata |= _write_module(context, batch, llm_resource(context, names.llm), say)
        batch.check_schema()
        contract = batch.schema.output()
        is_trusted = batch.parameters.llm_schema.trust
        checks = "not checked, llm_schema.trust is set" if is_trusted else "checks passed"
        context.log.info(f"Using {'new' if reason else 'existing'} {path} ({checks}, schema_sha={contract.sha})")
        return dg.MaterializeResult(
            metadata={
                "path": dg.MetadataValue.path(str(path)),
                "schema_sha": contract.sha,
                "models": ", ".join(batch.schema.models),
                "schema_check": "skipped (llm_schema.trust)" if is_trusted else "passed",
                **metadata,
            },
            data_version=dg.DataVersion(contract.sha),
            tags=use_sources(context, batch, names, "parameters", "prompts"),
        )

    return llm_schema_py


def _write_module(
    context: dg.AssetExecutionContext, batch: Batch, llm: LlmResource, say: Callable[[str], None]
) -> dict[str, int | float | str]:
    """Let the model write the schema module and return the metadata about it."""
    try:
        done = write_schema(batch, llm.client, say, context.run.run_id)
    except RunInterruptedError as interrupted:
        cancel(context, str(interrupted))
    say(done.message(batch))
    written, archived = done.written, done.archived
    metadata: dict[str, int | float | str] = {"attempts": written.attempts, "tokens": written.usage.total_tokens}
    if written.usage.cost_usd is not None:
        metadata["cost_usd"] = written.usage.cost_usd
    return metadata | ({"archived": batch.shown(archived)} if archived else {})


def _schema_text_asset(batch_file: BatchFile, names: Names) -> dg.AssetsDefinition:
    @dg.asset(
        key=names.key("llm_schema_txt"),
        group_name=names.group,
        deps=[names.key("llm_schema_py")],
        kinds={"json"},
        description=description("llm_schema_txt"),
    )
    @failing_with_message()
    def llm_schema_txt(context: dg.AssetExecutionContext, config: SchemaTextConfig) -> dg.MaterializeResult[None]:
        batch = batch_file.load()
        written, sha, message = ensure_schema_txt(batch, force=config.force)
        context.log.info(message)
        return dg.MaterializeResult(
            metadata={"path": dg.MetadataValue.path(str(batch.layout.schema_txt)), "file_changed": written},
            data_version=dg.DataVersion(sha),
        )

    return llm_schema_txt


def _snapshot_asset(batch_file: BatchFile, names: Names, input_asset: dg.AssetKey | None) -> dg.AssetsDefinition:
    sources = ["parameters"] if input_asset else ["input_table", "parameters"]

    @dg.asset(
        key=names.key("input_snapshot"),
        group_name=names.group,
        ins={"table": dg.AssetIn(key=input_asset)} if input_asset else {},
        deps=[names.key(name) for name in sources],
        io_manager_key=names.io_manager,
        kinds={"table", "json"},
        description=description("input_snapshot"),
    )
    @failing_with_message()
    def input_snapshot(context: dg.AssetExecutionContext, **inputs: Any) -> dg.MaterializeResult[Snapshot]:
        batch = batch_file.load()
        if input_asset:
            snapshot = snapshot_of_asset(batch, inputs["table"], input_asset.to_user_string())
        else:
            snapshot = batch.read_snapshot(is_last_use=True)
        return dg.MaterializeResult(
            value=snapshot,
            metadata={
                "n_rows": snapshot.n_rows,
                "n_cols": snapshot.n_cols,
                "columns": visible(", ".join(snapshot.columns)),
            },
            data_version=dg.DataVersion(snapshot_version(snapshot)),
            tags=use_sources(context, batch, names, *sources),
        )

    return input_snapshot


# The type of each asset that is made from the snapshot.
_WORK_ARTIFACTS: dict[str, Any] = {"group_contexts": list[GroupContext], "work_items": WorkItems}


def _work_asset(batch_file: BatchFile, names: Names) -> dg.AssetsDefinition:
    @dg.multi_asset(
        name=names.own("group_contexts_and_work_items"),
        group_name=names.group,
        ins={"input_snapshot": dg.AssetIn(key=names.key("input_snapshot"))},
        deps=[names.key("parameters")],
        outs={
            asset: dg.AssetOut(
                key=names.key(asset),
                io_manager_key=names.io_manager,
                kinds={"json"},
                dagster_type=kind,
                description=description(asset),
            )
            for asset, kind in _WORK_ARTIFACTS.items()
        },
    )
    def group_contexts_and_work_items(
        context: dg.AssetExecutionContext, input_snapshot: Snapshot
    ) -> Iterator[dg.MaterializeResult[object]]:
        with failing_with_message():
            batch = batch_file.load()
            plan, work_items, version = prepare_work(batch, input_snapshot)
            outlook = outlook_on(batch, plan)
            common: dict[str, Any] = {
                "data_version": dg.DataVersion(version),
                "tags": use_sources(context, batch, names, "parameters"),
            }
            for warning in [*plan.warnings, *warnings_about_prompts(batch, input_snapshot)]:
                context.log.warning(visible(warning))
            yield dg.MaterializeResult(
                asset_key=names.key("group_contexts"),
                value=plan.contexts,
                metadata={"n_group_contexts": len(plan.contexts)},
                **common,
            )
            yield dg.MaterializeResult(
                asset_key=names.key("work_items"), value=work_items, metadata=_plan_metadata(plan, outlook), **common
            )
            # After the artifact is stored: a key without its item would be a partition that no run can fill.
            keys = [item.partition_key for item in plan.items]
            synced = names.registered(context.instance).sync(keys)
            if outlook:
                report_check(context.instance, names.key("llm_outputs"), outlook.age)
            later = f", {synced.retired} removed after the current backfill or run" if synced.retired else ""
            context.log.info(
                f"llm_outputs partitions: {len(keys)} total, {synced.added} added, {synced.removed} removed{later}"
            )

    return group_contexts_and_work_items


def _plan_metadata(plan: WorkPlan, outlook: Outlook | None) -> dict[str, Any]:
    return {
        **plan_metadata(plan),
        **({"plan": outlook.headline} if outlook else {}),
        "preview": dg.MetadataValue.md(items_preview(plan.items)),
    }
