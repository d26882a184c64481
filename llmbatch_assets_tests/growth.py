"""Check that the time for something grows in proportion to its size, and not with its square."""

from __future__ import annotations

import time
from collections.abc import Callable

FACTOR = 4
# A linear time grows by FACTOR, a quadratic one by its square.
MOST = 9
# Shorter times say nothing.
LEAST_SEC = 0.01


def assert_linear(work_of_size: Callable[[int], Callable[[], object]], size: int) -> None:
    """Fail if work of four times the size takes much more than four times as long."""
    small, large = (_seconds(work_of_size(one)) for one in (size, FACTOR * size))
    assert large < MOST * max(small, LEAST_SEC), f"{small:.3f} s for {size}, {large:.3f} s for {FACTOR * size}"


def _seconds(work: Callable[[], object]) -> float:
    """The CPU time of the fastest of three tries, which other processes barely affect."""
    times = []
    for _ in range(3):
        begun = time.process_time()
        work()
        times.append(time.process_time() - begun)
    return min(times)
