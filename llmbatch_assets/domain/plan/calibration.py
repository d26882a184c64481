"""What calls have taken so far, and what that says of those to come."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from llmbatch_assets.domain.ledger import OK, CallRecord
from llmbatch_assets.domain.request import Purpose

# From so many points on a line has two parameters of its own; below, one.
FEWEST_FOR_A_SLOPE = 8
# A slope is believed where it is so many times as large as its standard error.
CLEAR_SLOPE = 4.0
# Two standard errors hold about 95 of 100 cases; fewer items tell nothing of their own spread.
STANDARD_ERRORS = 2.0
FEWEST_FOR_A_SPREAD = 5
SMALLEST_ERROR = 0.05
LARGEST_ERROR = 0.5


@dataclass
class Taken:
    """What the calls for one item took in one run: the first that was answered, and all of them."""

    length: int
    calls: int = 0
    answered: int = 0
    first_input: int = 0
    first_output: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    seconds: float = 0.0

    def add(self, record: CallRecord) -> None:
        """Count one more call."""
        self.calls += 1
        if not self.input_tokens:
            self.first_input, self.first_output = record.input_tokens, record.output_tokens
        self.input_tokens += record.input_tokens
        self.output_tokens += record.output_tokens
        self.cached_tokens += record.cached_input_tokens
        if record.outcome == OK:
            self.answered += 1
            self.seconds += record.latency_sec


def taken(
    records: Iterable[CallRecord], purpose: Purpose, asked: tuple[str, str], lengths: Mapping[str, int]
) -> tuple[list[Taken], list[Taken]]:
    """What items took whose requests are known by cache id to ``lengths``; and what others of the same model took.

    ``asked`` is provider and model. An item that two runs worked on counts twice. What nobody counted teaches nothing.
    """
    known: dict[tuple[str, str], Taken] = {}
    others: dict[tuple[str, str], Taken] = {}
    for record in records:
        if record.purpose != purpose or (record.provider, record.model) != asked or record.cache_id is None:
            continue
        where = known if record.cache_id in lengths else others
        key = (record.run_id, record.cache_id)
        where.setdefault(key, Taken(lengths.get(record.cache_id, 0))).add(record)
    return [one for one in known.values() if one.first_input], [one for one in others.values() if one.first_input]


class Line(NamedTuple):
    """Tokens as a fixed part and a part that grows with a request's length."""

    fixed: float
    per_unit: float

    def total(self, lengths: Sequence[int]) -> float:
        """The tokens of requests of these lengths together."""
        return self.fixed * len(lengths) + self.per_unit * sum(lengths)


def fitted(points: Sequence[tuple[int, int]], *, otherwise: Literal["ratio", "mean"]) -> Line:
    """The line through points of length and tokens, by least squares where they show one clearly.

    Else, or where it would have fewer than no tokens at length 0, it is tokens per length, or their mean.
    """
    mean_x, mean_y = (sum(values) / len(points) for values in zip(*points, strict=True))
    slope, error = _slope(points, mean_x, mean_y)
    if slope > CLEAR_SLOPE * error and len(points) >= FEWEST_FOR_A_SLOPE:
        fixed = mean_y - slope * mean_x
        return Line(fixed, slope) if fixed >= 0 else Line(0.0, mean_y / mean_x)
    return Line(0.0, mean_y / mean_x) if otherwise == "ratio" and mean_x else Line(mean_y, 0.0)


def _slope(points: Sequence[tuple[int, int]], mean_x: float, mean_y: float) -> tuple[float, float]:
    """The slope of least squares and its standard error (any textbook on linear regression)."""
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    if not spread or len(points) <= 2:
        return 0.0, math.inf
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
    left = sum((y - mean_y - slope * (x - mean_x)) ** 2 for x, y in points)
    return slope, math.sqrt(left / (len(points) - 2) / spread)


def relative_error(missed: Sequence[float], n_items: int, expected: float, reach: float = 1.0) -> float:
    """By which share a sum over ``n_items`` may be off, where the estimate of single ones missed by these amounts.

    Two standard errors of a sum that is predicted from a sample of m: ``2 s sqrt(n + n² / m)``. ``reach`` is how many
    times as long, or as short, as all that was seen the requests are: a line through the seen ones may bend beyond.
    """
    m = len(missed)
    if m < FEWEST_FOR_A_SPREAD or expected <= 0:
        return LARGEST_ERROR
    deviation = math.sqrt(sum(miss**2 for miss in missed) / (m - 2))
    off = STANDARD_ERRORS * deviation * math.sqrt(n_items + n_items**2 / m) / expected
    return min(max(off, SMALLEST_ERROR * reach), 1.0)


def reach(seen: Sequence[int], lengths: Sequence[int]) -> float:
    """How many times as long, or as short, as all that was seen requests of these lengths are on average; at least 1."""
    mean = sum(lengths) / len(lengths)
    return max(1.0, mean / max(*seen, 1), min(seen) / max(mean, 1))
