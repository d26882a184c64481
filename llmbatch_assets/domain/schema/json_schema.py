"""Rewrite JSON Schemas for prompts and for providers, and answer questions about them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

JsonSchema = dict[str, Any]

# Keep a definition as a reference above this many nested values; inlined at each use, it would flood the prompt.
LARGEST_INLINED = 500

# Keywords that contain other schemas. Everything else (defaults, examples, notes) is data and stays unchanged.
_SCHEMAS_BY_NAME = {"properties", "patternProperties", "$defs", "dependentSchemas"}
_SCHEMA_LISTS = {"anyOf", "oneOf", "allOf", "prefixItems"}
_SCHEMAS = {
    *("items", "additionalProperties", "propertyNames", "contains", "not", "if", "then", "else"),
    *("unevaluatedItems", "unevaluatedProperties"),
}

# Keywords supported by OpenAI's strict form. https://platform.openai.com/docs/guides/structured-outputs#supported-schemas
_KNOWN = {
    *("type", "enum", "anyOf", "$ref", "$defs", "description", "properties", "required", "additionalProperties"),
    *("items", "pattern", "format", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    *("minItems", "maxItems"),
}
# Limits that the strict form lacks, with the words added to the description instead. Keywords that are in neither set
# (titles, defaults, notes) limit nothing and are dropped.
_DESCRIBED = {
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "uniqueItems": "no item twice",
}
# Limits that neither the strict form nor a few words can express.
_NO_STRICT_FORM = {
    *("prefixItems", "not", "if", "then", "else", "contains", "propertyNames", "patternProperties"),
    *("dependentRequired", "dependentSchemas", "unevaluatedItems", "unevaluatedProperties"),
    *("minProperties", "maxProperties"),
}
_FORMATS = {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"}


def inline_definitions(schema: JsonSchema) -> JsonSchema:
    """Inline each definition where it is referenced, so that the schema reads from top to bottom.

    Recursive and very large definitions stay in ``$defs``.
    """
    definitions: dict[str, JsonSchema] = schema.get("$defs", {})
    root = definitions[_definition_name(schema["$ref"])] if "$ref" in schema else schema
    kept = _kept_references(definitions)

    def inline(node: Any) -> Any:
        if not isinstance(node, dict):
            return node
        own = {key: _map_subschemas(key, part, inline) for key, part in node.items()}
        if isinstance(own.get("discriminator"), dict):
            # The mapping names definitions that are inlined now; the alternatives contain the same information.
            own["discriminator"] = {key: part for key, part in own["discriminator"].items() if key != "mapping"}
        if "$ref" in own and _definition_name(own["$ref"]) not in kept:
            return {**inline(definitions[_definition_name(own.pop("$ref"))]), **own}
        return own

    body = inline({key: part for key, part in root.items() if key != "$defs"})
    left = {name: inline(definitions[name]) for name in definitions if name in kept}
    return {"$defs": left, **body} if left else body


def _map_subschemas(key: str, part: Any, change: Callable[[Any], Any]) -> Any:
    """Apply ``change`` to the schemas in the value of a keyword."""
    if key in _SCHEMAS:
        return change(part)
    if key in _SCHEMAS_BY_NAME and isinstance(part, dict):
        return {name: change(schema) for name, schema in part.items()}
    if key in _SCHEMA_LISTS and isinstance(part, list):
        return [change(schema) for schema in part]
    return part


def _definition_name(reference: str) -> str:
    return reference.removeprefix("#/$defs/")


def _kept_references(definitions: dict[str, JsonSchema]) -> set[str]:
    """Return the names of recursive and of too large definitions."""
    uses = {name: _references(schema) for name, schema in definitions.items()}
    sizes = {name: _size(schema) for name, schema in definitions.items()}
    kept = {name for name in definitions if _reaches(name, name, uses)}
    weights: dict[str, int] = {}

    def weight(name: str) -> int:
        if name in kept:
            return 1
        if name not in weights:
            weights[name] = sizes[name] + sum(map(weight, uses[name]))
        return weights[name]

    return kept | {name for name in definitions if weight(name) > LARGEST_INLINED}


def _walk(node: Any) -> Iterator[JsonSchema]:
    """Yield a schema and all schemas inside it, outermost first."""
    if isinstance(node, dict):
        yield node
        for key, part in node.items():
            inner: list[Any] = []
            _map_subschemas(key, part, inner.append)
            for schema in inner:
                yield from _walk(schema)


def _references(schema: JsonSchema) -> list[str]:
    return [_definition_name(node["$ref"]) for node in _walk(schema) if "$ref" in node]


def _reaches(start: str, goal: str, uses: dict[str, list[str]]) -> bool:
    seen: set[str] = set()
    waiting = list(uses[start])
    while waiting:
        name = waiting.pop()
        if name == goal:
            return True
        if name not in seen:
            seen.add(name)
            waiting += uses[name]
    return False


def _size(node: Any) -> int:
    if isinstance(node, dict):
        return 1 + sum(map(_size, node.values()))
    return 1 + sum(map(_size, node)) if isinstance(node, list) else 1


def can_be(schema: JsonSchema, value: Any, root: JsonSchema) -> bool:
    """Return whether the schema allows values of the type of ``value``, or this value if it lists its values."""
    if "$ref" in schema:
        return can_be(root["$defs"][_definition_name(schema["$ref"])], value, root)
    for key in ("anyOf", "oneOf", "allOf"):
        if key in schema:
            return any(can_be(part, value, root) for part in schema[key])
    if "enum" in schema or "const" in schema:
        return value in schema.get("enum", [schema.get("const")])
    kinds = schema.get("type", [])
    return not kinds or not _TYPES[type(value)].isdisjoint([kinds] if isinstance(kinds, str) else kinds)


_TYPES = {str: {"string"}, bool: {"boolean"}, int: {"integer", "number"}, list: {"array"}}


def strict_form(schema: JsonSchema) -> JsonSchema | None:
    """Convert the schema to the form of OpenAI's strict mode. Returns None if it has no such form.

    All properties become required. Unsupported keywords are dropped; limits among them are added to the description, so
    that an answer within the form and those limits matches the schema. ``const`` becomes an ``enum`` of one value and
    ``oneOf`` becomes ``anyOf``. Open objects (``dict[...]``), tuples and untyped values have no strict form.
    """
    try:
        return _strict(schema)
    except _NoStrictFormError:
        return None


class _NoStrictFormError(Exception):
    pass


def _strict(node: JsonSchema) -> JsonSchema:
    if _NO_STRICT_FORM & set(node) or not {"type", "$ref", "anyOf", "oneOf", "allOf", "enum", "const"} & set(node):
        raise _NoStrictFormError
    made = {key: part for key, part in node.items() if key in _KNOWN}
    limits = [words.format(node[key]) for key, words in _DESCRIBED.items() if key in node]
    if limits:
        made["description"] = f"{node.get('description', '')} ({', '.join(limits)})".strip()
    if made.get("format") not in {None, *_FORMATS}:
        del made["format"]
    if "const" in node:
        made["enum"] = [node["const"]]
    _convert_parts(made, [node[key] for key in ("anyOf", "oneOf", "allOf") if key in node])
    if "$ref" in made and len(made) > 1:
        # The form allows nothing beside a reference, not even a description.
        made["anyOf"] = [{"$ref": made.pop("$ref")}]
    return made


def _convert_parts(made: JsonSchema, choices: list[list[JsonSchema]]) -> None:
    if choices:
        if len(choices) > 1:
            raise _NoStrictFormError
        made["anyOf"] = [_strict(part) for part in choices[0]]
    if "$defs" in made:
        made["$defs"] = {name: _strict(part) for name, part in made["$defs"].items()}
    if made.get("type") == "object":
        if made.get("additionalProperties") is not False:
            raise _NoStrictFormError
        made["properties"] = {name: _strict(part) for name, part in made.get("properties", {}).items()}
        made["required"] = list(made["properties"])
    if made.get("type") == "array":
        if "items" not in made:
            raise _NoStrictFormError
        made["items"] = _strict(made["items"])


def open_objects(schema: JsonSchema) -> list[str]:
    """Return the titles of objects with named fields that allow additional fields."""
    return [
        str(node.get("title", "an untitled object"))
        for node in _walk(schema)
        if "properties" in node and node.get("additionalProperties") is not False
    ]


def requires_all(schema: JsonSchema) -> bool:
    """Return whether every object in the schema requires all its properties, as strict mode demands."""
    return all(set(node.get("required", [])) == set(node.get("properties", {})) for node in _walk(schema))
