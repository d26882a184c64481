"""Measure a command: wall time, processor time and peak memory of it and everything that it starts."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import psutil

SAMPLE_SEC = 0.1


class Taken(NamedTuple):
    """One run of a command. ``peak_mb`` is sampled, over the whole tree of processes."""

    seconds: float
    cpu_seconds: float
    peak_mb: float
    exit_code: int


def timed(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Taken:
    """Run a command to its end; what it prints is kept in ``last_run.log`` of the folder."""
    with (folder / "last_run.log").open("wb") as log:
        started = time.perf_counter()
        process = subprocess.Popen(command, cwd=folder, env=dict(environment), stdout=log, stderr=log)
        ended, peak = threading.Event(), [0]
        sampler = threading.Thread(target=_sample, args=(process.pid, ended, peak))
        sampler.start()
        # The processor time of the command and of all children that it has waited for.
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        ended.set()
        sampler.join()
    mb = max(peak[0] / 2**20, usage.ru_maxrss / 1024)
    return Taken(seconds, usage.ru_utime + usage.ru_stime, mb, process.returncode)


def _sample(pid: int, ended: threading.Event, peak: list[int]) -> None:
    while not ended.wait(SAMPLE_SEC):
        with contextlib.suppress(psutil.Error):
            root = psutil.Process(pid)
            peak[0] = max(peak[0], sum(_rss(one) for one in (root, *root.children(recursive=True))))


def _rss(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0
