"""Daemons of Dagster on one instance. Two of them take each other's runs, and fail those of other code locations."""

import time
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import psutil
from dagster._core.storage.runs import SqliteRunStorage
from dagster._daemon.controller import DEFAULT_HEARTBEAT_INTERVAL_SECONDS

# `dagster dev` and `dagster-daemon run` start the daemon with these words.
_COMMANDS = (("-m", "dagster._daemon", "run"), ("dagster-daemon", "run"))
# A daemon that was told to end gets this long, so that a restart right after Ctrl-C is not refused.
ENDING_SEC = 5.0
# A busy daemon writes its heartbeats this much later than it should.
LATE_SEC = 5.0
_POLL_SEC = 0.5


def running_daemon(home: Path) -> int | None:
    """Return the process id of a daemon on the instance in ``home``; None if this user runs none on this machine.

    Heartbeats are not enough: those of a daemon that has just ended look as fresh as those of a running one.
    """
    daemons = [process for process in psutil.process_iter() if _is_daemon(process, home)]
    _, alive = psutil.wait_procs(daemons, timeout=ENDING_SEC)
    return alive[0].pid if alive else None


def daemon_elsewhere(
    instance: dg.DagsterInstance, report: Callable[[str], None], interval: float = DEFAULT_HEARTBEAT_INTERVAL_SECONDS
) -> bool:
    """Whether a daemon on another machine uses the instance's database, which only a new heartbeat proves.

    Waits for one only if the last is recent, and says so. Files of SQLite are used by one machine.
    """
    if isinstance(instance.run_storage, SqliteRunStorage) or (last := _last_heartbeat(instance)) is None:
        return False
    # The other machine's clock may be ahead.
    until = min(last, time.time()) + interval + LATE_SEC
    if time.time() < until:
        report(
            f"waiting up to {until - time.time():.0f} s to see whether a Dagster daemon on another machine is running"
        )
    while time.time() < until:
        if _last_heartbeat(instance) != last:
            return True
        time.sleep(_POLL_SEC)
    return False


def _last_heartbeat(instance: dg.DagsterInstance) -> float | None:
    return max((beat.timestamp for beat in instance.get_daemon_heartbeats().values()), default=None)


def _is_daemon(process: psutil.Process, home: Path) -> bool:
    try:
        # Command lines and environments of other users' processes are not readable.
        if process.username() != psutil.Process().username() or not _runs_daemon(process.cmdline()):
            return False
        theirs = process.environ().get("DAGSTER_HOME")
        return process.status() != psutil.STATUS_ZOMBIE and bool(theirs) and Path(str(theirs)).resolve() == home
    except (psutil.Error, OSError):
        return False


def _runs_daemon(words: list[str]) -> bool:
    stems = [Path(word).stem if Path(word).stem == "dagster-daemon" else word for word in words]
    return any(tuple(stems[at : at + len(command)]) == command for command in _COMMANDS for at in range(len(stems)))
