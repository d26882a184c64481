"""Find values that look like API keys. Keys do not belong in configuration files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

# The forms in which well-known services issue keys.
_KEY = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"(?:sk|rk|pk)-[A-Za-z0-9_-]{16,}"  # OpenAI, Anthropic, OpenRouter, DeepSeek, LiteLLM
    r"|AIza[A-Za-z0-9_-]{30,}|AQ\.[A-Za-z0-9_-]{30,}"  # Google
    r"|(?:gsk|hf|xai|pplx|nvapi|fw|csk|r8|tgp_v1|dapi|esecret|jina)[_-]?[A-Za-z0-9_-]{24,}"  # Groq, Hugging Face, xAI, others
    r"|(?:ghp|gho|ghs|github_pat|glpat)[_-][A-Za-z0-9_-]{16,}"  # GitHub, GitLab
    r"|(?:AKIA|ASIA)[A-Z0-9]{16}"  # AWS
    r"|eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}"  # JSON web tokens
    r"|Bearer [A-Za-z0-9._~+/-]{16,}"
    r")"
)
ADVICE = (
    "looks like an API key. Do not store keys here: put the key in an environment variable, set llm.api_key_env to its "
    "name, and revoke the key if others could have read it"
)


def looks_secret(text: str) -> bool:
    """Return whether a text contains what looks like an API key."""
    found = _KEY.search(text)
    # Words without digits are not keys: sk-learn-classification-model.
    return found is not None and any(character.isdigit() for character in found[0])


def without_secrets(text: str) -> str:
    """Return a text for messages, with ``[key]`` in place of what looks like a key."""
    return _KEY.sub(lambda found: "[key]" if looks_secret(found[0]) else found[0], text)


def secret_places(value: Any, place: tuple[int | str, ...] = ()) -> Iterator[tuple[int | str, ...]]:
    """Yield the places of a parsed file at which a value or the name of a key looks like an API key."""
    if isinstance(value, str):
        if looks_secret(value):
            yield place
        return
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        if isinstance(key, str) and looks_secret(key):
            yield (*place, key)
        else:
            yield from secret_places(part, (*place, key))
