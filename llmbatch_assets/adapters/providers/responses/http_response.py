"""A server's response to a call, before its meaning is known."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

_SUCCESS = range(200, 300)


class HttpResponse(NamedTuple):
    """A response without the key. ``headers`` has only those that we read, with names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def is_success(self) -> bool:
        return self.status in _SUCCESS

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace").strip()

    @property
    def content(self) -> Any:
        """The body as a JSON value, or else as text."""
        try:
            return json.loads(self.text)
        except (ValueError, RecursionError):
            return self.text
