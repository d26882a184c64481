"""Interfaces that the engine needs from the outside world."""

from __future__ import annotations

from typing import Protocol

from llmbatch_assets.domain.outcome import AcceptedOutput, Completion, FailedAttempt, UnjudgedAnswer
from llmbatch_assets.domain.request import ChatRequest
from llmbatch_assets.domain.run.ledger import CallRecord


class ChatClient(Protocol):
    """A provider."""

    async def complete(self, request: ChatRequest) -> Completion:
        """Answer one call. Raises a ``ProviderError`` that says whether a retry can help."""
        ...


class OutputStore(Protocol):
    """Storage for outputs and failed attempts. Each ``save`` returns once its file is on disk."""

    async def save_accepted(self, output: AcceptedOutput) -> None: ...

    async def save_failure(self, failure: FailedAttempt) -> None: ...

    async def save_awaiting(self, answer: UnjudgedAnswer) -> None:
        """Keep an answer until it is saved as accepted or rejected."""
        ...

    def awaiting(self, cache_id: str) -> UnjudgedAnswer | None:
        """Return the answer that waits for a verdict, if there is one."""
        ...

    def next_attempt(self, cache_id: str) -> int:
        """Return the number after the item's last failed attempt, from 1."""
        ...


class Ledger(Protocol):
    """The call log."""

    def open(self) -> None:
        """Make sure that a call can be logged. Raises ``OSError`` if not."""
        ...

    def write(self, record: CallRecord) -> None: ...


class Clock(Protocol):
    """The time of day, as artifacts record it."""

    def __call__(self) -> str: ...


class Claims(Protocol):
    """Prevents two concurrent runs from working on the same item."""

    def claim(self, cache_id: str) -> bool:
        """Claim the item. Returns False if another process has it."""
        ...

    def release(self, cache_id: str) -> None: ...
