"""Calls with retries: one loop for all providers, for generations, verdicts and schemas."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    stop_after_attempt,
    wait_exponential,
    wait_random,
)

from llmbatch_assets.domain.outcome import Completion
from llmbatch_assets.domain.request import ChatRequest
from llmbatch_assets.domain.usage import TokenUsage
from llmbatch_assets.engine.ports import ChatClient
from llmbatch_assets.errors import FormatRefusedError, RunPermanentError, StopCause, TransientError

FIRST_WAIT_SEC = 0.5
MAX_WAIT_SEC = 30.0
MAX_RETRY_AFTER_SEC = 120.0

_backoff = wait_exponential(multiplier=FIRST_WAIT_SEC, max=MAX_WAIT_SEC) + wait_random(0, FIRST_WAIT_SEC)


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    retry_after = error.retry_after if isinstance(error, TransientError) else None
    return _backoff(state) if retry_after is None else min(retry_after, MAX_RETRY_AFTER_SEC)


def is_free(error: BaseException) -> bool:
    """Return whether an error is transient and its call has, as far as is known, used no tokens."""
    if not isinstance(error, TransientError):
        return False
    return not (isinstance(error.usage, TokenUsage) and error.usage.total_tokens)


@dataclass(frozen=True)
class RetryingCalls:
    """Makes the calls of one run. No call begins once the run is ``stopped``."""

    transport_retries: int
    stopped: asyncio.Event

    async def ask(self, client: ChatClient, request: ChatRequest) -> Completion:
        """Return the answer after at most ``transport_retries`` retries, with backoff or as the server asked.

        Raises the last ``TransientError``, and any other ``ProviderError`` at once. So it does a ``TransientError`` of a call
        that used tokens: it was billed, and counts as an attempt of its item. A stopped run ends the backoff.
        """
        try:
            # Most calls succeed, and setting up tenacity costs more than all other work on an item.
            return await self._call(client, request)
        except TransientError as error:
            if not is_free(error):
                raise
            failed = [error]

        async def call_again() -> Completion:
            # The retry loop counts and times the first call, too.
            if failed:
                raise failed.pop()
            return await self._call(client, request)

        retrying = AsyncRetrying(
            retry=retry_if_exception(is_free),
            stop=stop_after_attempt(self.transport_retries + 1),
            wait=_wait,
            sleep=self._sleep,
            reraise=True,
        )
        return await retrying(call_again)

    async def _call(self, client: ChatClient, request: ChatRequest) -> Completion:
        while not self.stopped.is_set():
            with contextlib.suppress(FormatRefusedError):
                return await client.complete(request)
        raise RunPermanentError(StopCause.STOPPED, "the run was stopped")

    async def _sleep(self, seconds: float) -> None:
        await wait_for_any(self.stopped, timeout=seconds)


async def wait_for_any(*events: asyncio.Event, timeout: float | None = None) -> None:  # noqa: ASYNC109  # no error
    """Return once one of the events is set, or after the timeout in seconds."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
