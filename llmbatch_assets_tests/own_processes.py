"""Processes that others have started."""

from __future__ import annotations

import time
from types import ModuleType

import psutil


def running(module: ModuleType, of: int | None = None) -> list[psutil.Process]:
    """Those of this process, or of the one with the number ``of``, that run a module; their own children count, too."""
    return [one for one in psutil.Process(of).children(recursive=True) if module.__name__ in _command(one)]


def _command(process: psutil.Process) -> str:
    try:
        # It has none for a moment, when it has just been started.
        while not (words := process.cmdline()):
            time.sleep(0.001)
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""
    return " ".join(words)
