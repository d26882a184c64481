"""The columns of an export, derived from the output's JSON schema, and the cells of a record."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby
from math import isfinite
from typing import Any, Literal, NamedTuple

from llmbatch_assets.domain.canonical import canonical_json
from llmbatch_assets.domain.schema.json_schema import JsonSchema
from llmbatch_assets.domain.text import escape_controls

Record = dict[str, Any]
# Lists and objects are JSON text here.
Cell = str | int | float | bool | None
ColumnType = Literal["string", "integer", "number", "boolean", "json"]

# Identifies a table as one of our exports: every export has this column, and other tables hardly ever do.
EXPORT_MARK = "meta_cache_id"
_TYPES: dict[str, ColumnType] = {"string": "string", "integer": "integer", "number": "number", "boolean": "boolean"}
_JSON_TYPES = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}


class OutputField(NamedTuple):
    """A field of an output. ``path`` lists the nested field names; the type is ``json`` unless it is one plain type.

    A field with ``declared`` stands for all undeclared fields of an open object; ``declared`` names the other fields.
    """

    path: tuple[str, ...]
    type: ColumnType
    declared: frozenset[str] | None = None


class OutputSchema:
    """The JSON schema of an output or a part of it. Resolves references."""

    def __init__(self, schema: JsonSchema, definitions: Mapping[str, JsonSchema] | None = None) -> None:
        self._definitions: Mapping[str, JsonSchema] = schema.get("$defs", {}) if definitions is None else definitions
        self._schema = self._resolved(schema)

    def _resolved(self, schema: JsonSchema) -> JsonSchema:
        while "$ref" in schema:
            schema = self._definitions[schema["$ref"].rpartition("/")[2]]
        return schema

    @property
    def properties(self) -> Mapping[str, JsonSchema]:
        """The declared fields, in schema order."""
        declared: Mapping[str, JsonSchema] = self._schema.get("properties", {})
        return declared

    @property
    def is_open(self) -> bool:
        """True if the object may have undeclared fields."""
        return self._schema.get("additionalProperties", False) is not False

    def fields(self, *, flatten: bool, parents: tuple[JsonSchema, ...] = ()) -> Iterator[OutputField]:
        """The fields. ``flatten`` replaces nested objects, at any depth, by their fields.

        Recursive and open objects, and objects without declared fields, are not flattened.
        """
        ancestors = (*parents, self._schema)
        for name, schema in self.properties.items():
            nested = self._closed_object(schema) if flatten else None
            if nested is None or nested._schema in ancestors:
                yield OutputField((name,), self._type(schema))
            else:
                for field in nested.fields(flatten=True, parents=ancestors):
                    yield field._replace(path=(name, *field.path))
        if self.is_open:
            yield OutputField((), "json", frozenset(self.properties))

    def elements(self, name: str) -> OutputSchema | None:
        """The schema of the objects in the list ``name``; None if the field is not a list of objects."""
        array = self._only_type(self.properties[name])
        items = self._only_type(array["items"]) if array and isinstance(array.get("items"), dict) else None
        return OutputSchema(items, self._definitions) if items and "properties" in items else None

    def _closed_object(self, schema: JsonSchema) -> OutputSchema | None:
        found = self._only_type(schema)
        if not found or not found.get("properties"):
            return None
        nested = OutputSchema(found, self._definitions)
        return None if nested.is_open else nested

    def _only_type(self, schema: JsonSchema) -> JsonSchema | None:
        """The only alternative apart from null; None if there are several."""
        alternatives = [one for one in self._alternatives(schema) if one.get("type") != "null"]
        return alternatives[0] if len(alternatives) == 1 else None

    def _alternatives(self, schema: JsonSchema) -> Iterator[JsonSchema]:
        schema = self._resolved(schema)
        for choice in schema.get("anyOf") or schema.get("oneOf") or ():
            yield from self._alternatives(choice)
        if not schema.keys() & {"anyOf", "oneOf"}:
            yield schema

    def _type(self, schema: JsonSchema) -> ColumnType:
        names = {name for one in self._alternatives(schema) for name in _type_names(one)} - {"null"}
        return _TYPES.get(names.pop(), "json") if len(names) == 1 else "json"


def _type_names(schema: JsonSchema) -> set[str]:
    named: Any = schema.get("type")
    if named is None:
        values = schema.get("enum", [schema["const"]] if "const" in schema else [])
        return {_JSON_TYPES.get(type(value), "json") for value in values} or {"json"}
    return {named} if isinstance(named, str) else set(named)


class Column(NamedTuple):
    """A column of the export. ``part`` and ``path`` locate its value in a record.

    With ``declared``, the value is the object at the path without these fields.
    """

    name: str
    part: str
    path: tuple[str, ...]
    type: ColumnType = "string"
    declared: frozenset[str] | None = None

    @property
    def origin(self) -> str:
        """The source of the value, as written in the manifest."""
        return ".".join((self.part, *self.path, *(("*",) if self.declared is not None else ())))

    def value(self, record: Record) -> Any:
        """The value in a record; None if there is none."""
        found = record[self.part]
        for name in self.path:
            if not isinstance(found, dict):
                return None
            found = found.get(name)
        if self.declared is None or found is None:
            return found
        return {name: value for name, value in found.items() if name not in self.declared} or None


_KEY_COLUMNS = (
    Column("meta_work_id", "meta", ("work_id",)),
    Column("meta_row_index", "meta", ("row_index",), "integer"),
    Column("meta_group_key", "meta", ("group_key",)),
    Column("meta_group_context_id", "meta", ("group_context_id",)),
)
_META_COLUMNS = (
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
    """The columns in their fixed order: input, keys, output fields in schema order, judge, remaining metadata.

    ``element_fields`` are the fields of list elements, for exports with one record per element. ``verdict`` names the
    judge's verdict field, and ``score`` is the type of its score. Prefixes keep names unique: ``input_`` for an input
    column with the name of one of ours, ``parsed_`` for an output field with the name of another column.
    """
    judge = (
        Column("judge_verdict", "judge", (verdict,), "string" if verdict == "verdict" else "boolean"),
        Column("judge_score", "judge", ("score",), score),
        Column("judge_reasons_json", "judge", ("reasons",), "json"),
    )
    given = [Column(name, "input", (name,)) for name in input_columns]
    ours = {column.name for column in (*_KEY_COLUMNS, *judge, *_META_COLUMNS)}
    taken = ours | {column.name for column in given}
    columns: list[Column] = []
    for column in given:
        columns.append(_with_free_name(column, "input_", taken) if column.name in ours else column)
        taken.add(columns[-1].name)
    columns += _KEY_COLUMNS
    for part, fields in (("parsed", output_fields), ("element", element_fields)):
        for field in fields:
            columns.append(_with_free_name(_column(part, field), "parsed_", taken))
            taken.add(columns[-1].name)
    return [*columns, *judge, *_META_COLUMNS]


def _column(part: str, field: OutputField) -> Column:
    path = field.path if field.declared is None else (*field.path, f"{part}_extra_json")
    return Column(".".join(path), part, *field)


def _with_free_name(column: Column, prefix: str, taken: set[str]) -> Column:
    while column.name in taken:
        column = column._replace(name=prefix + column.name)
    return column


_PLAIN_TYPES = frozenset((str, int, float, bool, type(None)))


def cell_reader(columns: Iterable[Column]) -> Callable[[Record], list[Cell]]:
    """A function that returns a record's cells. Lists and objects become JSON."""
    # Columns that are fields of the same part are read together, which takes a tenth of the time.
    groups = [(part, list(several)) for part, several in groupby(columns, _part_of_plain_field)]
    runs = [(part, [column.path[0] for column in several] if part else [], several) for part, several in groups]

    def read(record: Record) -> list[Cell]:
        values: list[Any] = []
        for part, names, several in runs:
            found = record[part] if part else None
            values += map(found.get, names) if type(found) is dict else [column.value(record) for column in several]
        return [value if type(value) in _PLAIN_TYPES else _cell(value) for value in values]

    return read


def _part_of_plain_field(column: Column) -> str:
    return column.part if len(column.path) == 1 and column.declared is None else ""


def cells(record: Record, columns: Iterable[Column]) -> list[Cell]:
    """The record's cells."""
    return cell_reader(columns)(record)


def _cell(value: Any) -> Cell:
    if value is None or isinstance(value, str | int | float):
        return value
    # A backslash before x{ is written in its other form, because csv has escapes of that form.
    return escape_controls(canonical_json(value)).replace(r"\\x{", r"\u005cx{")


def cell_text(value: Cell) -> str:
    """The cell as text: strings unchanged, None as "", numbers as in JSON."""
    if value is None:
        return ""
    # Both give the text of JSON, and are ten times faster for the types of most numbers.
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) or (isinstance(value, float) and isfinite(value)):
        return repr(value)
    return value if isinstance(value, str) else canonical_json(value)
