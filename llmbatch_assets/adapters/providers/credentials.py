"""API keys, from the environment or from a ``credentials.yaml`` beside the configuration."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from llmbatch_assets.domain.configuration.parameters import Parameters
from llmbatch_assets.errors import RunPermanentError, StopCause

NO_KEY = "none"


def read_key(name: str, root: Path) -> str:
    """Read the key of that name now; an empty name needs no key. Raises ``RunPermanentError`` with a remedy."""
    if not name:
        return NO_KEY
    key = os.environ.get(name) or _from_file(root / "credentials.yaml", name)
    if not key:
        raise RunPermanentError(
            StopCause.NO_KEY, f"{name} is not set: set this environment variable or add it to credentials.yaml"
        )
    return key


def missing_keys(parameters: Parameters, root: Path) -> list[str]:
    """Return a message for each key that the batch needs and that is not set."""
    missing = []
    for name in sorted(parameters.key_names()):
        try:
            read_key(name, root)
        except RunPermanentError as error:
            missing.append(str(error))
    return missing


def _from_file(path: Path, name: str) -> str | None:
    try:
        return _find(yaml.safe_load(path.read_text(encoding="utf-8")), name)
    except (OSError, ValueError, yaml.YAMLError):
        return None


def _find(content: Any, name: str) -> str | None:
    if not isinstance(content, dict):
        return None
    if isinstance(content.get(name), str):
        return str(content[name])
    return next((found for part in content.values() if (found := _find(part, name))), None)
