"""References to environment variables in a configuration: ``{env: NAME}`` in place of a value, as in dagster.yaml."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from llmbatch_assets.domain.configuration.parameters import Parameters

Place = tuple[int | str, ...]


@dataclass(frozen=True)
class Resolved:
    """A parsed file with values in place of its references. ``variables`` names the variable of each such place.

    References to variables that are not set are left in the file, and their places are in ``missing``.
    """

    mapping: dict[str, Any]
    variables: dict[Place, str]
    missing: dict[Place, str]

    def variable_at(self, place: Place) -> str:
        """Return the variable that the value at a place comes from; "" if it is written in the file."""
        # Validation errors of unions have more parts than the place itself.
        return next((name for at, name in self.variables.items() if place[: len(at)] == at), "")

    def is_missing(self, place: Place) -> bool:
        return any(place[: len(at)] == at for at in self.missing)

    def mistakes(self, file: str) -> Iterator[str]:
        """Yield a sentence for each variable that is not set."""
        for place, name in self.missing.items():
            key = ".".join(map(str, place))
            yield f"{file}: {key}: the environment variable {name} is not set; set it, or write the value here"


# A file without references.
WRITTEN = Resolved({}, {}, {})


def resolve_environment(mapping: Mapping[str, Any], environment: Mapping[str, str]) -> Resolved:
    """Replace the references in a parsed configuration.

    A variable is text for a key that takes text, and otherwise a number, ``true``, ``false`` or ``null`` if it looks like
    one. Free mappings such as ``llm.extra_body`` are left as they are.
    """
    resolved = Resolved({}, {}, {})
    resolved.mapping.update(_resolve(mapping, Parameters, (), environment, resolved))
    return resolved


def _resolve(value: Any, kind: Any, place: Place, environment: Mapping[str, str], found: Resolved) -> Any:
    def inner(part: Any, inner_kind: Any, key: int | str) -> Any:
        return _resolve(part, inner_kind, (*place, key), environment, found)

    alternatives = list(_alternatives(kind))
    block = next((one for one in alternatives if isinstance(one, type) and issubclass(one, BaseModel)), None)
    if isinstance(value, dict) and block is not None:
        kinds = _field_kinds(block)
        return {key: inner(part, kinds.get(key), key) for key, part in value.items()}
    entries = next((get_args(one) for one in alternatives if get_origin(one) in (dict, tuple)), None)
    if entries and isinstance(value, list):
        return [inner(part, entries[0], place_in_list) for place_in_list, part in enumerate(value)]
    if entries and isinstance(value, dict) and len(entries) > 1 and get_origin(kind) is dict:
        return {key: inner(part, entries[1], key) for key, part in value.items()}
    name = _reference(value)
    # None: the type of an unknown key, which is already an error. Any: a value of a free mapping.
    if not name or kind in (None, Any):
        return value
    if name not in environment:
        found.missing[place] = name
        return value
    found.variables[place] = name
    return _parsed(environment[name], alternatives)


def _reference(value: Any) -> str:
    if isinstance(value, dict) and list(value) == ["env"] and isinstance(value["env"], str):
        return value["env"]
    return ""


def _alternatives(kind: Any) -> Iterator[Any]:
    """Yield the parts of a union, without the validators around them."""
    parts = [part for part in get_args(kind) if part is not None]
    if hasattr(kind, "__metadata__"):
        yield from _alternatives(kind.__origin__)
    elif get_origin(kind) in (dict, tuple) or not parts:
        yield kind
    else:
        for part in parts:
            yield from _alternatives(part)


def _field_kinds(block: type[BaseModel]) -> dict[str, Any]:
    kinds: dict[str, Any] = {}
    for name, field in block.model_fields.items():
        aliases = getattr(field.validation_alias, "choices", [field.validation_alias or name])
        kinds |= dict.fromkeys([name, *map(str, aliases)], field.annotation)
    return kinds


def _parsed(text: str, alternatives: list[Any]) -> Any:
    takes_text = any(one is str or isinstance(one, str) for one in alternatives)
    if takes_text and int not in alternatives:
        return text
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return text if isinstance(value, list | dict) else value
