"""How fast a run goes and how long it still takes, from times that are handed in."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

# A rate is that of the last so many seconds: providers slow down and recover.
WINDOW_SEC = 60.0
# Marks nearer to each other than this say nothing more.
APART_SEC = 0.5


class _Mark(NamedTuple):
    at: float
    done: int


class Pace:
    """The pace of a run that was begun at the time ``started``."""

    def __init__(self, started: float) -> None:
        self._marks = deque([_Mark(started, 0)])
        self._last = self._marks[0]

    def mark(self, now: float, done: int) -> None:
        """Take note of how many are done by now."""
        self._last = _Mark(now, done)
        if now - self._marks[-1].at >= APART_SEC:
            self._marks.append(self._last)
        while len(self._marks) > 1 and now - self._marks[1].at > WINDOW_SEC:
            self._marks.popleft()

    @property
    def per_second(self) -> float:
        """Items a second of late; 0 where that cannot be told yet."""
        first, last = self._marks[0], self._last
        return (last.done - first.done) / (last.at - first.at) if last.at > first.at else 0.0

    def seconds_left(self, total: int) -> float | None:
        """How long the rest takes at this pace; None where that cannot be told."""
        rate = self.per_second
        return (total - self._last.done) / rate if rate else None


def duration(seconds: float | None) -> str:
    """A length of time for people: ``0:01:05``, or ``-:--:--`` where it is not known."""
    if seconds is None:
        return "-:--:--"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
