"""Counts by value. Memory is bounded: what comes after so many different values is counted together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

MAX_VALUES = 50_000

End = Literal["accepted", "failed", "missing"]
ENDS: tuple[End, ...] = ("accepted", "failed", "missing")


class Line(NamedTuple):
    """How many ended how, of those with one value."""

    value: str
    accepted: int
    failed: int
    missing: int

    @property
    def total(self) -> int:
        return self.accepted + self.failed + self.missing

    @property
    def open(self) -> int:
        """Those without an output."""
        return self.failed + self.missing


class Lines(NamedTuple):
    """The lines that are shown, and the others together: ``n_rest`` values (at least), which ``rest`` sums up."""

    shown: list[Line]
    rest: Line
    n_rest: int


@dataclass
class EndCounts:
    """How items ended, by a value of theirs."""

    limit: int = MAX_VALUES
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    beyond: Counter[str] = field(default_factory=Counter)

    def add(self, value: str, end: End, number: int = 1) -> None:
        """Count ``number`` that ended so."""
        if value not in self.counts and len(self.counts) >= self.limit:
            self.beyond[end] += number
            return
        self.counts.setdefault(value, Counter())[end] += number

    def total(self, end: End) -> int:
        """All that ended so."""
        return sum(counter[end] for counter in self.counts.values()) + self.beyond[end]

    def lines(self, most: int, order: Callable[[Line], object] | None = None) -> Lines:
        """At most ``most`` lines in ``order``, equal ones as first seen; without an order all are as first seen."""
        every = [_line(value, counter) for value, counter in self.counts.items()]
        if order is not None:
            every.sort(key=order)  # type: ignore[arg-type]
        hidden = [*every[most:], _line("", self.beyond)]
        rest = _line("", Counter({end: sum(getattr(line, end) for line in hidden) for end in ENDS}))
        return Lines(every[:most], rest, len(every[most:]))


def _line(value: str, counter: Counter[str]) -> Line:
    return Line(value, *(counter[end] for end in ENDS))


class Told(NamedTuple):
    """A text, how often it was said, and of which items for example."""

    text: str
    times: int
    examples: list[str]


@dataclass
class TextCounts:
    """How often each text was said."""

    n_examples: int
    limit: int = MAX_VALUES
    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    beyond: int = 0

    def add(self, texts: Iterable[str], example: str) -> None:
        """Count texts that were said of an item."""
        for text in texts:
            if text not in self.counts and len(self.counts) >= self.limit:
                self.beyond += 1
                continue
            self.counts[text] += 1
            shown = self.examples.setdefault(text, [])
            if len(shown) < self.n_examples and example not in shown:
                shown.append(example)

    def top(self, most: int) -> list[Told]:
        """The most frequent texts, equally frequent ones in alphabetical order."""
        ordered = sorted(self.counts.items(), key=lambda pair: (-pair[1], pair[0]))
        return [Told(text, count, self.examples[text]) for text, count in ordered[:most]]

    @property
    def n_texts(self) -> int:
        """Different texts; those beyond the limit count as different."""
        return len(self.counts) + self.beyond
