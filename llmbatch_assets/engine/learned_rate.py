"""Learn the rate of calls that a server accepts from the calls that it refuses."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

# The safe rate is this fraction of the measured rate. A refused higher rate is multiplied by STEP_BACK.
UNDERCUT = 0.95
STEP_BACK = 0.9
# The rate doubles after this many seconds and calls without a refusal. A rate measured over few calls rises sooner.
DOUBLING_SEC = 25.0
DOUBLING_CALLS = (30, 100)
# A rate measured over fewer calls or a shorter time is unreliable.
ENOUGH_CALLS = 20
ENOUGH_SEC = 5.0
# This many refusals beyond the expected number are not a coincidence.
SEVERAL = 3
# The share of refusals is counted over windows of this many calls.
SAMPLE_CALLS = 100


@dataclass
class _Calls:
    """Calls started since a point in time, and how many of them were refused."""

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

    ``base_share`` is the share of calls that the server refuses whatever the rate. It is found by a test: after refusals,
    the rate is lowered below what the server has just accepted. If the share of refusals then stays the same twice in a
    row, refusals do not depend on the rate. The former rate is restored, and only refusals beyond that share count.
    """

    configured: float = math.inf
    per_second: float = field(init=False)
    base_share: float = field(init=False, default=0.0)
    # Incremented whenever a rate is measured: refusals of earlier calls say nothing about the new rate.
    period: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        # Divided, so that a single refusal does not lower the rate below the configured one.
        self._most = self._safe = self._former = self.per_second = self.configured / UNDERCUT
        # Number of calls over which the safe rate was measured; 0: unknown. A guess is a rate the server has not yet accepted.
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
            # Far fewer refusals at the safe rate, so they do depend on the rate.
            if self._sample.share < self.base_share / 2:
                self.base_share = self._sample.share
            self._sample = _Calls()
        elif self._sample.begun >= SAMPLE_CALLS and not self.is_tested:
            if self.base_share:
                self.base_share = min(0.7 * self.base_share + 0.3 * self._sample.share, self._found_share)
            self._sample = _Calls()
        self._was_tested = self.is_tested
        if math.isnan(self._quiet_since):
            self._quiet_since = now
        self._seen.begin(now)
        self._sample.begin(now)

    def record_answer(self, now: float, *, is_new: bool) -> None:
        """Raise the rate, slowly at first. ``is_new``: the call started after the last cool-down."""
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
        """Record the refusal of a call that started in this period. Returns whether to measure the rate now."""
        if period != self.period:
            return False
        self._seen.refused += 1
        self._sample.refused += 1
        if self._evidence and not self.base_share:
            if not self.is_tested or self._is_guess:
                self._step_back(now)
                return False
            self._quiet_since, self._quiet_calls = now, 0
        return self._is_unexpected() and self._sample.is_enough(now)

    def measure(self, now: float, *, after_cool_down: bool) -> bool:
        """Measure the rate over the calls so far. Returns whether the rate is known."""
        if self._seen.taken <= 0 or self._is_test_unfinished(now):
            self._quiet_since, self._quiet_calls = now, 0
            return self._evidence > 0
        if math.isnan(self._reopened) and self._is_rate_independent(now):
            self._restore()
            return True
        first = self._taken_at_first
        if not self._evidence and self._seen.taken < ENOUGH_CALLS and not 0 < first < self._seen.taken:
            # A few calls before the first refusals are too little evidence, but enough the second time.
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
        """Return whether this many consecutive refusals are likely even if they do not depend on the rate."""
        return refused_in_a_row < SEVERAL or self.base_share**refused_in_a_row > 1e-5

    def _is_unexpected(self) -> bool:
        expected = self.base_share * self._sample.begun
        return self._sample.refused > expected + 3 * math.sqrt(expected) + SEVERAL - 1

    def _is_test_unfinished(self, now: float) -> bool:
        """Return whether there are still too few calls at the safe rate to judge its refusals."""
        return self.is_tested and not self._is_guess and self._sample.share < 0.5 and not self._sample.is_enough(now)

    def _step_back(self, now: float) -> None:
        """Lower a rate that the server refused and had not accepted before."""
        if not self.is_tested:
            self._earlier_share, self._former = 0.0, self.per_second
        self._safe = self.per_second = self.per_second * STEP_BACK
        self._is_guess = self._safe > self._seen.rate(now)
        self._sample, self._was_tested = _Calls(), True
        self._quiet_since, self._quiet_calls = now, 0

    def _is_rate_independent(self, now: float) -> bool:
        """Return whether two consecutive tests at the safe rate had about the same share of refusals."""
        if not self.is_tested:
            self._earlier_share, self._former = 0.0, self.per_second
        elif not self._is_guess and self._sample.is_enough(now):
            earlier, self._earlier_share = self._earlier_share, self._sample.share
            return bool(earlier) and self._sample.share < 0.5 and 0.5 < self._sample.share / earlier < SEVERAL
        return False

    def _restore(self) -> None:
        self.base_share = self._found_share = self._sample.share
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
