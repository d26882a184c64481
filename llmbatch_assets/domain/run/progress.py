"""Progress of a run: counts, speed and remaining time."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from llmbatch_assets.domain.outcome import ItemResult
from llmbatch_assets.domain.usage import UsageTotal

# The speed is measured over this window, since providers slow down and recover.
WINDOW_SEC = 60.0
# Samples closer together than this add nothing.
MIN_SAMPLE_SEC = 0.5


@dataclass
class Tally:
    """Counts of a run's items, and the usage of its calls.

    ``found`` items were accepted by another run in the meantime. ``failed`` includes the ``failed_permanently`` items.
    ``cached`` items had an output before the run and are not part of ``total``.
    """

    total: int
    accepted: int = 0
    failed: int = 0
    found: int = 0
    failed_permanently: int = 0
    in_flight: int = 0
    cached: int = 0
    causes: dict[str, int] = field(default_factory=dict)
    usage: UsageTotal = field(default_factory=UsageTotal)

    @property
    def done(self) -> int:
        return self.accepted + self.failed + self.found

    def count(self, result: ItemResult) -> None:
        self.usage.add(result.usage)
        if result.found:
            self.found += 1
        elif result.failed is None:
            self.accepted += 1
        else:
            self.failed += 1
            self.failed_permanently += result.failed.item_permanent
            self.causes[result.failed.cause] = self.causes.get(result.failed.cause, 0) + 1


def format_causes(causes: Mapping[str, int]) -> str:
    """List failures by cause, the most frequent first: ``2 not_json, 1 timeout``."""
    return ", ".join(f"{count} {cause}" for cause, count in sorted(causes.items(), key=lambda one: (-one[1], one[0])))


class _Sample(NamedTuple):
    at: float
    done: int


class Pace:
    """Speed of a run that began at ``started``. All times are seconds of the caller's clock."""

    def __init__(self, started: float) -> None:
        self._samples = deque([_Sample(started, 0)])
        self._last = self._samples[0]

    def mark(self, now: float, done: int) -> None:
        """Record how many items are done by now."""
        self._last = _Sample(now, done)
        if now - self._samples[-1].at >= MIN_SAMPLE_SEC:
            self._samples.append(self._last)
        while len(self._samples) > 1 and now - self._samples[1].at > WINDOW_SEC:
            self._samples.popleft()

    @property
    def per_second(self) -> float:
        """Recent items per second, 0 if unknown."""
        first, last = self._samples[0], self._last
        return (last.done - first.done) / (last.at - first.at) if last.at > first.at else 0.0

    def seconds_left(self, total: int) -> float | None:
        """Remaining seconds at this speed, None if unknown."""
        rate = self.per_second
        return (total - self._last.done) / rate if rate else None


def format_duration(seconds: float | None) -> str:
    """Format as ``0:01:05``, or ``-:--:--`` if unknown."""
    if seconds is None:
        return "-:--:--"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
