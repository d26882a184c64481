"""What a JSON schema says of the columns of an export: the fields of an output, and what they hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

from llmbatch_assets.domain.schema.json_schema import JsonSchema

ColumnType = Literal["string", "integer", "number", "boolean", "json"]

_TYPES: dict[str, ColumnType] = {"string": "string", "integer": "integer", "number": "number", "boolean": "boolean"}
_OF_VALUE = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}


class OutputField(NamedTuple):
    """A field of an output by the names that lead to it; ``json`` is what has no single plain type.

    ``beside`` is set for what an object may hold beside its named fields: their names.
    """

    path: tuple[str, ...]
    type: ColumnType
    beside: frozenset[str] | None = None


class OutputSchema:
    """The JSON schema of an output, or of a part of it, with its references resolved on the way."""

    def __init__(self, schema: JsonSchema, definitions: Mapping[str, JsonSchema] | None = None) -> None:
        self._definitions: Mapping[str, JsonSchema] = schema.get("$defs", {}) if definitions is None else definitions
        self._schema = self._resolved(schema)

    def _resolved(self, schema: JsonSchema) -> JsonSchema:
        while "$ref" in schema:
            schema = self._definitions[schema["$ref"].rpartition("/")[2]]
        return schema

    @property
    def properties(self) -> Mapping[str, JsonSchema]:
        """The named fields, in schema order."""
        found: Mapping[str, JsonSchema] = self._schema.get("properties", {})
        return found

    @property
    def holds_others(self) -> bool:
        """Whether an object may hold fields beside the named ones."""
        return self._schema.get("additionalProperties", False) is not False

    def fields(self, *, flatten: bool, inside: tuple[JsonSchema, ...] = ()) -> Iterator[OutputField]:
        """The fields; with ``flatten`` those of objects inside in place of the objects, at any depth.

        An object that holds itself, or fields without a name of their own, stays whole.
        """
        above = (*inside, self._schema)
        for name, schema in self.properties.items():
            part = self._plain_object(schema) if flatten else None
            if part is None or part._schema in above:
                yield OutputField((name,), self._type(schema))
            else:
                for field in part.fields(flatten=True, inside=above):
                    yield field._replace(path=(name, *field.path))
        if self.holds_others:
            yield OutputField((), "json", frozenset(self.properties))

    def elements(self, name: str) -> OutputSchema | None:
        """The schema of the objects in the list of this name; None where it is no list of objects."""
        array = self._only(self.properties[name])
        items = self._only(array["items"]) if array and isinstance(array.get("items"), dict) else None
        return OutputSchema(items, self._definitions) if items and "properties" in items else None

    def _plain_object(self, schema: JsonSchema) -> OutputSchema | None:
        found = self._only(schema)
        if not found or not found.get("properties"):
            return None
        part = OutputSchema(found, self._definitions)
        return None if part.holds_others else part

    def _only(self, schema: JsonSchema) -> JsonSchema | None:
        """What a value is when it is not null, where there is one kind of it."""
        kinds = [kind for kind in self._alternatives(schema) if kind.get("type") != "null"]
        return kinds[0] if len(kinds) == 1 else None

    def _alternatives(self, schema: JsonSchema) -> Iterator[JsonSchema]:
        schema = self._resolved(schema)
        for choice in schema.get("anyOf") or schema.get("oneOf") or ():
            yield from self._alternatives(choice)
        if not schema.keys() & {"anyOf", "oneOf"}:
            yield schema

    def _type(self, schema: JsonSchema) -> ColumnType:
        names = {name for kind in self._alternatives(schema) for name in _type_names(kind)} - {"null"}
        return _TYPES.get(names.pop(), "json") if len(names) == 1 else "json"


def _type_names(schema: JsonSchema) -> set[str]:
    named: Any = schema.get("type")
    if named is None:
        values = schema.get("enum", [schema["const"]] if "const" in schema else [])
        return {_OF_VALUE.get(type(value), "json") for value in values} or {"json"}
    return {named} if isinstance(named, str) else set(named)
