"""What is in the exported file of a batch, read back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmbatch_assets.adapters.tables.readers import read_table
from llmbatch_assets.domain.export.export_check import Delivered
from llmbatch_assets.domain.items.cell import cell_text
from llmbatch_assets.domain.parameters import Input
from llmbatch_assets.stages.project import Batch


def exported_outputs(batch: Batch) -> list[Delivered]:
    """The records of the first configured format, none where there is no file, or none in it.

    Raises ``TableError`` where the file cannot be read.
    """
    file_format = batch.parameters.outputs.formats[0]
    path = batch.path(batch.layout.export(file_format))
    if not path.is_file() or not path.stat().st_size:
        return []
    table = read_table(path, Input.model_validate({"path": str(path), "format": file_format}))
    found = [_delivered(dict(zip(table.columns, row, strict=False))) for row in table.rows]
    if (
        not batch.parameters.outputs.spreads_groups
        or not batch.parameters.grouping.active_mode.makes_one_item_per_group
    ):
        return found
    # The records of a group stand for it together.
    return list(dict.fromkeys(one._replace(row_index="") for one in found))


def _delivered(record: Mapping[str, Any]) -> Delivered:
    # Lines of JSON hold the facts together, the tables each in a column.
    facts = record.get("meta") or {name: record.get(f"meta_{name}") for name in Delivered._fields}
    return Delivered(*(cell_text(facts.get(name)) for name in Delivered._fields))
