"""The asset ``export_table``: the exported records as a table in the user's own storage."""

from typing import Any

import dagster as dg

from llmbatch_assets.assets.names import Names
from llmbatch_assets.assets.publish import report_condition
from llmbatch_assets.resources.runs import failing_with_message
from llmbatch_assets.stages.downstream.tables import exported_frame
from llmbatch_assets.stages.project import BatchFile

EXPORT_TABLE = "export_table"


def export_table_asset(batch_file: BatchFile, names: Names, io_manager_key: str) -> dg.AssetsDefinition:
    """The asset that passes the exported records as a DataFrame to the I/O manager with this key."""

    @dg.asset(
        key=names.key(EXPORT_TABLE),
        group_name=names.group,
        deps=[names.key("export")],
        io_manager_key=io_manager_key,
        automation_condition=report_condition(names),
        kinds={"table"},
        description="The exported records as a table: one row per accepted item, with typed columns. Stored by the I/O "
        f"manager {io_manager_key}.",
    )
    @failing_with_message()
    def export_table() -> Any:
        return exported_frame(batch_file.load())

    return export_table
