"""Signals that end a run, taken between two steps of the event loop and not in the middle of one."""

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from llmbatch_assets.errors import RunInterruptedError

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def interruptible() -> Iterator[asyncio.Event]:
    """Cancel the current task on SIGINT or SIGTERM and raise ``RunInterruptedError`` from here.

    Gives an event that is set as soon as a signal has come. Whatever handled the signals before does so again
    afterwards: Dagster has its own handlers, which raise wherever the program happens to be.
    """
    stopped, received = asyncio.Event(), list[int]()
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None

    def end(number: int) -> None:
        received.append(number)
        stopped.set()
        task.cancel()

    before = _replace_handlers(loop, end)
    try:
        yield stopped
    except asyncio.CancelledError:
        if not received:
            raise
        task.uncancel()
        raise RunInterruptedError(received[0]) from None
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)


def _replace_handlers(loop: asyncio.AbstractEventLoop, end: Callable[[int], None]) -> dict[signal.Signals, Any]:
    if threading.current_thread() is not threading.main_thread():
        return {}
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        for number in SIGNALS:
            loop.add_signal_handler(number, end, number)
    except NotImplementedError:
        # Event loops on Windows have no signal handlers; Dagster's own stay in place there.
        return {}
    return before


@contextmanager
def holding_interrupts() -> Iterator[None]:
    """Defer a signal that arrives in the block until the block has ended; then its own handler receives it."""
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
