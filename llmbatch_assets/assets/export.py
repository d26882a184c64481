"""``export``: what leaves the house."""

from typing import Any

import dagster as dg

from llmbatch_assets.assets.names import Names
from llmbatch_assets.domain.export.manifest import told_of_export
from llmbatch_assets.domain.export.settings import export_warnings
from llmbatch_assets.domain.items.table import Snapshot
from llmbatch_assets.domain.quality import ABOUT_OUTPUTS
from llmbatch_assets.resources.check_gate import refuse_unchecked
from llmbatch_assets.stages.artifacts import BatchOutputs
from llmbatch_assets.stages.export import Delivered, deliver_exports
from llmbatch_assets.stages.project import BatchFile


def _export_metadata(delivered: Delivered) -> dict[str, Any]:
    manifest = delivered.manifest
    columns = [dg.TableColumn(column["name"], column["type"], column["from"]) for column in manifest["columns"]]
    files = {f"{name} file": dg.MetadataValue.path(path) for name, path in manifest["files"].items()}
    return {
        **manifest["counts"],
        "dagster/row_count": manifest["counts"]["n_records"],
        "dagster/column_schema": dg.TableSchema(columns=columns),
        **files,
        "not exported": dg.MetadataValue.path(manifest["not_exported_file"]),
        "preview": dg.MetadataValue.md(delivered.preview),
    }


def delivery_assets(batch_file: BatchFile, names: Names) -> list[dg.AssetsDefinition]:
    """The stage before the last."""

    @dg.asset(
        key=names.key("export"),
        group_name=names.group,
        ins={
            "llm_outputs": dg.AssetIn(key=names.key("llm_outputs"), partition_mapping=dg.AllPartitionMapping()),
            "input_snapshot": dg.AssetIn(key=names.key("input_snapshot")),
        },
        deps=[names.key("work_items")],
        io_manager_key=names.io_manager,
        kinds={"table"},
        description="The accepted outputs joined back to their rows, as files.",
    )
    def export(
        context: dg.AssetExecutionContext, llm_outputs: BatchOutputs, input_snapshot: Snapshot
    ) -> dg.Output[dict[str, Any]]:
        batch = batch_file.load()
        if batch.parameters.checks.block_export:
            repair = f"{batch.command} --select llm_outputs"
            refuse_unchecked(context.instance, names.key("llm_outputs"), ABOUT_OUTPUTS, repair)
        for warning in export_warnings(batch.parameters):
            context.log.warning(warning)
        delivered = deliver_exports(batch, llm_outputs, input_snapshot)
        for told in told_of_export(delivered.manifest):
            context.log.warning(told)
        return dg.Output(delivered.manifest, metadata=_export_metadata(delivered))

    return [export]
