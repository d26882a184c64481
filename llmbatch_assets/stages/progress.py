"""The progress of a run as lines: for Dagster's log, for log files, and for terminals that are none."""

from __future__ import annotations

import time
from collections.abc import Callable

from llmbatch_assets.domain.cost import shown
from llmbatch_assets.domain.manifest import progress_every_n
from llmbatch_assets.domain.progress import Pace, duration
from llmbatch_assets.engine.tally import Tally as Tally
from llmbatch_assets.stages.generate import Outcome


class LogReporter:
    """Tells a log about a run, at the rate of ``cache.verbose``.

    Lines are at least ``pause`` seconds apart, but for the last one, and at most about ``silence`` while items end.
    """

    def __init__(
        self,
        say: Callable[[str], None],
        verbose: int,
        *,
        pause: float = 0.0,
        silence: float = float("inf"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._say = say
        self._verbose = verbose
        self._pause, self._silence, self._clock = pause, silence, clock
        self._told_at = clock()
        self._pace = Pace(self._told_at)

    def say(self, line: str) -> None:
        """A line for people."""
        if self._verbose:
            self._say(line)

    def began(self, tally: Tally) -> None:
        """The clock of the run starts now."""
        self._told_at = self._clock()
        self._pace = Pace(self._told_at)

    def advanced(self, tally: Tally) -> None:
        """Tell the counts where it is time to."""
        now = self._clock()
        self._pace.mark(now, tally.done)
        if self._is_time(now - self._told_at, tally):
            self._told_at = now
            self._say(progress_line(tally, self._pace))

    def _is_time(self, waited: float, tally: Tally) -> bool:
        every = progress_every_n(self._verbose, tally.total)
        if not every:
            return False
        if tally.done == tally.total:
            return True
        return waited >= self._silence or (tally.done % every == 0 and waited >= self._pause)

    def ended(self, outcome: Outcome) -> None:
        """Tell the causes of failures."""
        for cause, count in sorted(outcome.tally.causes.items()):
            self._say(f"failed: {count} {cause}")


def progress_line(tally: Tally, pace: Pace) -> str:
    """How a run stands, on one line."""
    causes = f" ({told_causes(tally)})" if tally.causes else ""
    return (
        f"{tally.done}/{tally.total} done, {tally.accepted} accepted, {tally.failed} failed{causes}, "
        f"{tally.usage.total_tokens} tokens, {shown(tally.usage.cost_usd)}, {tally.cached + tally.found} from cache, "
        f"{tally.in_flight} in flight, {pace.per_second:.1f} items/s, {duration(pace.seconds_left(tally.total))} left"
    )


def told_causes(tally: Tally) -> str:
    """Failed items by cause, the most frequent first."""
    most_first = sorted(tally.causes.items(), key=lambda one: (-one[1], one[0]))
    return ", ".join(f"{count} {cause}" for cause, count in most_first)
