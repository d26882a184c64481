"""Medians of the runs of contenders, and the ratios of ours to the others."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.contenders import OURS
from benchmarks.processes import Taken

Result = dict[str, Any]


def ratios_to_others(told: Mapping[str, Result]) -> dict[str, float]:
    """Our time and CPU time divided by those of each other contender."""
    mine = told[OURS]
    return {
        f"{what}_of_{name}": ratio(mine[key], other[key])
        for name, other in told.items()
        if name != OURS
        for what, key in (("seconds", "seconds"), ("cpu", "cpu_sec"), ("again", "again_sec"))
        if key in other
    }


def median(figures: Iterable[float]) -> float:
    """The median, rounded as the results are."""
    return round(statistics.median(figures), 2)


def spread(figures: Sequence[float]) -> list[float]:
    """The lowest and the highest figure."""
    return [round(min(figures), 2), round(max(figures), 2)]


def ratio(ours_took: float, other_took: float) -> float:
    """One figure divided by another."""
    return round(ours_took / other_took, 2)


def summary(runs: Sequence[Taken], items: int = 0) -> Result:
    """Medians and spreads of some runs."""
    seconds = [one.seconds for one in runs]
    cpu = statistics.median(one.cpu_seconds for one in runs)
    return {
        "rounds": len(runs),
        "seconds": median(seconds),
        "seconds_spread": spread(seconds),
        "cpu_sec": round(cpu, 2),
        **({"cpu_ms_per_item": round(cpu / items * 1000, 3)} if items else {}),
        "peak_mb": round(max(one.peak_mb for one in runs)),
        "peak_pss_mb": round(max(one.peak_pss_mb for one in runs)),
    }
