"""API keys, from the environment or from a ``credentials.yaml`` beside the configuration."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from llmbatch_assets.adapters.files.plain_yaml import YamlMistakeError, parse_yaml
from llmbatch_assets.domain.configuration.parameters import Parameters
from llmbatch_assets.errors import RunPermanentError, StopCause

NO_KEY = "none"


def read_key(name: str, root: Path) -> str:
    """Read the key of that name now; an empty name needs no key. Raises ``RunPermanentError`` with a remedy."""
    if not name:
        return NO_KEY
    if key := os.environ.get(name):
        return key
    try:
        key = _from_file(root / "credentials.yaml", name)
    except YamlMistakeError as mistake:
        # The message of the parser may quote a key.
        raise RunPermanentError(
            StopCause.NO_KEY, f"{name} is not set, and credentials.yaml cannot be read: {mistake}; correct the file"
        ) from None
    if not key:
        remedy = "set this environment variable or add it to credentials.yaml"
        if (root / "credentials.yaml").exists():
            remedy = f"credentials.yaml has no line '{name}: the key'; add it, or set this environment variable"
        raise RunPermanentError(StopCause.NO_KEY, f"{name} is not set: {remedy}")
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


def _from_file(path: Path, name: str) -> str:
    """Return the key from the file; "" if the file or the key is missing. Raises ``YamlMistakeError``, without the content."""
    example = f"write one line for each key: '{name}: the key'"
    try:
        content = parse_yaml(path.read_bytes().decode("utf-8")) if path.exists() else None
    except OSError as refused:
        raise YamlMistakeError(str(refused.strerror)) from None
    except UnicodeDecodeError as broken:
        raise YamlMistakeError(f"not UTF-8 at byte {broken.start}; save it as UTF-8") from None
    except YamlMistakeError as mistake:
        line = re.search(r"line \d+", str(mistake))
        raise YamlMistakeError(f"{line[0] if line else 'it'} is not valid YAML; {example}") from None
    if content is not None and not isinstance(content, dict):
        raise YamlMistakeError(f"it is not a mapping; {example}")
    key = _find(content, name)
    if key is not None and not isinstance(key, str):
        raise YamlMistakeError(f"the value of {name} is not text; put it in quotes")
    return (key or "").strip()


def _find(content: Any, name: str) -> Any:
    if not isinstance(content, dict):
        return None
    if content.get(name) is not None:
        return content[name]
    return next((found for part in content.values() if (found := _find(part, name)) is not None), None)
