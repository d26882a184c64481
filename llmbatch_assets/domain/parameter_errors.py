"""Mistakes in a configuration file, told to the person who wrote it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ValidationError

from llmbatch_assets.domain.parameters import Parameters
from llmbatch_assets.domain.text import nearest

_ADVICE = {
    ("judge", "enabled"): "use prompts.judge.enabled",
    ("llm", "api_key"): "keys are never kept in a file: put it in an environment variable and name that in "
    "llm.api_key_env",
}


def explain(problem: ValidationError, file: str) -> list[str]:
    """One line per mistake: file, key path, value, what is allowed and, for a name, the nearest known ones."""
    return [f"{file}: {_sentence(error)}" for error in problem.errors(include_url=False)]


def _sentence(error: Any) -> str:
    path = tuple(str(part) for part in error["loc"])
    key = ".".join(path) or "the file"
    if error["type"] == "extra_forbidden":
        return _unknown_key(path, key)
    wanted = error["msg"].removeprefix("Value error, ")
    if error["type"] in ("model_type", "dict_type"):
        wanted = "must be a mapping of keys to values"
    if error["type"] == "missing":
        return f"{key}: is required"
    return f"{key}: {wanted}{_shown(path, error['input'])}"


def _shown(path: tuple[str, ...], value: Any) -> str:
    # A key pasted into the wrong place must not travel on into a terminal or a log.
    in_address = path[-1:] == ("base_url",) and {"@", "?"} & set(str(value))
    if any("api_key" in part for part in path) or in_address or isinstance(value, dict):
        return ""
    return f" (found {str(value)[:80]!r})"


def _unknown_key(path: tuple[str, ...], key: str) -> str:
    if path in _ADVICE:
        return f"{key}: {_ADVICE[path]}"
    known = _known_names(path[:-1])
    near = nearest(path[-1], known)[:3]
    hint = f"did you mean {' or '.join(near)}?" if near else f"known here: {', '.join(known)}"
    return f"{key}: unknown key; {hint}"


def _known_names(path: tuple[str, ...]) -> list[str]:
    model: type[BaseModel] = Parameters
    for part in path:
        block = model.model_fields[part].annotation
        assert isinstance(block, type)
        assert issubclass(block, BaseModel)
        model = block
    return list(model.model_fields)
