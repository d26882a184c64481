"""What the engine needs from the outside world."""

from __future__ import annotations

from typing import Protocol

from llmbatch_assets.domain.outcome import AcceptedOutput, Completion, FailedAttempt
from llmbatch_assets.domain.request import ChatRequest


class ChatClient(Protocol):
    """A provider."""

    async def complete(self, request: ChatRequest) -> Completion:
        """Answer one call. Raises a ``ProviderError`` that says whether trying again can help."""
        ...


class OutputStore(Protocol):
    """Where outputs and failed attempts are kept. What it has returned from is on disk."""

    async def save_accepted(self, output: AcceptedOutput) -> None: ...

    async def save_failure(self, failure: FailedAttempt) -> None: ...

    def next_attempt(self, cache_id: str) -> int:
        """The number that follows the item's last failed attempt, from 1."""
        ...


class Clock(Protocol):
    """The time of day as artifacts write it."""

    def __call__(self) -> str: ...
