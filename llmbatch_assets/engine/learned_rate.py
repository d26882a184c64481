"""The rate of calls that a server accepts, learned from those that it refuses."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

# A known rate stays this far below what was measured, and steps back this far when a higher one is refused.
UNDERCUT = 0.95
STEP_BACK = 0.9
# The rate is doubled after so many seconds and calls without a refusal. A rate measured over few calls rises sooner.
DOUBLING_SEC = 25.0
DOUBLING_CALLS = (30, 100)
# Fewer calls, or a shorter time, say little about a rate.
ENOUGH_CALLS = 20
ENOUGH_SEC = 5.0
# So many refusals beyond the expected ones are no coincidence.
SEVERAL = 3
# Calls over which the share of refusals is counted anew.
SAMPLE_CALLS = 100


@dataclass
class _Calls:
    """Calls begun since a time, and how many of them were refused."""

    since: float = math.nan
    begun: int = 0
    refused: int = 0

    def begin(self, now: float) -> None:
        self.begun += 1
        if math.isnan(self.since):
            self.since = now

    @property
    def taken(self) -> int:
        return self.begun - self.refused

    @property
    def share(self) -> float:
        return self.refused / self.begun if self.begun else 0.0

    def rate(self, now: float) -> float:
        return self.taken / (now - self.since) if now > self.since else math.inf

    def is_enough(self, now: float) -> bool:
        return self.begun >= ENOUGH_CALLS and now - self.since >= ENOUGH_SEC


@dataclass
class LearnedRate:
    """Calls per second that a server accepts; ``configured`` is the upper limit.

    ``unrelated`` is the share of calls that the server refuses at any rate. It is found by a test: after refusals, the
    rate is lowered below what the server has just accepted. If it twice refuses as large a share as before, refusals do
    not depend on the rate, so the former rate is restored, and only more refusals than that share count.
    """

    configured: float = math.inf
    per_second: float = field(init=False)
    unrelated: float = field(init=False, default=0.0)
    # Changes whenever a rate was measured: refusals of calls from before say nothing about the new rate.
    period: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        # So that a single refusal does not undercut the configured rate.
        self._most = self._safe = self._former = self.per_second = self.configured / UNDERCUT
        # Calls that the safe rate was measured over; 0: it is unknown. A guess was not accepted before.
        self._evidence = 0 if self.configured == math.inf else DOUBLING_CALLS[1]
        self._is_guess = self.configured == math.inf
        self._seen, self._sample = _Calls(), _Calls()
        self._quiet_since, self._quiet_calls = math.nan, 0
        self._was_tested = False
        self._earlier_share = self._found_share = 0.0
        self._taken_at_first = 0
        # The end of the last cool-down, until the first answer after it.
        self._reopened = math.nan

    @property
    def is_tested(self) -> bool:
        """Whether calls begin at the safe rate, not at a higher one."""
        return self._evidence > 0 and self.per_second <= self._safe * 1.03 < math.inf

    def record_call(self, now: float) -> None:
        """Record that a call begins."""
        if self._was_tested and not self.is_tested:
            # Far fewer refusals at the safe rate: they do depend on the rate.
            if self._sample.share < self.unrelated / 2:
                self.unrelated = self._sample.share
            self._sample = _Calls()
        elif self._sample.begun >= SAMPLE_CALLS and not self.is_tested:
            if self.unrelated:
                self.unrelated = min(0.7 * self.unrelated + 0.3 * self._sample.share, self._found_share)
            self._sample = _Calls()
        self._was_tested = self.is_tested
        if math.isnan(self._quiet_since):
            self._quiet_since = now
        self._seen.begin(now)
        self._sample.begin(now)

    def record_answer(self, now: float, *, is_new: bool) -> None:
        """Raise the rate, slowly at first; ``is_new``: the call began after the last cool-down."""
        if is_new and not math.isnan(self._reopened):
            self._restart(self._reopened)
            self._reopened = math.nan
        self._quiet_calls += 1
        if not self._evidence or self._safe == math.inf or math.isnan(self._quiet_since):
            return
        few, many = DOUBLING_CALLS
        quiet_calls = self._quiet_calls / min(max(self._evidence, few), many)
        quiet = min(quiet_calls, (now - self._quiet_since) / DOUBLING_SEC)
        self.per_second = min(self._safe * (1 + quiet**3), self._most)

    def record_refusal(self, now: float, period: int) -> bool:
        """Record the refusal of a call that began in this period. Returns whether to measure the rate now."""
        if period != self.period:
            return False
        self._seen.refused += 1
        self._sample.refused += 1
        if self._evidence and not self.unrelated:
            if not self.is_tested or self._is_guess:
                self._step_back(now)
                return False
            self._quiet_since, self._quiet_calls = now, 0
        return self._is_unexpected() and self._sample.is_enough(now)

    def measure(self, now: float, *, after_cool_down: bool) -> bool:
        """Learn from the calls until now. Returns whether the rate is known."""
        if self._seen.taken <= 0 or self._is_test_unfinished(now):
            self._quiet_since, self._quiet_calls = now, 0
            return self._evidence > 0
        if math.isnan(self._reopened) and self._is_unrelated(now):
            self._restore()
            return True
        first = self._taken_at_first
        if not self._evidence and self._seen.taken < ENOUGH_CALLS and not 0 < first < self._seen.taken:
            # A few calls before the first refusals say nothing. A second time, they do.
            self._taken_at_first = self._seen.taken
            return False
        self._set_safe_rate(now, after_cool_down=after_cool_down)
        if after_cool_down:
            self._reopened, self._was_tested = now, True
            self._quiet_since, self._quiet_calls = now, 0
        else:
            self._restart()
        return True

    def is_coincidence(self, refused_in_a_row: int) -> bool:
        """Return whether so many refusals in a row are to be expected at any rate."""
        return refused_in_a_row < SEVERAL or self.unrelated**refused_in_a_row > 1e-5

    def _is_unexpected(self) -> bool:
        expected = self.unrelated * self._sample.begun
        return self._sample.refused > expected + 3 * math.sqrt(expected) + SEVERAL - 1

    def _is_test_unfinished(self, now: float) -> bool:
        """Return whether a few refusals among more answers at the safe rate say nothing yet."""
        return self.is_tested and not self._is_guess and self._sample.share < 0.5 and not self._sample.is_enough(now)

    def _step_back(self, now: float) -> None:
        """The server refused a rate that it has not accepted before."""
        if not self.is_tested:
            self._earlier_share, self._former = 0.0, self.per_second
        self._safe = self.per_second = self.per_second * STEP_BACK
        self._is_guess = self._safe > self._seen.rate(now)
        self._sample, self._was_tested = _Calls(), True
        self._quiet_since, self._quiet_calls = now, 0

    def _is_unrelated(self, now: float) -> bool:
        """Return whether a second test in a row at the safe rate had about as many refusals as the first."""
        if not self.is_tested:
            self._earlier_share, self._former = 0.0, self.per_second
        elif not self._is_guess and self._sample.is_enough(now):
            earlier, self._earlier_share = self._earlier_share, self._sample.share
            return bool(earlier) and self._sample.share < 0.5 and 0.5 < self._sample.share / earlier < SEVERAL
        return False

    def _restore(self) -> None:
        self.unrelated = self._found_share = self._sample.share
        self._safe = self.per_second = self._former
        self._earlier_share, self._is_guess = 0.0, True
        self._restart()

    def _set_safe_rate(self, now: float, *, after_cool_down: bool) -> None:
        measured = self._seen.rate(now)
        if self._sample.is_enough(now):
            measured = max(measured, self._sample.rate(now))
        rate = min(measured * UNDERCUT, self._most)
        if after_cool_down and math.isnan(self._reopened) and self.is_tested and not self._is_guess:
            rate = max(rate, self._safe / 2)
        self._is_guess = False
        if math.isnan(self._reopened):
            agrees = 0.8 < rate / self._safe < 1.25
            self._evidence = self._seen.taken + (self._evidence if agrees else 0)
        self._safe = self.per_second = rate

    def _restart(self, since: float = math.nan) -> None:
        self.period += 1
        self._seen, self._sample = _Calls(since), _Calls()
        self._quiet_since, self._quiet_calls = since, 0
        self._was_tested = False
