"""What differs between two ways of asking: lines of a prompt, fields of a schema, keys of a configuration."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import ValidationError

from llmbatch_assets.domain.canonical import canonical_json
from llmbatch_assets.domain.prompt import PromptTemplate

# A prompt of thousands of lines is shown as two whole ones: finding their common lines takes the square of them.
MOST_LINES = 2_000
UNKNOWN = "its text is not in provenance/"


class Changed(NamedTuple):
    """A value before and now; None where there is none."""

    key: str
    before: str | None
    now: str | None


class Differences(NamedTuple):
    """What changed since ``against``, an identity that was last used at ``used_at_utc``."""

    against: str
    used_at_utc: str | None
    prompt: list[str]
    judge_prompt: list[str]
    schema: list[Changed]
    config: list[Changed]

    def __bool__(self) -> bool:
        return any(self[2:])

    def as_json(self) -> dict[str, Any]:
        """The differences as ``--json`` tells them."""
        tables = {name: [one._asdict() for one in getattr(self, name)] for name in ("schema", "config")}
        return {**self._asdict(), **tables}


def prompt_lines(before: Any, now: Any) -> list[str]:
    """The lines of a prompt that went and came, as ``diff -u`` shows them. Both as they are kept; None is no prompt."""
    one, other = _lines(before), _lines(now)
    if one == other:
        return []
    if max(len(one), len(other)) > MOST_LINES:
        return [*(f"-{line}" for line in one), *(f"+{line}" for line in other)]
    return list(difflib.unified_diff(one, other, lineterm="", n=1))[2:]


def _lines(kept: Any) -> list[str]:
    if kept is None:
        return []
    try:
        return PromptTemplate.model_validate({**kept, "path": ""}).as_text().splitlines()
    except (ValidationError, TypeError):
        return [f"({UNKNOWN})"]


def changed_values(before: Any, now: Any) -> list[Changed]:
    """The values that differ in two nested objects, under dotted keys."""
    one, other = dict(_flat(before)), dict(_flat(now))
    keys = [*one, *(key for key in other if key not in one)]
    return [Changed(key, one.get(key), other.get(key)) for key in keys if one.get(key) != other.get(key)]


def schema_fields(schema: Any) -> Any:
    """A JSON schema with each model's fields under its own name, without the keywords that lead to them."""
    if not isinstance(schema, Mapping):
        return schema
    # What is required is told in the order of the fields, which files with sorted keys do not keep otherwise.
    lifted = {**schema, **schema.get("properties", {}), **schema.get("$defs", {})}
    return {key: schema_fields(value) for key, value in lifted.items() if key not in ("properties", "$defs")}


def _flat(value: Any, key: str = "") -> list[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        return [pair for name, part in value.items() for pair in _flat(part, f"{key}.{name}" if key else str(name))]
    return [(key, value if isinstance(value, str) else canonical_json(value))]
