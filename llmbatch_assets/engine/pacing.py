"""When a call may begin: one gate for all calls to one model of one server."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from llmbatch_assets.domain.pacing import PacingFacts
from llmbatch_assets.engine.patience import FIRST_WAIT_SEC, LONGEST_RETRY_AFTER_SEC, LONGEST_WAIT_SEC
from llmbatch_assets.engine.rate import Allowance, FoundRate
from llmbatch_assets.errors import RunPermanentError, TransientError

RATE_LIMITED = "rate_limited"
_MOST_DOUBLINGS = 10


@dataclass(frozen=True)
class CallLimits:
    """What a server was configured to be asked at most; 0 is no limit."""

    max_workers: int
    requests_per_minute: int = 0
    tokens_per_minute: int = 0


@dataclass
class Passage:
    """A call that was let through after so many cool-downs.

    ``tokens`` is what it was thought to take, and at its end what it took.
    """

    tokens: float
    cool_down: int


class Pacer:
    """Lets calls through one after another, in the order in which they came.

    A refusal for too many calls shuts the gate for all, for as long as the server asks, and halves the number of calls
    that may be in flight; each answer allows one more again. How many calls the server took until then tells how
    fast it may be called after.
    """

    def __init__(self, limits: CallLimits, stopped: asyncio.Event) -> None:
        self._most = self._concurrency = limits.max_workers
        self._requests = Allowance(limits.requests_per_minute)
        self._tokens = Allowance(limits.tokens_per_minute)
        self._configured = self._requests.per_second
        self._found = FoundRate(self._configured)
        self._stopped = stopped
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()
        self._in_flight = 0
        self._open_at = -math.inf
        # Since the gate was last opened: when that was, and how many calls were let through and not refused.
        self._opened, self._taken = math.nan, 0
        # The cool-downs of which the found rate knows.
        self._measured = 0
        self._fruitless = 0
        self._facts = PacingFacts(lowest_concurrency=limits.max_workers)

    @property
    def facts(self) -> PacingFacts:
        """What happened at the gate so far."""
        return self._facts

    @asynccontextmanager
    async def passage(self, tokens: float) -> AsyncIterator[Passage]:
        """Wait until a call that will take about so many tokens may begin; it ends with the block.

        Raises ``RunPermanentError`` once the run is stopped.
        """
        passage = await self._let_through(tokens)
        self._in_flight += 1
        try:
            yield passage
        except TransientError as fault:
            if fault.cause == RATE_LIMITED:
                self._refused(passage, fault.retry_after)
            raise
        else:
            self._answered(passage)
        finally:
            self._in_flight -= 1
            self._tokens.correct(passage.tokens - tokens)
            self._changed.set()

    async def _let_through(self, tokens: float) -> Passage:
        now = asyncio.get_running_loop().time
        came = now()
        async with self._turn:
            while (seconds := self._delay(now())) and not self._stopped.is_set():
                await self._pause(seconds)
            if self._stopped.is_set():
                raise RunPermanentError("stopped", "the run was stopped")
            self._open(now())
            self._taken += 1
            self._requests.take(1, now())
            self._tokens.take(tokens, now())
        waited = self._facts.seconds_waited + now() - came
        self._facts = self._facts._replace(calls=self._facts.calls + 1, seconds_waited=waited)
        return Passage(tokens, self._facts.cool_downs)

    def _delay(self, now: float) -> float:
        """Seconds until the next call may begin, as far as time alone decides."""
        if self._in_flight >= self._concurrency:
            return math.inf
        shut = self._open_at - now
        return max(shut if now < self._open_at else 0.0, self._requests.delay(now), self._tokens.delay(now))

    async def _pause(self, seconds: float) -> None:
        self._changed.clear()
        ends = [asyncio.ensure_future(event.wait()) for event in (self._changed, self._stopped)]
        try:
            timeout = None if seconds == math.inf else seconds
            await asyncio.wait(ends, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in ends:
                end.cancel()

    def _open(self, now: float) -> None:
        """Take note of the first call after a cool-down, or of all."""
        if math.isnan(self._opened):
            self._opened = now
        elif self._measured < self._facts.cool_downs:
            self._measured = self._facts.cool_downs
            # Not until now: that there was no worker for a call is not the server's doing.
            self._found.refused(self._taken, self._open_at - self._opened)
            self._set_rate()
            self._opened, self._taken = now, 0

    def _set_rate(self) -> None:
        self._requests.per_second = min(self._configured, self._found.per_second)

    def _answered(self, passage: Passage) -> None:
        if passage.cool_down == self._facts.cool_downs:
            # An answer to a call from before the gate was shut tells nothing of how it is now.
            self._fruitless = 0
            self._concurrency = min(self._concurrency + 1, self._most)
        self._found.answered()
        self._set_rate()

    def _refused(self, passage: Passage, retry_after: float | None) -> None:
        facts = self._facts._replace(rate_limited=self._facts.rate_limited + 1)
        # A refusal can come late, when the gate has been opened again.
        self._taken -= passage.cool_down >= self._measured
        if passage.cool_down == facts.cool_downs:
            # Those that were in flight when the gate was shut tell nothing new.
            self._concurrency = max(1, self._concurrency // 2)
            self._fruitless += 1
            lowest = min(facts.lowest_concurrency, self._concurrency)
            facts = facts._replace(cool_downs=facts.cool_downs + 1, lowest_concurrency=lowest)
        self._facts = facts
        now = asyncio.get_running_loop().time()
        self._open_at = max(self._open_at, now + _cool_down(retry_after, self._fruitless))


def _cool_down(retry_after: float | None, fruitless: int) -> float:
    """For how long to ask nothing: as the server says, and longer where that has not helped."""
    own = min(FIRST_WAIT_SEC * 2.0 ** min(fruitless - 1, _MOST_DOUBLINGS), LONGEST_WAIT_SEC)
    if retry_after is None:
        return own
    return min(retry_after if fruitless == 1 else max(retry_after, own), LONGEST_RETRY_AFTER_SEC)
