"""``export``: what leaves the house."""

from typing import Any

import dagster as dg

from llmbatch_assets.adapters.output_reader import OutputReader
from llmbatch_assets.adapters.project import BatchFile
from llmbatch_assets.assets.keys import Names
from llmbatch_assets.domain.quality import ABOUT_OUTPUTS
from llmbatch_assets.domain.table import Snapshot
from llmbatch_assets.resources.check_gate import refuse_unchecked
from llmbatch_assets.resources.delivery import deliver_exports


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
        context: dg.AssetExecutionContext, llm_outputs: OutputReader, input_snapshot: Snapshot
    ) -> dg.Output[dict[str, Any]]:
        batch = batch_file.load()
        if batch.parameters.checks.block_export:
            repair = f"{batch.command} --select llm_outputs"
            refuse_unchecked(context.instance, names.key("llm_outputs"), ABOUT_OUTPUTS, repair)
        manifest = deliver_exports(batch, llm_outputs, input_snapshot)
        counts = manifest["counts"]
        if counts["n_failed"] or counts["n_missing"]:
            context.log.warning(f"not exported: {counts['n_failed']} failed items, {counts['n_missing']} not attempted")
        files = {f"{name} file": dg.MetadataValue.path(path) for name, path in manifest["files"].items()}
        return dg.Output(manifest, metadata={**counts, **files})

    return [export]
