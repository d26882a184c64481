"""Mistakes in the keys and values of configuration and prompt files, as messages."""

from __future__ import annotations

import json
import re
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from llmbatch_assets.domain.configuration.environment import WRITTEN, Resolved
from llmbatch_assets.domain.configuration.parameters import Parameters
from llmbatch_assets.domain.configuration.secrets import ADVICE as SECRET_ADVICE
from llmbatch_assets.domain.configuration.secrets import secret_places, without_secrets
from llmbatch_assets.domain.prompt import Example, PromptTemplate
from llmbatch_assets.domain.text import counted, nearest

_ADVICE: dict[tuple[str, ...], str] = {("judge", "enabled"): "use prompts.judge.enabled"}
_API_KEY_ADVICE = "do not store keys here: put the key in an environment variable and set llm.api_key_env to its name"


def parameter_mistakes(problem: ValidationError, file: str, resolved: Resolved = WRITTEN) -> list[str]:
    """Return one line per mistake: file, key, value, what is allowed and, for an unknown key, similar ones."""
    errors = [error for error in problem.errors(include_url=False) if not resolved.is_missing(error["loc"])]
    lines = [f"{file}: {_sentence(error, resolved.variable_at(error['loc']))}" for error in errors]
    # A key that takes text or a number has an error for each type.
    return list(dict.fromkeys(lines))


def secret_mistakes(resolved: Resolved, file: str) -> list[str]:
    """Return one line for each place in a parsed file that looks like an API key."""
    places = dict.fromkeys(".".join(map(without_secrets, map(str, place))) for place in secret_places(resolved.mapping))
    return [f"{file}: {place}: {SECRET_ADVICE}" for place in places]


def _sentence(error: Any, variable: str) -> str:
    path = _key_path(error["loc"])
    takes_several = len(path) < len(error["loc"])
    key = without_secrets(".".join(path))
    if error["type"] == "extra_forbidden":
        return _unknown_key(path, key)
    if error["type"] == "missing":
        return f"{key}: is required"
    if error["input"] is None and error["type"] != "value_error":
        return f"{key}: has no value; write one, or delete the line{_default_of(path)}"
    # The value of a variable may be secret.
    found = f" (from the environment variable {variable})" if variable else _found_value(path, error["input"])
    wanted = "must be text or a whole number" if takes_several else _wanted(error)
    return f"{key}: {wanted}{found}" if key else f"{wanted}{found}"


def _key_path(loc: tuple[int | str, ...]) -> tuple[str, ...]:
    """Return the keys of an error's place, without the types that pydantic adds for a key that takes several."""
    path = tuple(str(part) for part in loc)
    return path[:-1] if len(path) > 2 and path[-1] in ("str", "int") and _block_at(path[:-1]) is None else path


_WANTED = {
    "model_type": "must be a mapping of keys to values",
    "dict_type": "must be a mapping of keys to values",
    "tuple_type": "must be a list",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "string_type": "must be text",
    "string_too_short": "must not be empty",
}
_COMPARED = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("greater than", "gt"),
    "less_than_equal": ("at most", "le"),
}


def _wanted(error: Any) -> str:
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    if kind == "string_too_long":
        return f"must have at most {counted(context['max_length'], 'character')}"
    if kind == "literal_error":
        allowed = str(context["expected"]).replace("'", "")
        near = nearest(str(value), re.split(r", | or ", allowed))[:1]
        return f"must be {allowed}" + (f"; did you mean {near[0]}?" if near else "")
    if kind in _COMPARED:
        words, limit = _COMPARED[kind]
        return f"must be {words} {context[limit]:g}"
    wanted = _WANTED.get(kind, str(error["msg"]).removeprefix("Value error, "))
    if kind == "tuple_type" and isinstance(value, str | int | float):
        return f"{wanted}; write [{without_secrets(str(value))}]"
    if wanted.endswith("number") and isinstance(value, str) and re.fullmatch(r"[0-9]+(?:\.[0-9]+)?", value):
        return f"{wanted}; write it without quotes"
    if kind == "string_type" and isinstance(value, bool | int | float):
        return f"{wanted}; put it in quotes: '{str(value).lower() if isinstance(value, bool) else value}'"
    return wanted


