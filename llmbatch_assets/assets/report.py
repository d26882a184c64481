"""``report``: what ran, and how it ended."""

from typing import Any

import dagster as dg

from llmbatch_assets.assets.names import Names
from llmbatch_assets.domain.export.columns import ExportManifest
from llmbatch_assets.domain.items.table import Snapshot
from llmbatch_assets.resources.report_metadata import report_metadata
from llmbatch_assets.stages.artifacts import BatchOutputs
from llmbatch_assets.stages.project import BatchFile
from llmbatch_assets.stages.report import deliver_report


def report_asset(batch_file: BatchFile, names: Names) -> dg.AssetsDefinition:
    """The last stage."""

    @dg.asset(
        key=names.key("report"),
        group_name=names.group,
        ins={
            "export": dg.AssetIn(key=names.key("export")),
            "llm_outputs": dg.AssetIn(key=names.key("llm_outputs"), partition_mapping=dg.AllPartitionMapping()),
            "input_snapshot": dg.AssetIn(key=names.key("input_snapshot")),
        },
        deps=[names.key("work_items"), names.key("group_contexts"), names.key("llm_schema_txt")],
        io_manager_key=names.io_manager,
        kinds={"markdown"},
        output_required=False,
        description="What ran, how it ended, samples to look at, and where everything is.",
    )
    def report(
        context: dg.AssetExecutionContext, export: ExportManifest, llm_outputs: BatchOutputs, input_snapshot: Snapshot
    ) -> Any:
        batch = batch_file.load()
        if not batch.parameters.report.enabled:
            context.log.info("report.enabled is false; nothing to do")
            return
        delivered = deliver_report(batch, llm_outputs, export, input_snapshot)
        yield dg.Output(delivered.manifest, metadata=report_metadata(delivered))

    return report
