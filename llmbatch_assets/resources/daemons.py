"""Daemons of Dagster on this machine. Two on one instance take each other's runs, and fail those of other code locations."""

import os
from pathlib import Path

import psutil

# `dagster dev` and `dagster-daemon run` start the daemon with these words.
_COMMANDS = (("-m", "dagster._daemon", "run"), ("dagster-daemon", "run"))


def running_daemon(home: Path) -> int | None:
    """Return the process id of a daemon on the instance in ``home``; None if this user runs none.

    Heartbeats would not do: those of a daemon that has just ended look as fresh as those of a running one.
    """
    return next((process.pid for process in psutil.process_iter() if _is_daemon(process, home)), None)


def _is_daemon(process: psutil.Process, home: Path) -> bool:
    try:
        if process.uids().real != os.getuid() or not _runs_daemon(process.cmdline()):
            return False
        theirs = process.environ().get("DAGSTER_HOME")
        return process.status() != psutil.STATUS_ZOMBIE and bool(theirs) and Path(str(theirs)).resolve() == home
    except (psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied, OSError):
        return False


def _runs_daemon(words: list[str]) -> bool:
    named = [Path(word).name if word.endswith("dagster-daemon") else word for word in words]
    return any(tuple(named[at : at + len(command)]) == command for command in _COMMANDS for at in range(len(named)))
