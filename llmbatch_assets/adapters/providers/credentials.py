"""Where keys are found: in the environment, else in a ``credentials.yaml`` beside the configuration."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from llmbatch_assets.domain.parameters import Parameters
from llmbatch_assets.errors import RunPermanentError, StopCause

NO_KEY = "none"


def key_reader(name: str, root: Path) -> str:
    """The key of that name, read now. Raises ``RunPermanentError`` saying what to set; no name is no key."""
    if not name:
        return NO_KEY
    found = os.environ.get(name) or _from_file(root / "credentials.yaml", name)
    if not found:
        raise RunPermanentError(
            StopCause.NO_KEY,
            f"the key {name} is not set; set the environment variable of that name, or write it into credentials.yaml",
        )
    return found


def missing_keys(parameters: Parameters, root: Path) -> list[str]:
    """A sentence for each key that calls of a batch need and that is not set."""
    missing = []
    for name in sorted(parameters.key_names()):
        try:
            key_reader(name, root)
        except RunPermanentError as told:
            missing.append(str(told))
    return missing


def _from_file(path: Path, name: str) -> str | None:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None
    return _find(content, name)


def _find(content: Any, name: str) -> str | None:
    if not isinstance(content, dict):
        return None
    if isinstance(content.get(name), str):
        return str(content[name])
    return next((found for part in content.values() if (found := _find(part, name))), None)
