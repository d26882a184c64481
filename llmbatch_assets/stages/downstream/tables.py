"""The accepted outputs and the exported records as typed tables: a DataFrame, or an Arrow table."""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from typing import Any

from llmbatch_assets.domain.configuration.output_blocks import Explode
from llmbatch_assets.domain.export.columns import Column
from llmbatch_assets.domain.export.manifest import ExportManifest
from llmbatch_assets.domain.export.records import Join, NotExported, entries
from llmbatch_assets.domain.export.typed_table import (
    TypedColumn,
    TypedTable,
    record_reader,
    typed_columns,
    typed_value,
    value_of_text,
)
from llmbatch_assets.domain.items.cell import cell_text
from llmbatch_assets.domain.items.column_types import InputType
from llmbatch_assets.domain.items.table import Snapshot
from llmbatch_assets.errors import ArtifactError, MissingArtifactError
from llmbatch_assets.stages.artifacts import batch_outputs, load_artifact
from llmbatch_assets.stages.project import Batch
from llmbatch_assets.stages.publish.export import columns_of_export
from llmbatch_assets.stages.publish.export_check import read_export

PARTITION_KEY = "partition_key"
# The formats that keep most of a record come first.
_PREFERRED = ("jsonl", "parquet")
_TABLE_CLASSES = ("pandas.DataFrame", "pyarrow.Table")


def table_builder(kind: Any) -> Callable[[TypedTable], Any] | None:
    """Return the function that makes a table of this class; None if it is not a class of tables that we know."""
    if not isinstance(kind, type):
        return None
    name = f"{kind.__module__.partition('.')[0]}.{kind.__qualname__}"
    # Importing pandas takes long, and a parameter of this class means that it is imported already.
    if name not in _TABLE_CLASSES:
        return None
    from llmbatch_assets.adapters.tables.frames import FRAMES

    return FRAMES[name]


def outputs_table(batch: Batch, partitions: Container[str] | None = None) -> TypedTable:
    """Return the accepted outputs, one row per item, optionally only those of some partitions.

    The columns are those of the export, after the partition key. Raises ``MissingArtifactError``.
    """
    snapshot = load_artifact(batch, "input_snapshot", Snapshot)
    outputs = batch_outputs(batch)
    if partitions is not None:
        # Other outputs are not even read.
        outputs = replace(outputs, items=[item for item in outputs.items if item.partition_key in partitions])
    join = Join.of(snapshot, batch.parameters)
    if join.mode in ("expand", "explode"):
        join = replace(join, mode="one", explode=Explode())
    columns = columns_of_export(batch, join)
    key = Column(PARTITION_KEY, "meta", (PARTITION_KEY,))
    while key.name in {column.name for column in columns}:
        key = key._replace(name=f"meta_{key.name}")
    columns = [key, *columns]
    typed = typed_columns(columns, _input_types(snapshot))
    seen: set[str] = set()
    rows = []
    for record in entries(join, outputs.outcomes()):
        if isinstance(record, NotExported):
            continue
        partition = record["meta"][PARTITION_KEY]
        # Rows that share an item have the same partition.
        if partition not in seen:
            seen.add(partition)
            rows.append([typed_value(column.value(record), kind) for column, kind in zip(columns, typed, strict=True)])
    return TypedTable(typed, rows)


def output_records(batch: Batch, partitions: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the accepted outputs of some partitions, as their files hold them. Raises ``MissingArtifactError``."""
    outputs = batch_outputs(batch)
    items = {item.partition_key: item for item in outputs.items}
    found = {key: outputs.output(items[key]) if key in items else None for key in partitions}
    if missing := [key for key, output in found.items() if output is None]:
        others = f" and {len(missing) - 1:,} others" if len(missing) > 1 else ""
        raise MissingArtifactError(
            f"llm_outputs has no accepted output for partition {missing[0]}{others}; generate it with: {batch.command}"
        )
    return {key: output.model_dump(mode="json") for key, output in found.items() if output}


def exported_frame(batch: Batch) -> Any:
    """Return the records of the last export as a pandas DataFrame."""
    from llmbatch_assets.adapters.tables.frames import data_frame

    return data_frame(exported_table(batch))


def exported_table(batch: Batch) -> TypedTable:
    """Return the records of the last export, with typed values. Raises ``MissingArtifactError`` or ``ArtifactError``."""
    manifest: ExportManifest = load_artifact(batch, "export", ExportManifest)
    types = _input_types(load_artifact(batch, "input_snapshot", Snapshot))
    columns = [_typed(column, types) for column in manifest.columns]
    formats = sorted(manifest.files, key=lambda one: _PREFERRED.index(one) if one in _PREFERRED else len(_PREFERRED))
    path = batch.path(manifest.files[formats[0]])
    command = f"{batch.command} --select export"
    if not path.is_file():
        raise MissingArtifactError(f"{path} does not exist; write it with: {command}")
    if not path.stat().st_size:
        return TypedTable(columns, [])
    if formats[0] == "jsonl":
        readers = [record_reader(column, manifest.columns) for column in manifest.columns]
        with path.open(encoding="utf-8") as file:
            records = map(json.loads, file)
            rows = [
                [typed_value(read(one), kind) for read, kind in zip(readers, columns, strict=True)] for one in records
            ]
        return TypedTable(columns, rows)
    names, lines = read_export(batch, path, formats[0])
    if names != [column.name for column in columns]:
        raise ArtifactError(f"{path} does not have the columns that its manifest lists; write it again with: {command}")
    cells = ([cell_text(cell) for cell in row] for row in lines)
    return TypedTable(columns, [[value_of_text(*one) for one in zip(row, columns, strict=True)] for row in cells])


def _typed(column: dict[str, str], types: dict[str, InputType]) -> TypedColumn:
    part, _, path = column["from"].partition(".")
    kind: Any = types.get(path, "string") if part == "input" else column["type"]
    return TypedColumn(column["name"], kind, part)


def _input_types(snapshot: Snapshot) -> dict[str, InputType]:
    types: dict[str, InputType] = dict(snapshot.meta.get("column_types", {}))
    if snapshot.meta.get("input_format") != "xlsx":
        return types
    # Workbooks store all numbers as floats.
    whole = (name for name, kind in types.items() if kind == "number" and _is_whole(snapshot, name))
    return types | dict.fromkeys(whole, "integer")


def _is_whole(snapshot: Snapshot, column: str) -> bool:
    return not any("." in row[column] for row in snapshot.rows)
