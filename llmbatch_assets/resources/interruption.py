"""Signals that end a run, taken between two steps of the event loop and not in the middle of one."""

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import dagster as dg
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._utils.interrupts import capture_interrupts, pop_captured_interrupt

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
    """Let a signal that comes during the block wait for its end; it then ends the run as one does in Dagster."""
    with capture_interrupts():
        yield
        interrupted = pop_captured_interrupt()
    if interrupted:
        raise DagsterExecutionInterruptedError


def cancel(context: dg.OpExecutionContext | dg.AssetExecutionContext) -> NoReturn:
    """End the run as CANCELED. Ended as FAILURE, it would show every partition that it did not reach as failed."""
    context.instance.report_run_canceling(context.run)
    raise DagsterExecutionInterruptedError
