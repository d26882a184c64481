"""Numbers summed up: quantiles, and histograms whose bins have round edges."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

MAX_BINS = 12
# A few far outliers would press all others into one bin: what lies so far out shares the last one.
_TAIL_QUANTILE = 0.99
_TAIL_FACTOR = 2
# What arithmetic with floats may be off by.
_SLACK = 1e-9


class Bin(NamedTuple):
    """How many numbers lie from ``low`` up to ``high``, which belongs to the next bin if there is one.

    Equal ends: they are that number. None: there is no upper end.
    """

    low: float
    high: float | None
    size: int

    @property
    def label(self) -> str:
        if self.high is None:
            return f"{self.low:,.6g} and more"
        return f"{self.low:,.6g}" if self.low == self.high else f"{self.low:,.6g} to {self.high:,.6g}"


def quantile(numbers: Sequence[float], share: float) -> float | None:
    """The smallest of the numbers that at least this share of them does not exceed (nearest rank)."""
    if not numbers:
        return None
    return sorted(numbers)[max(0, math.ceil(share * len(numbers)) - 1)]


def mean(numbers: Sequence[float]) -> float | None:
    """The arithmetic mean; the sum is exact, so the order does not matter."""
    return math.fsum(numbers) / len(numbers) if numbers else None


def histogram(numbers: Sequence[float], low: float | None = None, high: float | None = None) -> list[Bin]:
    """About a dozen bins with round edges that hold all finite numbers, and reach from ``low`` to ``high`` at least.

    Few different whole numbers have a bin each.
    """
    finite = sorted(number for number in numbers if math.isfinite(number))
    if not finite:
        return []
    first = finite[0] if low is None else min(low, finite[0])
    last = finite[-1] if high is None else max(high, finite[-1])
    if last - first < MAX_BINS and all(number == int(number) for number in finite):
        counts = Counter(finite)
        return [Bin(number, number, counts[number]) for number in range(int(finite[0]), int(finite[-1]) + 1)]
    tail = finite[math.ceil(_TAIL_QUANTILE * len(finite)) - 1]
    has_tail = high is None and last - first > _TAIL_FACTOR * (tail - first) > 0
    return _filled(_edges(first, tail if has_tail else last), finite, has_tail=has_tail)


def _edges(first: float, last: float) -> list[float]:
    step = _round_up((last - first) / (MAX_BINS - 2) or abs(last) or 1)
    start = math.floor(first / step + _SLACK)
    stop = max(start + 1, math.ceil(last / step - _SLACK))
    return [float(f"{place * step:.12g}") for place in range(start, stop + 1)]


def _round_up(step: float) -> float:
    """The next of 1, 2, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * (1 - _SLACK))


def _filled(edges: Sequence[float], numbers: Sequence[float], *, has_tail: bool) -> list[Bin]:
    counts = [0] * len(edges)
    for number in numbers:
        counts[max(0, bisect_right(edges, number) - 1)] += 1
    if has_tail:
        return [*_bins(edges, counts), Bin(edges[-1], None, counts[-1])]
    # The very last edge belongs to the bin before it.
    at_the_edge = counts.pop()
    counts[-1] += at_the_edge
    return _bins(edges, counts)


def _bins(edges: Sequence[float], counts: Sequence[int]) -> list[Bin]:
    return [Bin(low, high, count) for low, high, count in zip(edges, edges[1:], counts, strict=False)]
