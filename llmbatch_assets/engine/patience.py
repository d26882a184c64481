"""How a call that failed in transit is tried again: one loop for all providers."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable

from llmbatch_assets.domain.outcome import Completion
from llmbatch_assets.errors import TransientError

FIRST_WAIT_SEC = 0.5
LONGEST_WAIT_SEC = 30.0
LONGEST_RETRY_AFTER_SEC = 120.0
_MOST_DOUBLINGS = 10


def _wait(tried: int, fault: TransientError) -> float:
    """Seconds before the next try: as the server asked, else exponentially more, and not the same for all."""
    if fault.retry_after is not None:
        return min(fault.retry_after, LONGEST_RETRY_AFTER_SEC)
    grown = min(FIRST_WAIT_SEC * 2.0 ** min(tried, _MOST_DOUBLINGS), LONGEST_WAIT_SEC)
    return grown + random.uniform(0, FIRST_WAIT_SEC)  # noqa: S311  # nobody has to be kept from guessing it


async def patiently(call: Callable[[], Awaitable[Completion]], retries: int, stopped: asyncio.Event) -> Completion:
    """The call's answer after at most ``retries`` further tries, with growing pauses or as the server asked.

    Raises the last ``TransientError``, and every other error at once. A pause ends when the run is ``stopped``.
    """
    # By hand: a library for this costs more for each call than all else that the engine does for it.
    for tried in range(retries):
        try:
            return await call()
        except TransientError as fault:
            seconds = _wait(tried, fault)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopped.wait(), seconds)
    return await call()
