"""Read the user's YAML files: configurations, prompts and ``dagster.yaml``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from llmbatch_assets.adapters.files.plain_yaml import MAX_BYTES, YamlMistakeError, parse_yaml
from llmbatch_assets.domain.configuration.environment import resolve_environment
from llmbatch_assets.domain.configuration.key_mistakes import parameter_mistakes, prompt_mistakes, secret_mistakes
from llmbatch_assets.domain.configuration.parameters import Parameters, read_parameters
from llmbatch_assets.domain.configuration.secrets import secret_places
from llmbatch_assets.domain.prompt import PromptTemplate
from llmbatch_assets.domain.text import harden
from llmbatch_assets.errors import ConfigError, InputError, PromptError

_NO_JSON = "infinite numbers (.inf), .nan and sets are not supported; use another value"


def load_parameters(path: Path) -> Parameters:
    """Load a configuration file and the environment variables that it names.

    Raises ``ConfigError`` with all mistakes.
    """
    resolved = resolve_environment(_mapping(path, ConfigError), os.environ)
    secrets = secret_mistakes(resolved, str(path))
    try:
        parameters = read_parameters(resolved.mapping)
    except ValidationError as problem:
        secret_keys = {line.split(": ")[1] for line in secrets}
        others = [*resolved.mistakes(str(path)), *parameter_mistakes(problem, str(path), resolved)]
        mistakes = [*secrets, *(line for line in others if line.split(": ")[1] not in secret_keys)]
        raise ConfigError("\n".join(mistakes)) from None
    except (ValueError, TypeError):
        raise ConfigError(f"{path}: {_NO_JSON}") from None
    if secrets:
        raise ConfigError("\n".join(secrets))
    return parameters


def load_valid_parameters(path: Path) -> Parameters:
    """Load a configuration file without its invalid keys. Raises ``ConfigError`` if it is not a YAML mapping."""
    mapping = resolve_environment(_mapping(path, ConfigError), os.environ).mapping
    for place in list(secret_places(mapping)):
        # Later messages must not repeat it.
        _drop(mapping, place)
    while True:
        try:
            return read_parameters(mapping)
        except ValidationError as problem:
            before = deepcopy(mapping)
            for error in problem.errors(include_url=False, include_context=False):
                _drop(mapping, error["loc"] or ("judge",))
            if mapping == before:
                # A conflict between blocks, or a key under its alias: drop blocks until the rest is valid.
                mapping.popitem()
        except (ValueError, TypeError):
            raise ConfigError(f"{path}: {_NO_JSON}") from None


def _drop(mapping: dict[Any, Any], place: Sequence[int | str]) -> None:
    """Remove the key at a path, or the innermost existing key above it."""
    first, *rest = place
    inner = mapping.get(first)
    if rest and isinstance(inner, dict) and rest[0] in inner:
        _drop(inner, rest)
    else:
        mapping.pop(first, None)


def load_prompt(path: Path, shown_as: str, named_by: str = "") -> PromptTemplate:
    """Load a prompt file. ``shown_as`` is its path in artifacts, ``named_by`` the configuration key of that path.

    Raises ``PromptError``.
    """
    mapping = _mapping(path, PromptError, named_by)
    try:
        return PromptTemplate.model_validate({**mapping, "path": shown_as})
    except ValidationError as problem:
        raise PromptError("\n".join(prompt_mistakes(problem, str(path)))) from None


def load_valid_prompt(root: Path, path: str) -> PromptTemplate | None:
    """Load a prompt file without its invalid keys. Returns None if nothing usable is left."""
    try:
        mapping: dict[str, Any] = {**_mapping(root / path, PromptError), "path": path}
        try:
            return PromptTemplate.model_validate(mapping)
        except ValidationError as problem:
            wrong = {error["loc"][0] for error in problem.errors()}
            return PromptTemplate.model_validate({name: value for name, value in mapping.items() if name not in wrong})
    except (PromptError, ValidationError):
        return None


def is_in_postgres(dagster_yaml: Path) -> bool:
    """Return whether this Dagster instance stores its events in PostgreSQL. Dagster reports errors in the file."""
    try:
        settings = _mapping(dagster_yaml, ConfigError)
    except ConfigError:
        return False
    return "postgres" in str(settings.get("storage") or settings.get("event_log_storage"))


def read_text(path: Path, error: type[InputError], named_by: str = "") -> str:
    """Read a UTF-8 text file and normalize its spaces. Raises ``error`` with the path and the problem."""
    try:
        return harden(path.read_bytes().decode("utf-8"))
    except FileNotFoundError:
        remedy = f"; write it, or name another file in {named_by}" if named_by else ""
        raise error(f"{path} does not exist{remedy}") from None
    except IsADirectoryError:
        raise error(f"{path} is a folder; name a file{f' in {named_by}' if named_by else ''}") from None
    except UnicodeDecodeError as broken:
        raise error(f"{path}: not UTF-8 at byte {broken.start}; save the file as UTF-8") from None
    except OSError as broken:
        raise error(f"{path}: {broken.strerror}") from broken


def _mapping(path: Path, error: type[InputError], named_by: str = "") -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise error(f"{path}: larger than {MAX_BYTES // 1_000_000} MB")
    except OSError:
        # read_text says what is wrong.
        pass
    try:
        content = parse_yaml(read_text(path, error, named_by))
    except YamlMistakeError as mistake:
        raise error(f"{path}: {mistake}") from None
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise error(f"{path}: must be a mapping of keys to values, found {type(content).__name__}")
    return {str(key): value for key, value in content.items()}
