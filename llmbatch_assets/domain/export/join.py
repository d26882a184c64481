"""The join of outputs with table rows: how ``outputs`` and ``grouping`` configure it, and the columns it gives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from llmbatch_assets.domain.answer import verdict_field
from llmbatch_assets.domain.export.columns import Column, ColumnType, OutputField, OutputSchema, export_columns
from llmbatch_assets.domain.grouping_modes import modes_with_group_items
from llmbatch_assets.domain.items.table import Snapshot, nearest_first
from llmbatch_assets.domain.parameters import Explode, Parameters
from llmbatch_assets.errors import ConfigError

# A record per row, per group, per row of a group, or per element of a list in a group's output.
JoinMode = Literal["rows", "one", "expand", "explode"]


@dataclass(frozen=True)
class Join:
    """How the outputs of a batch are joined with its rows."""

    snapshot: Snapshot
    grouping_column: str
    mode: JoinMode
    explode: Explode

    @classmethod
    def of(cls, snapshot: Snapshot, parameters: Parameters) -> Join:
        """The join that the parameters configure."""
        grouping, outputs = parameters.grouping, parameters.outputs
        group_mode: JoinMode = "explode" if outputs.explode.list else outputs.group_rows
        mode = group_mode if grouping.active_mode.makes_one_item_per_group else "rows"
        return cls(snapshot, grouping.column, mode, outputs.explode)

    @property
    def input_columns(self) -> list[str]:
        """The columns in the ``input`` of a record."""
        return [self.grouping_column] if self.mode == "one" else self.snapshot.columns

    def columns(self, schema: OutputSchema, judge: Mapping[str, ColumnType], *, flatten: bool) -> list[Column]:
        """The columns of the export. ``judge`` maps the fields of a verdict to their types. Raises ``ConfigError``."""
        fields = list(schema.fields(flatten=flatten))
        elements: Iterable[OutputField] = ()
        if self.mode == "explode":
            elements = _element_schema(self.explode, schema, self.snapshot.columns).fields(flatten=flatten)
            fields = [field for field in fields if field.path != (self.explode.list,)]
        score: ColumnType = "integer" if judge.get("score") == "integer" else "number"
        return export_columns(self.input_columns, fields, elements, verdict_field(judge), score)


def _element_schema(explode: Explode, schema: OutputSchema, columns: Sequence[str]) -> OutputSchema:
    """The schema of the list's elements. Raises ``ConfigError`` if the list, its key or the column does not exist."""
    if explode.list not in schema.properties:
        raise _unknown("list", f"the output has no field {explode.list!r}", explode.list, schema.properties)
    element = schema.elements(explode.list)
    if element is None:
        raise ConfigError(
            f"outputs.explode.list: {explode.list!r} is not a list of objects; name a field that is, or remove "
            "outputs.explode"
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
    """Warnings about settings that have no effect."""
    outputs = parameters.outputs
    if parameters.grouping.active_mode.makes_one_item_per_group:
        return []
    given = {"outputs.explode": outputs.explode.list, "outputs.group_rows": outputs.group_rows == "expand"}
    modes = modes_with_group_items()
    return [f"{key} has no effect: it applies only to grouping.mode {modes}" for key, is_set in given.items() if is_set]
