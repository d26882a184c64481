"""From what ``outputs`` says to columns, where it fits the schema and the table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from llmbatch_assets.domain.answer import verdict_field
from llmbatch_assets.domain.export.columns import Column, export_columns
from llmbatch_assets.domain.export.fields import ColumnType, OutputField, OutputSchema
from llmbatch_assets.domain.export.records import Join
from llmbatch_assets.domain.grouping_modes import modes_with_group_items
from llmbatch_assets.domain.items.table import nearest_first
from llmbatch_assets.domain.parameters import Explode, Parameters
from llmbatch_assets.errors import ConfigError


def columns_of(join: Join, schema: OutputSchema, judge: Mapping[str, ColumnType], *, flatten: bool) -> list[Column]:
    """The columns of an export; ``judge`` are the fields of a verdict and what they hold. Raises ``ConfigError``."""
    fields = list(schema.fields(flatten=flatten))
    elements: Iterable[OutputField] = ()
    if join.way == "explode":
        elements = checked_elements(join.explode, schema, join.snapshot.columns).fields(flatten=flatten)
        fields = [field for field in fields if field.path != (join.explode.list,)]
    score: ColumnType = "integer" if judge.get("score") == "integer" else "number"
    return export_columns(join.input_columns, fields, elements, verdict_field(judge), score)


def checked_elements(explode: Explode, schema: OutputSchema, columns: Sequence[str]) -> OutputSchema:
    """The schema of the list's elements. Raises ``ConfigError`` where a list, its key or the column does not exist."""
    if explode.list not in schema.properties:
        raise _unknown("list", f"the output has no field {explode.list!r}", explode.list, schema.properties)
    element = schema.elements(explode.list)
    if element is None:
        raise ConfigError(
            f"outputs.explode.list: {explode.list!r} is no list of objects; name a field that is one, or leave "
            "outputs.explode out"
        )
    if explode.item_key not in element.properties:
        problem = f"the elements of {explode.list!r} have no field {explode.item_key!r}"
        raise _unknown("item_key", problem, explode.item_key, element.properties)
    if explode.input_column not in columns:
        problem = f"the table has no column {explode.input_column!r}"
        raise _unknown("input_column", problem, explode.input_column, columns)
    return element


def _unknown(key: str, problem: str, name: str, known: Iterable[str]) -> ConfigError:
    return ConfigError(f"outputs.explode.{key}: {problem}; it has: {nearest_first(name, list(known))}")


def export_warnings(parameters: Parameters) -> list[str]:
    """What is set and has no effect."""
    outputs = parameters.outputs
    given = {"outputs.explode": outputs.explode.list, "outputs.group_rows": outputs.group_rows == "expand"}
    if parameters.grouping.active_mode.makes_one_item_per_group:
        return []
    return [
        f"{key} has no effect: it is for grouping.mode {modes_with_group_items()}"
        for key, wanted in given.items()
        if wanted
    ]
