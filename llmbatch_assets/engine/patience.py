"""How a call that failed in transit is tried again: one loop for all providers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_attempt,
    wait_exponential,
    wait_random,
)

from llmbatch_assets.domain.outcome import Completion
from llmbatch_assets.errors import TransientError

FIRST_WAIT_SEC = 0.5
LONGEST_WAIT_SEC = 30.0
LONGEST_RETRY_AFTER_SEC = 120.0

_backoff = wait_exponential(multiplier=FIRST_WAIT_SEC, max=LONGEST_WAIT_SEC) + wait_random(0, FIRST_WAIT_SEC)


def _wait(state: RetryCallState) -> float:
    fault = state.outcome.exception() if state.outcome else None
    asked = fault.retry_after if isinstance(fault, TransientError) else None
    return _backoff(state) if asked is None else min(asked, LONGEST_RETRY_AFTER_SEC)


async def patiently(call: Callable[[], Awaitable[Completion]], retries: int, stopped: asyncio.Event) -> Completion:
    """The call's answer after at most ``retries`` further tries, with growing pauses or as the server asked.

    Raises the last ``TransientError``, and every other error at once. A pause ends when the run is ``stopped``.
    """
    try:
        # That is all, nearly always; the machinery of tries would take longer than anything else about an item.
        return await call()
    except TransientError as fault:
        failed = [fault]

    async def again() -> Completion:
        if failed:
            raise failed.pop()
        return await call()

    async def pause(seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopped.wait(), seconds)

    tries = AsyncRetrying(
        retry=retry_if_exception_type(TransientError),
        stop=stop_after_attempt(retries + 1),
        wait=_wait,
        sleep=pause,
        reraise=True,
    )
    return await tries(again)
