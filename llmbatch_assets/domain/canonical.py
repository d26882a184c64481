"""Canonical JSON and the hashes of it. All ids and fingerprints are made here."""

from __future__ import annotations

import hashlib
import json
from typing import Any

# Built once: building an encoder takes longer than encoding the parts of an id.
_CANONICAL = json.JSONEncoder(
    ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False, check_circular=False
)


def canonical_json(value: Any) -> str:
    """Return JSON with sorted keys and no spaces, so equal values give equal text. Raises ``ValueError`` for NaN."""
    return _CANONICAL.encode(value)


def readable_json(value: Any) -> str:
    """Return JSON for models and people: indented by two spaces, keys in their own order."""
    return json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False)


def sha1_text(text: str) -> str:
    """Return the SHA-1 of the text in UTF-8, as 40 hexadecimal digits."""
    return hashlib.sha1(text.encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest()


def sha1_named(**parts: Any) -> str:
    """Return the SHA-1 of named parts. The names keep adjacent values apart."""
    return sha1_text(canonical_json(parts))
