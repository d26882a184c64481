"""The way of asking for JSON that a server accepts, found by trying."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from llmbatch_assets.domain.request import ChatRequest

log = logging.getLogger(__name__)

# Strictest first.
FORMATS = ("json_schema", "json_object", "prompt")


@dataclass
class FormatChoice:
    """The ways of asking for JSON that are left, strictest first.

    A server may refuse a way in many words, or in words that could mean anything. So a request that was refused is tried
    in the next way, alone. Only if that succeeds, and the stricter way never has, do the others change to it.
    """

    base_url: str
    formats: list[str]
    _proven: set[str] = field(default_factory=set)
    # By the id of the request, which is kept so that the id stays its own.
    _trials: dict[int, tuple[ChatRequest, str]] = field(default_factory=dict)

    @property
    def current(self) -> str:
        """The way for requests that were not refused."""
        return self.formats[0]

    def for_request(self, request: ChatRequest) -> str:
        """Return the way of asking for this request's answer."""
        _, tried = self._trials.get(id(request), (request, self.current))
        return tried if tried in self.formats else self.current

    def is_doubtful(self, used: str, request: ChatRequest) -> bool:
        """Return whether a refusal may be about this way, since no call has succeeded with it."""
        return request.contract is not None and used != FORMATS[-1] and used not in self._proven

    def try_next(self, request: ChatRequest, refused: str) -> bool:
        """Choose the next way for a request that was refused. Returns False if there is none."""
        if refused not in self.formats:
            # Another call has found a way in the meantime.
            self._trials.pop(id(request), None)
            return True
        place = self.formats.index(refused) + 1
        if place >= len(self.formats):
            return False
        self._trials[id(request)] = (request, self.formats[place])
        return True

    def record_success(self, request: ChatRequest, used: str) -> None:
        """Remember a way that a server has accepted. If it was a trial, others change to it, with one warning."""
        self._trials.pop(id(request), None)
        if request.contract is None or used not in self.formats:
            return
        stricter = self.formats[: self.formats.index(used)]
        if stricter and not self._proven.intersection(stricter):
            del self.formats[: len(stricter)]
            log.warning(
                "%s does not support structured_output %s; using %s", self.base_url, " or ".join(stricter), used
            )
        self._proven.add(used)

    def forget(self, request: ChatRequest) -> None:
        """End the trials of a request that failed in every way, or for another reason."""
        self._trials.pop(id(request), None)
