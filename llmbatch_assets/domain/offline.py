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
            return _object(schema, defs, seed, depth)
        case "array":
            length = min(max(schema.get("minItems", 0), depth <= _MAX_DEPTH), schema.get("maxItems", 1))
            length = max(length, schema.get("minItems", 0))
            return [_value(schema.get("items", {}), defs, f"{seed}/{place}", depth) for place in range(length)]
        case "string":
            return _text(schema, seed)
        case "integer":
            return _whole(schema, seed)
        case "number":
            return _fraction(schema, seed)
        case "boolean":
            return _number(seed) % 2 == 0
    return None


def _number(seed: str) -> int:
    return int(sha1_text(seed)[:8], 16)


def _object(schema: dict[str, Any], defs: dict[str, Any], seed: str, depth: int) -> dict[str, Any]:
    parts = schema.get("properties", {})
    names = [*parts] if depth <= _MAX_DEPTH else schema.get("required", [])
    made = {name: _value(parts[name], defs, f"{seed}/{name}", depth) for name in names}
    others = schema.get("additionalProperties")
    for number in range(len(made), schema.get("minProperties", 0) if isinstance(others, dict) else 0):
        made[f"{_WORDS[number % len(_WORDS)]}-{number}"] = _value(others or {}, defs, f"{seed}/{number}", depth)
    return made


def _whole(schema: dict[str, Any], seed: str) -> int:
    step = int(schema.get("multipleOf", 1))
    low, high = _range(schema, 1, 100 * step)
    first, last = -(-int(low) // step), int(high) // step
    # A made-up judge approves: a dry run is to reach the end.
    chosen = last if seed.endswith("/score") else first + _number(seed) % max(last - first + 1, 1)
    return chosen * step


def _fraction(schema: dict[str, Any], seed: str) -> float:
    low, high = _range(schema, 0, 100)
    if seed.endswith("/score") and "exclusiveMaximum" not in schema:
        return float(high)
    # Never an end of the range: the limits may be exclusive.
    return low + (high - low) * (1 + _number(seed) % 98) / 100


def _range(schema: dict[str, Any], gap: int, width: int) -> tuple[float, float]:
    """Lowest and highest value; ``gap`` is how far an exclusive limit is from the next value."""
    low = schema.get("minimum", schema["exclusiveMinimum"] + gap if "exclusiveMinimum" in schema else None)
    high = schema.get("maximum", schema["exclusiveMaximum"] - gap if "exclusiveMaximum" in schema else None)
    if low is None:
        low = 0 if high is None or high >= 0 else high - width
    return low, low + width if high is None else high


def _text(schema: dict[str, Any], seed: str) -> str:
    digits = _number(seed)
    words = " ".join(_WORDS[(digits >> shift) % len(_WORDS)] for shift in (0, 8, 16))
    shortest, longest = schema.get("minLength", 0), schema.get("maxLength", 200)
    return words.ljust(shortest, "x")[:longest].strip().ljust(shortest, "x")
