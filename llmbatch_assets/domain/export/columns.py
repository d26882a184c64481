"""The columns of an export, and a record as a line of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from pydantic import BaseModel

from llmbatch_assets.domain.canonical import canonical_json
from llmbatch_assets.domain.export.fields import ColumnType, OutputField
from llmbatch_assets.domain.text import without_surrogates

Record = dict[str, Any]
# What a cell of a table can be: lists and objects are JSON texts by then.
Cell = str | int | float | bool | None


class ExportManifest(BaseModel):
    """What later steps read of ``pipeline5_manifest.json``."""

    files: dict[str, str]


# A column that every export has, and hardly another table.
EXPORT_MARK = "meta_cache_id"


class Column(NamedTuple):
    """One column of the export: its name, where a record holds its value, and what that is.

    With ``beside`` the value is what the object there holds under other names than these.
    """

    name: str
    part: str
    path: tuple[str, ...]
    type: ColumnType = "string"
    beside: frozenset[str] | None = None

    @property
    def origin(self) -> str:
        """Where the value is from, as the manifest says it."""
        return ".".join((self.part, *self.path, *(("*",) if self.beside is not None else ())))

    def value(self, record: Record) -> Any:
        """The record's value; None where it has none."""
        found = record[self.part]
        for name in self.path:
            if not isinstance(found, dict):
                return None
            found = found.get(name)
        if self.beside is None or found is None:
            return found
        return {name: value for name, value in found.items() if name not in self.beside} or None


_KEYS = (
    Column("meta_work_id", "meta", ("work_id",)),
    Column("meta_row_index", "meta", ("row_index",), "integer"),
    Column("meta_group_key", "meta", ("group_key",)),
    Column("meta_group_context_id", "meta", ("group_context_id",)),
)
_REST = (
    Column(EXPORT_MARK, "meta", ("cache_id",)),
    Column("meta_provider", "meta", ("provider",)),
    Column("meta_model", "meta", ("model",)),
    Column("meta_temperature", "meta", ("temperature",), "number"),
    Column("meta_created_at_utc", "meta", ("created_at_utc",)),
)


def export_columns(
    input_columns: Iterable[str],
    output_fields: Iterable[OutputField],
    element_fields: Iterable[OutputField] = (),
    verdict: str = "verdict",
    score: ColumnType = "number",
) -> list[Column]:
    """Columns in their fixed order: input, keys, output fields in schema order, judge, the rest of meta.

    ``element_fields`` are those of the list's elements where there is a record for each; ``verdict`` is the judge's
    field that says whether it passed, ``score`` the type of its score. An output field that is named like an input column gets the prefix ``parsed_``,
    an input column that is named like one of ours ``input_``: nothing overwrites anything.
    """
    given = [Column(name, "input", (name,)) for name in input_columns]
    judged = (
        Column("judge_verdict", "judge", (verdict,), "string" if verdict == "verdict" else "boolean"),
        Column("judge_score", "judge", ("score",), score),
        Column("judge_reasons_json", "judge", ("reasons",), "json"),
    )
    ours = {column.name for column in (*_KEYS, *judged, *_REST)}
    taken = ours | {column.name for column in given}
    columns: list[Column] = []
    for column in given:
        others = {name for name in taken if name != column.name or name in ours}
        columns.append(_apart(column, "input_", others))
        taken.add(columns[-1].name)
    columns += _KEYS
    made = [_column("parsed", field) for field in output_fields] + [
        _column("element", field) for field in element_fields
    ]
    for column in made:
        columns.append(_apart(column, "parsed_", taken))
        taken.add(columns[-1].name)
    return [*columns, *judged, *_REST]


def _column(part: str, field: OutputField) -> Column:
    name = ".".join(field.path) if field.beside is None else ".".join((*field.path, f"{part}_extra_json"))
    return Column(name, part, field.path, field.type, field.beside)


def _apart(column: Column, prefix: str, taken: set[str]) -> Column:
    """The column under a name that none of ``taken`` has."""
    while column.name in taken:
        column = column._replace(name=prefix + column.name)
    return column


def cells(record: Record, columns: Iterable[Column]) -> list[Cell]:
    """The record as one line of a table: lists and objects as JSON."""
    return [_cell(column.value(record)) for column in columns]


def _cell(value: Any) -> Cell:
    if isinstance(value, str):
        return value if value.isascii() else without_surrogates(value)
    if value is None or isinstance(value, int | float):
        return value
    return without_surrogates(canonical_json(value))


def cell_text(value: Cell) -> str:
    """A cell as text: texts as they are, nothing as "", numbers as in JSON."""
    if value is None:
        return ""
    # Of the numbers most are integers, which take a tenth of the time this way.
    if type(value) is int:
        return str(value)
    return value if isinstance(value, str) else canonical_json(value)
