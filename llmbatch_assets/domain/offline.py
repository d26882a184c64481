"""Made-up answers that keep a JSON schema: for tests and dry runs, deterministic by what was asked."""

from __future__ import annotations

from typing import Any

from llmbatch_assets.domain.canonical import sha1_text

_WORDS = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "harbor", "iris", "jade", "kelp", "linen")
_MAX_DEPTH = 12


def made_up(schema: dict[str, Any], seed: str) -> Any:
    """A value that keeps ``schema``; equal seeds give equal values."""
    return _value(schema, schema.get("$defs", {}), seed, 0)


def _value(schema: dict[str, Any], defs: dict[str, Any], seed: str, depth: int) -> Any:
    if "$ref" in schema:
        return _value(defs[schema["$ref"].rsplit("/", 1)[-1]], defs, seed, depth)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return "PASS" if "PASS" in schema["enum"] else schema["enum"][_number(seed) % len(schema["enum"])]
    for union in ("anyOf", "oneOf", "allOf"):
        if union in schema:
            # At depth, null or the plainest choice ends a recursion.
            return _value(schema[union][-1 if depth > _MAX_DEPTH else 0], defs, seed, depth)
    return _by_type(schema, defs, seed, depth + 1)


def _by_type(schema: dict[str, Any], defs: dict[str, Any], seed: str, depth: int) -> Any:
    match schema.get("type"):
        case "object":
            names = [*schema.get("properties", {})] if depth <= _MAX_DEPTH else schema.get("required", [])
            return {name: _value(schema["properties"][name], defs, f"{seed}/{name}", depth) for name in names}
        case "array":
            length = max(schema.get("minItems", 0), 1 if depth <= _MAX_DEPTH else 0)
            return [_value(schema.get("items", {}), defs, f"{seed}/{place}", depth) for place in range(length)]
        case "string":
            return _text(schema, seed)
        case "integer":
            return _whole(schema, seed)
        case "number":
            return float(_whole(schema, seed))
        case "boolean":
            return _number(seed) % 2 == 0
    return None


def _number(seed: str) -> int:
    return int(sha1_text(seed)[:8], 16)


def _whole(schema: dict[str, Any], seed: str) -> int:
    low = schema.get("minimum", schema.get("exclusiveMinimum", -1) + 1)
    high = schema.get("maximum", schema.get("exclusiveMaximum", low + 101) - 1)
    # A made-up judge approves: a dry run is to reach the end.
    return int(high) if seed.endswith("/score") else int(low + _number(seed) % max(int(high - low) + 1, 1))


def _text(schema: dict[str, Any], seed: str) -> str:
    digits = _number(seed)
    words = " ".join(_WORDS[(digits >> shift) % len(_WORDS)] for shift in (0, 8, 16))
    shortest, longest = schema.get("minLength", 0), schema.get("maxLength", 200)
    return words.ljust(shortest, "x")[:longest].strip().ljust(shortest, "x")
