"""What the engine needs from the outside world."""

from __future__ import annotations

from typing import Protocol

from llmbatch_assets.domain.ledger import CallRecord
from llmbatch_assets.domain.outcome import AcceptedOutput, Completion, FailedAttempt, KeptAnswer
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

    async def save_awaiting(self, answer: KeptAnswer) -> None:
        """Keep an answer until its verdict is saved as acceptance, or as a rejection."""
        ...

    def awaiting(self, cache_id: str) -> KeptAnswer | None:
        """The answer that waits for a verdict, if there is one."""
        ...

    def next_attempt(self, cache_id: str) -> int:
        """The number that follows the item's last failed attempt, from 1."""
        ...


class Ledger(Protocol):
    """Where every call leaves its line."""

    def write(self, record: CallRecord) -> None: ...


class Clock(Protocol):
    """The time of day as artifacts write it."""

    def __call__(self) -> str: ...


class Claims(Protocol):
    """Keeps two runs at once from working on the same item."""

    def claim(self, cache_id: str) -> bool:
        """Whether the item is ours now; not where another process has it."""
        ...

    def release(self, cache_id: str) -> None: ...
