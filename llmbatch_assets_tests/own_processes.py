"""Processes that this one has started."""

import time
from types import ModuleType

import psutil


def running(module: ModuleType) -> list[psutil.Process]:
    """Those that run a module."""
    return [one for one in psutil.Process().children() if module.__name__ in _command(one)]


def _command(process: psutil.Process) -> str:
    # It has none for a moment, when it has just been started.
    while not (words := process.cmdline()):
        time.sleep(0.001)
    return " ".join(words)
