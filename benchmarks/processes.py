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
    """One run of a command. Memory is sampled, over the whole tree of processes.

    ``peak_mb`` adds up resident memory (RSS), in which pages that processes share count once for each. ``peak_pss_mb`` is
    the proportional share (PSS) at the same moment, in which they count once; it is 0 where Linux does not tell.
    """

    seconds: float
    cpu_seconds: float
    peak_mb: float
    peak_pss_mb: float
    exit_code: int


class _Memory:
    """The peak of a tree of processes, in bytes."""

    def __init__(self) -> None:
        self.rss = self.pss = 0

    def sample(self, pid: int) -> None:
        with contextlib.suppress(psutil.Error):
            root = psutil.Process(pid)
            tree = [root, *root.children(recursive=True)]
            rss = sum(_rss(one) for one in tree)
            # Linux adds up the proportional share page by page, which takes too long for each sample.
            if rss > self.rss:
                self.rss, self.pss = rss, sum(_pss(one) for one in tree)


def timed(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Taken:
    """Run a command to its end; what it prints is kept in ``last_run.log`` of the folder."""
    with (folder / "last_run.log").open("wb") as log:
        started = time.perf_counter()
        process = subprocess.Popen(command, cwd=folder, env=dict(environment), stdout=log, stderr=log)
        ended, memory = threading.Event(), _Memory()
        sampler = threading.Thread(target=_sample, args=(process.pid, ended, memory))
        sampler.start()
        # The processor time of the command and of all children that it has waited for.
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        ended.set()
        sampler.join()
    mb = max(memory.rss / 2**20, usage.ru_maxrss / 1024)
    return Taken(seconds, usage.ru_utime + usage.ru_stime, mb, memory.pss / 2**20, process.returncode)


def _sample(pid: int, ended: threading.Event, memory: _Memory) -> None:
    while not ended.wait(SAMPLE_SEC):
        memory.sample(pid)


def _rss(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def _pss(process: psutil.Process) -> int:
    try:
        told = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in told.splitlines() if line.startswith("Pss:")), 0)
