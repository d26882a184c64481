"""JSON schemas as prompts and providers take them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

JsonSchema = dict[str, Any]

# A definition larger than this, in nested values, stays a reference: written out at each use it would flood the prompt.
LARGEST_WRITTEN_OUT = 500

# Where a schema holds other schemas; everything else in it (defaults, examples, notes) is data and stays as it is.
_SCHEMAS_BY_NAME = {"properties", "patternProperties", "$defs", "dependentSchemas"}
_SCHEMA_LISTS = {"anyOf", "oneOf", "allOf", "prefixItems"}
_SCHEMAS = {
    *("items", "additionalProperties", "propertyNames", "contains", "not", "if", "then", "else"),
    *("unevaluatedItems", "unevaluatedProperties"),
}

# What OpenAI's strict form knows. https://platform.openai.com/docs/guides/structured-outputs#supported-schemas
_KNOWN = {
    *(
        "type",
        "enum",
        "anyOf",
        "$ref",
        "$defs",
        "description",
        "properties",
        "required",
        "additionalProperties",
        "items",
    ),
    *("pattern", "format", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    *("minItems", "maxItems"),
}
# Limits that it leaves out, with the words that tell the model of them. What is in neither (titles, defaults, notes)
# limits nothing and is left out without a word.
_TOLD = {
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "uniqueItems": "no item twice",
}
# Limits that it cannot say and that no few words can.
_NO_STRICT_FORM = {
    *("prefixItems", "not", "if", "then", "else", "contains", "propertyNames", "patternProperties"),
    *("dependentRequired", "dependentSchemas", "unevaluatedItems", "unevaluatedProperties"),
    *("minProperties", "maxProperties"),
}
_FORMATS = {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"}


def written_out(schema: JsonSchema) -> JsonSchema:
    """The schema with each definition in the place of its references, so that it reads from top to bottom.

    What refers to itself, and what is too large, stays in ``$defs``.
    """
    definitions: dict[str, JsonSchema] = schema.get("$defs", {})
    root = definitions[_name(schema["$ref"])] if "$ref" in schema else schema
    kept = _kept(definitions)

    def place(node: Any) -> Any:
        if not isinstance(node, dict):
            return node
        own = {key: _over_schemas(key, part, place) for key, part in node.items()}
        if isinstance(own.get("discriminator"), dict):
            # Its mapping names definitions, which are no longer there; the choices say the same.
            own["discriminator"] = {key: part for key, part in own["discriminator"].items() if key != "mapping"}
        if "$ref" in own and _name(own["$ref"]) not in kept:
            return {**place(definitions[_name(own.pop("$ref"))]), **own}
        return own

    body = place({key: part for key, part in root.items() if key != "$defs"})
    left = {name: place(definitions[name]) for name in definitions if name in kept}
    return {"$defs": left, **body} if left else body


def _over_schemas(key: str, part: Any, change: Callable[[Any], Any]) -> Any:
    """The value of a keyword with the schemas in it changed."""
    if key in _SCHEMAS:
        return change(part)
    if key in _SCHEMAS_BY_NAME and isinstance(part, dict):
        return {name: change(schema) for name, schema in part.items()}
    if key in _SCHEMA_LISTS and isinstance(part, list):
        return [change(schema) for schema in part]
    return part


def _name(reference: str) -> str:
    return reference.removeprefix("#/$defs/")


def _kept(definitions: dict[str, JsonSchema]) -> set[str]:
    """Names of the definitions that cannot, or should not, be written out."""
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

    return kept | {name for name in definitions if weight(name) > LARGEST_WRITTEN_OUT}


def _references(node: Any) -> list[str]:
    if not isinstance(node, dict):
        return []
    found = [_name(node["$ref"])] if "$ref" in node else []
    for key, part in node.items():
        _over_schemas(key, part, lambda schema: found.extend(_references(schema)))
    return found


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
    """Whether a schema in ``root`` takes values of the value's type; where it lists its values, whether this is one."""
    if "$ref" in schema:
        return can_be(root["$defs"][_name(schema["$ref"])], value, root)
    for key in ("anyOf", "oneOf", "allOf"):
        if key in schema:
            return any(can_be(part, value, root) for part in schema[key])
    if "enum" in schema or "const" in schema:
        return value in schema.get("enum", [schema.get("const")])
    kinds = schema.get("type", [])
    return not kinds or not _TYPES[type(value)].isdisjoint([kinds] if isinstance(kinds, str) else kinds)


_TYPES = {str: {"string"}, bool: {"boolean"}, int: {"integer", "number"}, list: {"array"}}


def strict_form(schema: JsonSchema) -> JsonSchema | None:
    """The schema in the form that OpenAI's strict mode takes, or None where that form cannot say it.

    All properties are required. Keywords that the form lacks are left out, and limits among them are told in the
    description: what keeps this form and those limits keeps the schema. ``const`` becomes an ``enum`` of one, ``oneOf``
    an ``anyOf``. Open objects (``dict[...]``), tuples and values of any type have no such form.
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
    told = [words.format(node[key]) for key, words in _TOLD.items() if key in node]
    if told:
        made["description"] = f"{node.get('description', '')} ({', '.join(told)})".strip()
    if made.get("format") not in {None, *_FORMATS}:
        del made["format"]
    if "const" in node:
        made["enum"] = [node["const"]]
    _convert_parts(made, [node[key] for key in ("anyOf", "oneOf", "allOf") if key in node])
    if "$ref" in made and len(made) > 1:
        # Beside a reference the form takes nothing, not even a description.
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
        _close(made)
    if made.get("type") == "array":
        if "items" not in made:
            raise _NoStrictFormError
        made["items"] = _strict(made["items"])


def _close(made: JsonSchema) -> None:
    """Make an object's properties required, and the only ones."""
    if made.get("additionalProperties") is not False:
        raise _NoStrictFormError
    made["properties"] = {name: _strict(part) for name, part in made.get("properties", {}).items()}
    made["required"] = list(made["properties"])


def open_objects(schema: JsonSchema) -> list[str]:
    """Titles of the objects with named fields that take further ones."""
    found: list[str] = []

    def visit(node: Any) -> None:
        if not isinstance(node, dict):
            return
        if "properties" in node and node.get("additionalProperties") is not False:
            found.append(str(node.get("title", "an object without a title")))
        for key, part in node.items():
            _over_schemas(key, part, visit)

    visit(schema)
    return found


def requires_all(schema: Any) -> bool:
    """Whether every object of the schema requires all its properties, as a strict answer demands."""
    if isinstance(schema, list):
        return all(requires_all(part) for part in schema)
    if not isinstance(schema, dict):
        return True
    whole = set(schema.get("required", [])) == set(schema.get("properties", {}))
    return whole and all(requires_all(part) for part in schema.values())
