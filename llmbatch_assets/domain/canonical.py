"""From values to bytes to hashes: the one place where either is decided."""

from __future__ import annotations

import hashlib
import json
from typing import Any

# Made once: making an encoder costs more than encoding an id's parts.
_CANONICAL = json.JSONEncoder(
    ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False, check_circular=False
)


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal texts. NaN and infinities raise ``ValueError``."""
    return _CANONICAL.encode(value)


def readable_json(value: Any) -> str:
    """JSON as it is shown to models and people: two spaces of indentation, the value's own key order."""
    return json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False)


def sha1_text(text: str) -> str:
    """SHA-1 of the text's UTF-8 bytes, 40 hexadecimal digits."""
    return hashlib.sha1(text.encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest()


def sha1_named(**parts: Any) -> str:
    """SHA-1 of named parts. The names keep neighbouring values from running into each other."""
    return sha1_text(canonical_json(parts))
