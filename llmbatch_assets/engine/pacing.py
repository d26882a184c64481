"""Pacing of calls: one gate for all calls to one model of one server, and the rates that it keeps to."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from llmbatch_assets.domain.run.manifest import PacingStats
from llmbatch_assets.engine.learned_rate import LearnedRate
from llmbatch_assets.engine.retry import FIRST_WAIT_SEC, MAX_RETRY_AFTER_SEC, MAX_WAIT_SEC, wait_for_any
from llmbatch_assets.errors import FailureCause, RunPermanentError, StopCause, TransientError

_logger = logging.getLogger(__name__)

_MAX_DOUBLINGS = 10
# Number of refused calls that are remembered, to find consecutive ones.
MAX_REMEMBERED = 256

# Event loops wake up late; a delay of up to this is made up for.
CATCH_UP_SEC = 0.05
MIN_DELAY_SEC = 0.001


class Allowance:
    """Units per second, spread evenly: taken units are a debt that is paid off as time passes.

    Even spacing satisfies sliding windows, fixed windows and token buckets alike. A single call may take more than is
    available; later calls then wait longer.
    """

    def __init__(self, per_minute: float) -> None:
        self.per_second = per_minute / 60 if per_minute else math.inf
        self._paid_at = -math.inf

    def delay(self, now: float) -> float:
        """Return the seconds until the next call may begin."""
        seconds = self._paid_at - now
        return seconds if seconds > MIN_DELAY_SEC else 0.0

    def take(self, amount: float, now: float) -> None:
        """Record a call that begins and takes this amount."""
        begun = self._paid_at if self._paid_at > now - CATCH_UP_SEC else now
        self._paid_at = begun + amount / self.per_second

    def correct(self, amount: float) -> None:
        """Record that a call took this much more than expected (less if negative)."""
        self._paid_at += amount / self.per_second


@dataclass(frozen=True)
class CallLimits:
    """Configured limits of a server; 0 is no limit."""

    max_workers: int
    requests_per_minute: int = 0
    tokens_per_minute: int = 0


@dataclass
class Permit:
    """Permission for the ``number``-th call, given after ``cool_down`` cool-downs, in a ``period`` of the learned rate.

    ``tokens`` is the expected number of tokens before the call and the actual number after it.
    """

    tokens: float
    cool_down: int
    number: int
    period: int


class Pacer:
    """Lets calls through one at a time, in the order in which they arrive.

    A single refusal only affects its own call. Several in a row start a cool-down: no calls start for as long as the
    server asks, and the limit on calls in flight is halved. Each answer then raises that limit by one. The rate after
    the cool-down depends on how many calls the server accepted before it.
    """

    def __init__(self, limits: CallLimits, stopped: asyncio.Event) -> None:
        self._max_concurrency = self._concurrency = limits.max_workers
        self._requests = Allowance(limits.requests_per_minute)
        self._tokens = Allowance(limits.tokens_per_minute)
        self._tokens_per_minute = limits.tokens_per_minute or math.inf
        self._configured = self._requests.per_second
        self._learned = LearnedRate(self._configured)
        self._stopped = stopped
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()
        self._in_flight = 0
        self._open_at = -math.inf
        self._closed = False
        # The last refused calls, by number.
        self._refused: dict[int, None] = {}
        # The number of the first call after the last cool-down, and of consecutive cool-downs without an answer in between.
        self._first, self._failed_cool_downs = 0, 0
        self._warned = False
        self.stats = PacingStats(lowest_concurrency=limits.max_workers)

    @asynccontextmanager
    async def permit(self, tokens: float) -> AsyncIterator[Permit]:
        """Wait until a call that will take about this many tokens may begin. The call ends with the block.

        Raises ``RunPermanentError`` once the run is stopped.
        """
        permit = await self._wait_for_permit(tokens)
        self._in_flight += 1
        try:
            yield permit
        except TransientError as error:
            self.stats.rate_limited += error.cause == FailureCause.RATE_LIMITED
            if error.cause == FailureCause.RATE_LIMITED or error.retry_after is not None:
                self._record_refusal(permit, error.retry_after)
            raise
        else:
            self._record_answer(permit)
        finally:
            self._in_flight -= 1
            self._correct_tokens(tokens, permit.tokens)
            self._changed.set()

    async def _wait_for_permit(self, tokens: float) -> Permit:
        now = asyncio.get_running_loop().time
        arrived = now()
        async with self._turn:
            while (seconds := self._delay(now())) and not self._stopped.is_set():
                await self._wait(seconds)
            if self._stopped.is_set():
                raise RunPermanentError(StopCause.STOPPED, "the run was stopped")
            if self._closed:
                self._open()
            self._learned.record_call(now())
            self._requests.take(1, now())
            self._tokens.take(tokens, now())
        self.stats.calls += 1
        self.stats.seconds_waited += now() - arrived
        return Permit(tokens, self.stats.cool_downs, self.stats.calls, self._learned.period)

    def _delay(self, now: float) -> float:
        """Return the seconds until the next call may begin; infinite until a call in flight ends."""
        if self._in_flight >= self._concurrency:
            return math.inf
        seconds = max(self._open_at - now, self._requests.delay(now), self._tokens.delay(now))
        return seconds if seconds > MIN_DELAY_SEC else 0.0

    async def _wait(self, seconds: float) -> None:
        self._changed.clear()
        await wait_for_any(self._changed, self._stopped, timeout=None if seconds == math.inf else seconds)

    def _open(self) -> None:
        """End a cool-down with its first call."""
        self._closed, self._first = False, self.stats.calls + 1
        # Measure up to the end of the cool-down, not up to this call, so that idle workers do not lower the rate.
        if not self._learned.measure(self._open_at, after_cool_down=True):
            # Without a known rate, start with one call; each answer then allows one more.
            self._concurrency = self.stats.lowest_concurrency = 1
        self._update_rate()

    def _update_rate(self) -> None:
        self._requests.per_second = min(self._configured, self._learned.per_second)

    def _record_answer(self, permit: Permit) -> None:
        # An answer to a call from before the cool-down says nothing about the server now.
        is_new = permit.cool_down == self.stats.cool_downs
        if is_new:
            self._failed_cool_downs = 0
            self._concurrency = min(self._concurrency + 1, self._max_concurrency)
        self._learned.record_answer(asyncio.get_running_loop().time(), is_new=is_new)
        self._update_rate()

    def _record_refusal(self, permit: Permit, retry_after: float | None) -> None:
        now = asyncio.get_running_loop().time()
        in_a_row = self._count_in_a_row(permit.number)
        is_measured = self._learned.record_refusal(now, permit.period)
        is_new = permit.cool_down == self.stats.cool_downs
        fails_again = self._failed_cool_downs > 0 and permit.number == self._first
        if self._closed:
            # Calls that were in flight when the cool-down began can only prolong it.
            if permit.cool_down == self.stats.cool_downs - 1:
                self._open_at = max(self._open_at, now + _cool_down(retry_after, self._failed_cool_downs))
        elif is_new and (fails_again or not self._learned.is_coincidence(in_a_row)):
            self._close(now, retry_after)
        elif is_new and is_measured:
            self._learned.measure(now, after_cool_down=False)
        self._update_rate()

    def _count_in_a_row(self, number: int) -> int:
        """Return how many consecutively started calls, including this one, were refused, in any order."""
        self._refused[number] = None
        if len(self._refused) > MAX_REMEMBERED:
            del self._refused[next(iter(self._refused))]
        first = last = number
        while first - 1 in self._refused:
            first -= 1
        while last + 1 in self._refused:
            last += 1
        return last - first + 1

    def _close(self, now: float, retry_after: float | None) -> None:
        stats = self.stats
        self._closed = True
        self._failed_cool_downs += 1
        self._concurrency = max(1, self._concurrency // 2)
        stats.cool_downs += 1
        stats.lowest_concurrency = min(stats.lowest_concurrency, self._concurrency)
        self._open_at = max(self._open_at, now + _cool_down(retry_after, self._failed_cool_downs))

    def _correct_tokens(self, expected: float, actual: float) -> None:
        """Replace the expected tokens by the actual ones. A wrong count delays later calls by at most a minute."""
        more = actual - expected
        if more > self._tokens_per_minute:
            if not self._warned:
                _logger.warning(
                    "The server reported %s tokens for one call, more than tokens_per_minute (%s) allows in a minute. "
                    "The run waits one minute and continues. Check the server's token counts and the limit.",
                    f"{actual:,.0f}",
                    f"{self._tokens_per_minute:,}",
                )
            self._warned = True
            more = self._tokens_per_minute
        self._tokens.correct(more)


def _cool_down(retry_after: float | None, failed_cool_downs: int) -> float:
    """Return the seconds without calls: as the server says, and longer if that did not help."""
    backoff = min(FIRST_WAIT_SEC * 2.0 ** min(failed_cool_downs - 1, _MAX_DOUBLINGS), MAX_WAIT_SEC)
    if retry_after is None:
        return backoff
    return min(retry_after if failed_cool_downs == 1 else max(retry_after, backoff), MAX_RETRY_AFTER_SEC)
