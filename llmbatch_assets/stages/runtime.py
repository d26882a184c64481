"""The process of a run: its clock, its disk, its signals and its garbage collector."""

import asyncio
import errno
import gc
import signal
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from llmbatch_assets.errors import RunInterruptedError, RunPermanentError, StopCause

SIGNALS = (signal.SIGINT, signal.SIGTERM)

# Calls in flight get this many seconds after a signal. Kubernetes kills a process after 30 s, Docker after 10 s.
GRACE_SEC = 5.0

# An item leaves a few hundred objects in reference cycles; Python's default of 700 would collect every few items.
YOUNG_OBJECTS = 20_000
# Reading outputs and writing tables leaves none.
YOUNG_OBJECTS_OF_TABLES = 1_000_000


def new_run_id() -> str:
    """Return an id for a run outside Dagster."""
    return str(uuid.uuid4())


def utc_now() -> str:
    """Return the time of day as artifacts record it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


# The disk or the user's quota is full, or the file exceeds the size that the process may write.
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def naming_disk_errors() -> Iterator[None]:
    """Raise ``RunPermanentError`` with the cause ``disk`` and the file's path if a file cannot be written or read."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            path = error.filename or f"a temporary file in {tempfile.gettempdir()}"
            message = f"{path} cannot be written: {error.strerror} (disk); free some space and run again"
        elif error.filename and error.strerror:
            message = f"{error.filename} cannot be used: {error.strerror} (disk)"
        else:
            raise
        raise RunPermanentError(StopCause.DISK, message) from error


@contextmanager
def rare_collections(young_objects: int = YOUNG_OBJECTS) -> Iterator[None]:
    """Collect garbage rarely in this block, after so many new objects, and never among objects from before it.

    Dagster and its libraries hold half a million permanent objects; scanning them again and again took a fifth of the
    processor time of a fast batch.
    """
    thresholds, frozen_before = gc.get_threshold(), gc.get_freeze_count()
    gc.freeze()
    gc.set_threshold(young_objects, *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        if not frozen_before:
            gc.unfreeze()


@contextmanager
def interruptible(on_signal: Callable[[], None] = lambda: None) -> Iterator[asyncio.Event]:
    """End the block on SIGINT or SIGTERM, and raise ``RunInterruptedError`` at its end.

    The first signal sets the event that this yields, after which no call may begin, and calls ``on_signal``. The current
    task is cancelled ``GRACE_SEC`` later or by a second signal, so that calls in flight, which are paid for, can end.

    Signals are handled between two steps of the event loop. The previous handlers are restored afterwards; Dagster's raise
    wherever the program happens to be.
    """
    stopped, received = asyncio.Event(), list[int]()
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    timers = list[asyncio.TimerHandle]()

    def end(number: int) -> None:
        received.append(number)
        stopped.set()
        if len(received) == 1:
            timers.append(loop.call_later(GRACE_SEC, task.cancel))
            on_signal()
        else:
            task.cancel()

    before = _replace_handlers(loop, end)
    try:
        yield stopped
    except asyncio.CancelledError:
        if not received:
            raise
        task.uncancel()
    finally:
        for timer in timers:
            timer.cancel()
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)
    if received:
        raise RunInterruptedError(received[0])


def _replace_handlers(loop: asyncio.AbstractEventLoop, end: Callable[[int], None]) -> dict[signal.Signals, Any]:
    if threading.current_thread() is not threading.main_thread():
        return {}
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        for number in SIGNALS:
            loop.add_signal_handler(number, end, number)
    except NotImplementedError:
        # Event loops on Windows have no signal handlers; Dagster's stay in place there.
        return {}
    return before


@contextmanager
def holding_interrupts() -> Iterator[None]:
    """Defer signals that arrive in the block to its end, then pass the first one to its handler."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received = list[int]()
    before = {number: signal.signal(number, lambda one, _frame: received.append(one)) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if received:
        signal.raise_signal(received[0])
