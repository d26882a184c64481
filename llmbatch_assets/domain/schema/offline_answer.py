"""Made-up answers that match a JSON Schema, for tests and dry runs; deterministic for a given seed."""

from __future__ import annotations

from typing import Any

from llmbatch_assets.domain.canonical import canonical_json, sha1_text

_WORDS = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "harbor", "iris", "jade", "kelp", "linen")
_FORMATS = {
    "date": "2026-01-{:02}",
    "date-time": "2026-01-{:02}T12:00:00Z",
    "time": "12:00:{:02}Z",
    "duration": "P{}D",
    "uuid": "00000000-0000-4000-8000-0000000000{:02}",
    "uri": "https://example.com/{}",
}
_MAX_DEPTH = 12
# Above the soft limit, only required parts are made. Above the hard limit, generation fails.
_SOFT_LIMIT, _HARD_LIMIT = 2_000, 50_000
_MAX_TRIES = 200


def offline_answer(schema: dict[str, Any], seed: str, depth: int = _MAX_DEPTH) -> Any:
    """Return a value that matches ``schema``, nested no deeper than ``depth`` if possible. Equal seeds give equal values.

    Raises ``OverflowError`` if every matching value is unreasonably large.
    """
    return _AnswerMaker(schema.get("$defs", {}), depth).value(schema, seed, 0)


class _AnswerMaker:
    """Makes one value. Counts its parts, since a few mutually recursive models can require billions of them."""

    def __init__(self, defs: dict[str, Any], depth: int) -> None:
        self._defs = defs
        self._max_depth = depth
        self._made = 0

    def value(self, schema: dict[str, Any], seed: str, depth: int) -> Any:
        if "$ref" in schema:
            return self.value(self._defs[schema["$ref"].rsplit("/", 1)[-1]], seed, depth)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return "PASS" if "PASS" in schema["enum"] else schema["enum"][_number(seed) % len(schema["enum"])]
        for union in ("anyOf", "oneOf", "allOf"):
            if union in schema:
                # The last alternative is null or the simplest one; it ends a recursion.
                return self.value(schema[union][-1 if self._is_limited(depth) else 0], seed, depth)
        return self._by_type(schema, seed, depth + 1)

    def _is_limited(self, depth: int) -> bool:
        return depth > self._max_depth or self._made > _SOFT_LIMIT

    def _count(self, parts: int) -> None:
        self._made += parts
        if self._made > _HARD_LIMIT:
            raise OverflowError(f"the smallest possible answer has more than {_HARD_LIMIT} parts")

    def _by_type(self, schema: dict[str, Any], seed: str, depth: int) -> Any:
        self._count(1)
        match schema.get("type"):
            case "object":
                return self._object(schema, seed, depth)
            case "array":
                return self._array(schema, seed, depth)
            case "string":
                self._count(schema.get("minLength", 0) // 100)
                return _text(schema, seed)
            case "integer":
                return _whole(schema, seed)
            case "number":
                return _fraction(schema, seed)
            case "boolean":
                return _number(seed) % 2 == 0
        return None

    def _array(self, schema: dict[str, Any], seed: str, depth: int) -> list[Any]:
        length = min(max(schema.get("minItems", 0), not self._is_limited(depth)), schema.get("maxItems", 1))
        length = max(length, schema.get("minItems", 0))
        self._count(length)
        firsts = schema.get("prefixItems", [])
        parts = [*firsts, *[schema.get("items", {})] * (length - len(firsts))]
        made = [self.value(part, f"{seed}/{place}", depth) for place, part in enumerate(parts)]
        return self._distinct(made, schema, seed, depth) if schema.get("uniqueItems") else made

    def _distinct(self, made: list[Any], schema: dict[str, Any], seed: str, depth: int) -> list[Any]:
        """Replace repeated items by others. Returns fewer items if the schema does not allow enough values."""
        items, tries = {canonical_json(item): item for item in made}, 0
        while len(items) < len(made) and tries < _MAX_TRIES:
            item = self.value(schema.get("items", {}), f"{seed}/again/{tries}", depth)
            items, tries = items | {canonical_json(item): item}, tries + 1
        return list(items.values())

    def _object(self, schema: dict[str, Any], seed: str, depth: int) -> dict[str, Any]:
        parts = schema.get("properties", {})
        names = schema.get("required", []) if self._is_limited(depth) else [*parts]
        made = {name: self.value(parts[name], f"{seed}/{name}", depth) for name in names}
        others = schema.get("additionalProperties")
        least = schema.get("minProperties", 0) if isinstance(others, dict) else 0
        self._count(least)
        for number in range(len(made), least):
            made[f"{_WORDS[number % len(_WORDS)]}-{number}"] = self.value(others or {}, f"{seed}/{number}", depth)
        return made


def _number(seed: str) -> int:
    return int(sha1_text(seed)[:8], 16)


def _whole(schema: dict[str, Any], seed: str) -> int:
    step = int(schema.get("multipleOf", 1))
    low, high = _range(schema, 1, 100 * step)
    first, last = -(-int(low) // step), int(high) // step
    # The offline judge approves, so that a dry run reaches the end.
    chosen = last if seed.endswith("/score") else first + _number(seed) % max(last - first + 1, 1)
    return chosen * step


def _fraction(schema: dict[str, Any], seed: str) -> float:
    low, high = _range(schema, 0, 100)
    if seed.endswith("/score") and "exclusiveMaximum" not in schema:
        return float(high)
    # Never a boundary: the limits may be exclusive.
    return low + (high - low) * (1 + _number(seed) % 98) / 100


def _range(schema: dict[str, Any], gap: int, width: int) -> tuple[float, float]:
    """Return the lowest and highest value; ``gap`` is the distance from an exclusive limit to the nearest value."""
    low = schema.get("minimum", schema["exclusiveMinimum"] + gap if "exclusiveMinimum" in schema else None)
    high = schema.get("maximum", schema["exclusiveMaximum"] - gap if "exclusiveMaximum" in schema else None)
    if low is None:
        low = 0 if high is None or high >= 0 else high - width
    return low, low + width if high is None else high


def _text(schema: dict[str, Any], seed: str) -> str:
    digits = _number(seed)
    if schema.get("format") in _FORMATS:
        return _FORMATS[schema["format"]].format(1 + digits % 28)
    words = " ".join(_WORDS[(digits >> shift) % len(_WORDS)] for shift in (0, 8, 16))
    shortest, longest = schema.get("minLength", 0), schema.get("maxLength", 200)
    return words.ljust(shortest, "x")[:longest].strip().ljust(shortest, "x")
