"""Pacing of calls: one gate for all calls to one model of one server, and the rates that it keeps to."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from llmbatch_assets.domain.run.manifest import PacingStats
from llmbatch_assets.engine.retry import FIRST_WAIT_SEC, MAX_RETRY_AFTER_SEC, MAX_WAIT_SEC, wait_for_any
from llmbatch_assets.errors import FailureCause, RunPermanentError, StopCause, TransientError

_MAX_DOUBLINGS = 10

# Event loops wake up late; a delay of up to this is made up for.
CATCH_UP_SEC = 0.05
MIN_DELAY_SEC = 0.001

# After a refusal the rate stays below what was measured, then rises in ever larger steps until the next refusal. Measured
# over many kinds of servers, these values use about 95 % of their capacity, with about one refusal in forty calls or in
# eight seconds.
UNDERCUT = 0.95
MIN_SHARE = 0.9
SERIOUS_IN_A_ROW = 3
MIN_SHARE_IN_A_ROW = 0.5
STEPS_IN_A_ROW = 10
FIRST_STEP = 0.001
MAX_STEP = 0.03
STEPS_UNTIL_TWICE = 40
STEPS_AFTER_A_GUESS = 120
MIN_CALLS_TO_MEASURE = 20
STEPS_PER_SEC = 5.0
# A server that was much faster before a series of refusals may have recovered.
FAR_BELOW = 0.5
STEP_FAR_BELOW = 0.1


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


@dataclass
class LearnedRate:
    """Requests per second that a server accepts, learned from its refusals; ``configured`` is the upper limit."""

    configured: float = math.inf
    per_second: float = field(init=False)
    _before: float = math.inf
    _taken: int = 0
    _seconds: float = 0.0
    _once: float = 0.0
    _in_a_row: int = 0
    _steps: float = STEPS_UNTIL_TWICE

    def __post_init__(self) -> None:
        # So that a single refusal does not undercut the configured rate.
        self._most = self.per_second = self.configured / UNDERCUT

    def record_rate_limit(self, taken: int, seconds: float) -> None:
        """Learn that the server took this many calls in this time, including the refusal and the requested pause."""
        if taken:
            self._in_a_row = self._in_a_row + 1 if self._steps < STEPS_IN_A_ROW else 1
            self._before, self._taken, self._seconds = self.per_second, taken, 0.0
            self._once = taken / seconds if seconds > 0 else 0.0
        # A server that took nothing is still refusing because of the earlier calls.
        self._seconds += seconds
        measured = self._taken / self._seconds * UNDERCUT if self._taken and self._seconds > 0 else math.inf
        self.per_second = min(measured, self._before * UNDERCUT)
        if self._before < math.inf:
            share = MIN_SHARE if self._in_a_row < SERIOUS_IN_A_ROW else MIN_SHARE_IN_A_ROW
            self.per_second = max(self.per_second, self._before * share)
        # Too few calls for a measurement: probe for a higher rate soon.
        guessed = self._before == math.inf and self._taken < MIN_CALLS_TO_MEASURE
        self._steps = STEPS_AFTER_A_GUESS if guessed else 0.0

    def record_answer(self) -> None:
        step = min(1.0, STEPS_PER_SEC / self.per_second)
        self._steps += step
        rise = step * min(FIRST_STEP * (1 + (self._steps / STEPS_UNTIL_TWICE) ** 3), MAX_STEP)
        if self.per_second < self._once * FAR_BELOW:
            rise = step * STEP_FAR_BELOW
        self.per_second = min(self.per_second * (1 + rise), self._most)


@dataclass(frozen=True)
class CallLimits:
    """Configured limits of a server; 0 is no limit."""

    max_workers: int
    requests_per_minute: int = 0
    tokens_per_minute: int = 0


@dataclass
class Permit:
    """Permission for one call, given after ``cool_down`` cool-downs.

    ``tokens`` are the expected tokens before the call, the actual ones after it.
    """

    tokens: float
    cool_down: int


class Pacer:
    """Lets calls through one after another, in the order in which they arrive.

    A rate-limit refusal closes the gate for all calls, for as long as the server asks, and halves the number of calls
    that may be in flight; each answer allows one more again. The number of calls that the server took until then
    determines the rate afterwards.
    """

    def __init__(self, limits: CallLimits, stopped: asyncio.Event) -> None:
        self._max_concurrency = self._concurrency = limits.max_workers
        self._requests = Allowance(limits.requests_per_minute)
        self._tokens = Allowance(limits.tokens_per_minute)
        self._configured = self._requests.per_second
        self._learned = LearnedRate(self._configured)
        self._stopped = stopped
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()
        self._in_flight = 0
        self._open_at = -math.inf
        # Since the gate last opened: the time, and the number of calls let through and not refused.
        self._opened, self._taken = math.nan, 0
        # Cool-downs that the learned rate knows of.
        self._measured = 0
        # Cool-downs in a row without an answer between them.
        self._fruitless = 0
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
            if error.cause == FailureCause.RATE_LIMITED:
                self._record_rate_limit(permit, error.retry_after)
            raise
        else:
            self._record_answer(permit)
        finally:
            self._in_flight -= 1
            self._tokens.correct(permit.tokens - tokens)
            self._changed.set()

    async def _wait_for_permit(self, tokens: float) -> Permit:
        now = asyncio.get_running_loop().time
        arrived = now()
        async with self._turn:
            while (seconds := self._delay(now())) and not self._stopped.is_set():
                await self._wait(seconds)
            if self._stopped.is_set():
                raise RunPermanentError(StopCause.STOPPED, "the run was stopped")
            self._record_opening(now())
            self._taken += 1
            self._requests.take(1, now())
            self._tokens.take(tokens, now())
        self.stats.calls += 1
        self.stats.seconds_waited += now() - arrived
        return Permit(tokens, self.stats.cool_downs)

    def _delay(self, now: float) -> float:
        """Return the seconds until the next call may begin; infinite until a call in flight ends."""
        if self._in_flight >= self._concurrency:
            return math.inf
        return max(self._open_at - now, 0.0, self._requests.delay(now), self._tokens.delay(now))

    async def _wait(self, seconds: float) -> None:
        self._changed.clear()
        await wait_for_any(self._changed, self._stopped, timeout=None if seconds == math.inf else seconds)

    def _record_opening(self, now: float) -> None:
        """Record the first call of all, or the first after a cool-down."""
        if math.isnan(self._opened):
            self._opened = now
        elif self._measured < self.stats.cool_downs:
            self._measured = self.stats.cool_downs
            # Measured up to the end of the cool-down, not to this call: the server is not to blame for idle workers.
            self._learned.record_rate_limit(self._taken, self._open_at - self._opened)
            self._update_rate()
            self._opened, self._taken = now, 0

    def _update_rate(self) -> None:
        self._requests.per_second = min(self._configured, self._learned.per_second)

    def _record_answer(self, permit: Permit) -> None:
        # An answer to a call from before the gate was closed says nothing about the server now.
        if permit.cool_down == self.stats.cool_downs:
            self._fruitless = 0
            self._concurrency = min(self._concurrency + 1, self._max_concurrency)
        self._learned.record_answer()
        self._update_rate()

    def _record_rate_limit(self, permit: Permit, retry_after: float | None) -> None:
        stats = self.stats
        stats.rate_limited += 1
        # A refusal can arrive late, when the gate is open again.
        self._taken -= permit.cool_down >= self._measured
        # Calls that were in flight when the gate closed tell nothing new.
        if permit.cool_down == stats.cool_downs:
            self._concurrency = max(1, self._concurrency // 2)
            self._fruitless += 1
            stats.cool_downs += 1
            stats.lowest_concurrency = min(stats.lowest_concurrency, self._concurrency)
        now = asyncio.get_running_loop().time()
        self._open_at = max(self._open_at, now + _cool_down(retry_after, self._fruitless))


def _cool_down(retry_after: float | None, fruitless: int) -> float:
    """Return the seconds without calls: as the server says, and longer if that did not help."""
    backoff = min(FIRST_WAIT_SEC * 2.0 ** min(fruitless - 1, _MAX_DOUBLINGS), MAX_WAIT_SEC)
    if retry_after is None:
        return backoff
    return min(retry_after if fruitless == 1 else max(retry_after, backoff), MAX_RETRY_AFTER_SEC)
