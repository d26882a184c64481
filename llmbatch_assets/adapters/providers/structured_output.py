"""Find the mode of structured output that a server accepts, by trying."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from llmbatch_assets.domain.request import ChatRequest

log = logging.getLogger(__name__)

# Strictest first.
FORMATS = ("json_schema", "json_object", "prompt")


@dataclass
class FormatChoice:
    """The modes that may still work, strictest first.

    The message of a refusal may not say that it is about the mode. So only the refused request is tried in the next mode.
    If that succeeds, and no call with the stricter mode ever has, all other requests change to it.
    """

    base_url: str
    formats: list[str]
    _proven: set[str] = field(default_factory=set)
    # By the id() of the request. The request is kept, so that its id is not reused.
    _trials: dict[int, tuple[ChatRequest, str]] = field(default_factory=dict)

    @property
    def current(self) -> str:
        """The mode for requests that were not refused."""
        return self.formats[0]

    def for_request(self, request: ChatRequest) -> str:
        """Return the mode to use for this request."""
        _, tried = self._trials.get(id(request), (request, self.current))
        return tried if tried in self.formats else self.current

    def is_doubtful(self, used: str, request: ChatRequest) -> bool:
        """Return whether a refusal may be about this mode, since no call has succeeded with it."""
        return request.contract is not None and used != FORMATS[-1] and used not in self._proven

    def try_next(self, request: ChatRequest, refused: str) -> bool:
        """Choose the next mode for a refused request. Returns False if there is none."""
        if refused not in self.formats:
            # Another call has found a working mode in the meantime.
            self._trials.pop(id(request), None)
            return True
        place = self.formats.index(refused) + 1
        if place >= len(self.formats):
            return False
        self._trials[id(request)] = (request, self.formats[place])
        return True

    def record_success(self, request: ChatRequest, used: str) -> None:
        """Remember a mode that the server has accepted. If it was a trial, all requests change to it, with one warning."""
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
        """End the trials of a request that failed in every mode, or for another reason."""
        self._trials.pop(id(request), None)
