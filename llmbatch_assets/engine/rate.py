"""How fast a server may be called: as it was configured, and as it was found out."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

# Event loops wake up late; so much is made up for.
CATCH_UP_SEC = 0.05
SHORTEST_DELAY_SEC = 0.001

# A rate that was found is undercut, and then raised by ever larger steps until the server objects again. These values
# hold servers of many kinds near 95 % of what they take, with about one refusal in forty calls, or in eight seconds.
UNDERCUT = 0.95
LOWEST_SHARE = 0.9
SERIOUS_IN_A_ROW = 3
LOWEST_SHARE_IN_A_ROW = 0.5
STEPS_IN_A_ROW = 10
FIRST_STEP = 0.001
LARGEST_STEP = 0.03
STEPS_UNTIL_TWICE = 40
STEPS_AFTER_A_GUESS = 120
FEWEST_TO_MEASURE = 20
STEPS_PER_SEC = 5.0
# A server that took calls much faster until a spell of refusals may be well again.
FAR_BELOW = 0.5
STEP_FAR_BELOW = 0.1


class Allowance:
    """So many units a second, spread evenly: what is taken is a debt that is paid off as time passes.

    Even spacing keeps within a limit however the server counts: by sliding or fixed windows, or by a bucket. A single
    call may take more than there is; those after it wait for longer.
    """

    def __init__(self, per_minute: float) -> None:
        self.per_second = per_minute / 60 if per_minute else math.inf
        self._paid_at = -math.inf

    def delay(self, now: float) -> float:
        """Seconds until the next call may begin."""
        seconds = self._paid_at - now
        return seconds if seconds > SHORTEST_DELAY_SEC else 0.0

    def take(self, amount: float, now: float) -> None:
        """A call begins that takes so much."""
        begun = self._paid_at if self._paid_at > now - CATCH_UP_SEC else now
        self._paid_at = begun + amount / self.per_second

    def correct(self, amount: float) -> None:
        """A call took so much more than was thought, or less where it is negative."""
        self._paid_at += amount / self.per_second


@dataclass
class FoundRate:
    """Requests a second that a server takes, as its refusals tell; ``told`` is what it was configured to take."""

    told: float = math.inf
    per_second: float = field(init=False)
    _before: float = math.inf
    _taken: int = 0
    _seconds: float = 0.0
    _once: float = 0.0
    _in_a_row: int = 0
    _steps: float = STEPS_UNTIL_TWICE

    def __post_init__(self) -> None:
        # So a single refusal does not contradict what was told.
        self._most = self.per_second = self.told / UNDERCUT

    def refused(self, taken: int, seconds: float) -> None:
        """The server took so many calls in this time, its refusal and the pause that it asked for included."""
        if taken:
            self._in_a_row = self._in_a_row + 1 if self._steps < STEPS_IN_A_ROW else 1
            self._before, self._taken, self._seconds = self.per_second, taken, 0.0
            self._once = taken / seconds if seconds > 0 else 0.0
        # A server that took nothing is still refusing for the sake of the calls before.
        self._seconds += seconds
        measured = self._taken / self._seconds * UNDERCUT if self._taken and self._seconds > 0 else math.inf
        self.per_second = min(measured, self._before * UNDERCUT)
        if self._before < math.inf:
            share = LOWEST_SHARE if self._in_a_row < SERIOUS_IN_A_ROW else LOWEST_SHARE_IN_A_ROW
            self.per_second = max(self.per_second, self._before * share)
        # So few calls measure nothing: be quick to try for more.
        guessed = self._before == math.inf and self._taken < FEWEST_TO_MEASURE
        self._steps = STEPS_AFTER_A_GUESS if guessed else 0.0

    def answered(self) -> None:
        """A call was answered."""
        step = min(1.0, STEPS_PER_SEC / self.per_second)
        self._steps += step
        rise = step * min(FIRST_STEP * (1 + (self._steps / STEPS_UNTIL_TWICE) ** 3), LARGEST_STEP)
        if self.per_second < self._once * FAR_BELOW:
            rise = step * STEP_FAR_BELOW
        self.per_second = min(self.per_second * (1 + rise), self._most)
