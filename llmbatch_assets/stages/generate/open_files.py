"""The limit on open files of a process: each call in flight needs a connection, and each answer a file."""

import sys
from pathlib import Path

from llmbatch_assets.errors import RunPermanentError, StopCause

if sys.platform != "win32":
    import resource

# For artifacts that are read and written, Dagster's databases and look-ups of host names.
RESERVED_FILES = 96
# macOS reports an infinite hard limit and refuses more than this.
_MACOS_LIMIT = 10_240


def possible_workers(max_workers: int, connections_per_worker: int) -> int:
    """Return how many workers can have open connections at once, after raising the limit as far as allowed.
    Raises ``RunPermanentError`` if there is not even room for one, since its answer could not be written.
    """
    if sys.platform == "win32":
        return max_workers
    used = _open_files() + RESERVED_FILES
    needed = used + max_workers * connections_per_worker
    limit = _raise_limit(needed)
    if limit >= needed:
        return max_workers
    workers = (limit - used) // connections_per_worker
    if workers < 1:
        raise RunPermanentError(
            StopCause.OPEN_FILES,
            f"this process may open {limit} files, and a run needs at least {used + connections_per_worker}; raise the limit, "
            f"e.g. with ulimit -n 4096. No call was made.",
        )
    return workers


def limit_warning(max_workers: int, workers: int) -> str:
    """Return a line about workers that do not fit into the limit on open files, else ""."""
    if workers >= max_workers:
        return ""
    return (
        f"{max_workers} workers were requested, but the limit on open files allows only {workers} calls at once; "
        "raise it, e.g. with ulimit -n 4096"
    )


def _open_files() -> int:
    """Return the number of this process's open files, on any POSIX system."""
    return sum(1 for _ in Path("/dev/fd").iterdir())


def _raise_limit(needed: int) -> int:
    """Raise the soft limit on open files if it is lower than ``needed``; return the limit in force."""
    assert sys.platform != "win32"
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return needed
    highest = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    for wanted in (highest, min(highest, _MACOS_LIMIT)):
        if soft >= wanted:
            break
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (ValueError, OSError):
            continue
        return wanted
    return soft