def _found_value(path: tuple[str, ...], value: Any) -> str:
    # An API key in the wrong place must not reach a terminal or a log.
    in_address = path[-1:] == ("base_url",) and {"@", "?"} & set(str(value))
    if any("api_key" in part for part in path) or in_address or isinstance(value, dict):
        return ""
    return f" (found {without_secrets(str(value))[:80]!r})"


def _unknown_key(path: tuple[str, ...], key: str) -> str:
    if advice := _API_KEY_ADVICE if path[-1] == "api_key" else _ADVICE.get(path):
        return f"{key}: {advice}"
    known, elsewhere = _known_keys(path[:-1]), _PLACES.get(path[-1], [])
    near = nearest(path[-1], known)[:3]
    if elsewhere and not nearest(path[-1], known, least=0.85):
        return f"{key}: unknown key here; {_place_of(elsewhere)}"
    hint = f"did you mean {' or '.join(near)}?" if near else f"known keys: {', '.join(known)}"
    return f"{key}: unknown key; {hint}"


def _place_of(names: list[str]) -> str:
    """Return the right place for a key in the wrong block."""
    if names[0].isidentifier():
        return f"{names[0]} is a block of its own: write it without indentation"
    # A key that both llm and judge have usually belongs under llm.
    likely = [name for name in names if name.startswith("llm.")] or names
    if len(likely) == 1:
        return f"it belongs under {likely[0].rpartition('.')[0]} ({likely[0]})"
    return f"it belongs in another block: {', '.join(likely)}"


def _known_keys(path: tuple[str, ...]) -> list[str]:
    return list((_block_at(path) or Parameters).model_fields)


def _block_at(path: tuple[str, ...]) -> type[BaseModel] | None:
    """Return the block at a path; None if there is a value."""
    block: Any = Parameters
    for part in path:
        # In a mapping such as budget.prices, every key has a block of the same kind.
        kinds = get_args(block)
        fields = getattr(block, "model_fields", {})
        if not kinds and part not in fields:
            return None
        block = kinds[-1] if kinds else fields[part].annotation
    return block if isinstance(block, type) and issubclass(block, BaseModel) else None


def _default_of(path: tuple[str, ...]) -> str:
    block = _block_at(path[:-1])
    field = block.model_fields.get(path[-1]) if block else None
    if field is None or field.is_required() or isinstance(field.default, BaseModel | tuple | dict):
        return ""
    return f"; the default is {json.dumps(field.default)}"


def _places_of_keys() -> dict[str, list[str]]:
    """Return the dotted names of all keys of the configuration by their last part, the more common block first."""
    found: dict[str, list[str]] = {}

    def add(block: type[BaseModel], prefix: str) -> None:
        for name, field in block.model_fields.items():
            found.setdefault(name, []).append(f"{prefix}{name}")
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                add(field.annotation, f"{prefix}{name}.")

    add(Parameters, "")
    return found


_PLACES = _places_of_keys()


def prompt_mistakes(problem: ValidationError, file: str) -> list[str]:
    """Return one line per mistake in a prompt file."""
    lines = [f"{file}: {_prompt_sentence(error)}" for error in problem.errors(include_url=False)]
    return list(dict.fromkeys(lines))


def _prompt_sentence(error: Any) -> str:
    path = tuple(str(part) for part in error["loc"] if part not in ("str", "int", "float"))
    key, value = ".".join(path), error["input"]
    known = [name for name in (PromptTemplate if len(path) == 1 else Example).model_fields if name != "path"]
    if error["type"] == "extra_forbidden":
        near = nearest(path[-1], known)[:1]
        return (
            f"{key}: unknown key; " + (f"did you mean {near[0]}? " if near else "") + f"known keys: {', '.join(known)}"
        )
    if error["type"] == "missing":
        return f"{key}: is required; known keys: {', '.join(known)}"
    if value is None or value == "":
        return f"{key}: has no text; write it, or delete the line"
    if isinstance(value, dict) and len(value) == 1 and next(iter(value.values())) is None:
        name = next(iter(value))
        return f"{key}: must be text; put a placeholder in quotes: '{{{name}}}'"
    if path[-1:] == ("examples",):
        return f"{key}: must be a list of examples, each with user and assistant"
    if error["type"] == "string_type" and not isinstance(value, dict | list):
        return f"{key}: must be text; put it in quotes"
    wanted = "must be text" if error["type"] == "string_type" else error["msg"].removeprefix("Value error, ")
    return f"{key}: {wanted}"
