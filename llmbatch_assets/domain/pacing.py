"""How the calls of a run were held back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class PacingFacts(NamedTuple):
    """Calls that were let through, refusals for too many of them, and what came of these."""

    calls: int = 0
    rate_limited: int = 0
    cool_downs: int = 0
    lowest_concurrency: int = 0
    seconds_waited: float = 0.0


def together(facts: Sequence[PacingFacts]) -> PacingFacts:
    """The facts of several servers as one."""
    if not facts:
        return PacingFacts()
    calls, rate_limited, cool_downs, lowest, waited = zip(*facts, strict=True)
    return PacingFacts(sum(calls), sum(rate_limited), sum(cool_downs), min(lowest), round(sum(waited), 2))
