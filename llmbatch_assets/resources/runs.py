"""Dagster runs: their log and their process. Runs whose process is gone are closed; Dagster would never do so."""

import logging
import multiprocessing
import os
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

import dagster as dg
import psutil
from dagster._core.errors import DagsterExecutionInterruptedError

from llmbatch_assets.domain.text import counted, visible
from llmbatch_assets.errors import LlmBatchError
from llmbatch_assets.resources.instance import translating_storage_errors
from llmbatch_assets.stages.generate.progress import AttemptLog, LogReporter, Reporter
from llmbatch_assets.stages.project import Batch
from llmbatch_assets.stages.runtime import naming_disk_errors

# Dagster's pages do not show tags with this prefix.
_HOST, _PROCESS = ".dagster/llmbatch_host", ".dagster/llmbatch_process"
# The same tags of runs of earlier versions.
_EARLIER = {_HOST: "llmbatch/host", _PROCESS: "llmbatch/process"}
_OPEN = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]

# A line of Dagster's log is a row of its database: at most one per second, and at least one in five minutes.
DAGSTER_PAUSE_SEC = 1.0
DAGSTER_SILENCE_SEC = 300.0
# Maximum number of failed attempts with the same problem in the run's log.
DAGSTER_ATTEMPTS = 10

# Maximum number of warnings in the run's log.
DAGSTER_WARNINGS = 100
_OUR_LOGGER = "llmbatch_assets"

# Makes the observer of a run from the run's context and batch.
ReporterFactory = Callable[[dg.OpExecutionContext | dg.AssetExecutionContext, Batch], Reporter]


def dagster_reporter(context: dg.OpExecutionContext | dg.AssetExecutionContext, batch: Batch) -> LogReporter:
    """Return a reporter that writes to Dagster's log, at a rate that the log can take."""
    log, warn = (translating_storage_errors()(write) for write in (context.log.info, context.log.warning))
    # Failed items have their own error line, with their event.
    attempts = AttemptLog(retried=warn, limit=DAGSTER_ATTEMPTS)
    verbose = batch.parameters.cache.verbose
    return LogReporter(log, verbose, pause=DAGSTER_PAUSE_SEC, silence=DAGSTER_SILENCE_SEC, attempts=attempts)


class _ForwardedWarnings(logging.Handler):
    """Writes our warnings to Dagster's log. Warnings from other threads are written with the next one or at the end."""

    def __init__(self, write: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._write = write
        self._thread = threading.get_ident()
        self._waiting: deque[str] = deque()
        self._n_written = 0

    def emit(self, record: logging.LogRecord) -> None:
        self._waiting.append(visible(record.getMessage()))
        if threading.get_ident() == self._thread:
            self.write_waiting()

    def write_waiting(self) -> None:
        while self._waiting:
            line = self._waiting.popleft()
            self._n_written += 1
            if self._n_written <= DAGSTER_WARNINGS:
                self._write(line)

    def write_rest(self) -> None:
        """Write the remaining warnings, and the number of those above the limit."""
        self.write_waiting()
        if (more := self._n_written - DAGSTER_WARNINGS) > 0:
            self._write(f"... and {counted(more, 'more warning')} in the log of the process")


@contextmanager
def forwarding_warnings(context: dg.OpExecutionContext | dg.AssetExecutionContext) -> Iterator[None]:
    """Also write the warnings of the layers below Dagster to the run's log, such as those about broken artifacts."""
    handler = _ForwardedWarnings(translating_storage_errors()(context.log.warning))
    logger = logging.getLogger(_OUR_LOGGER)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
    handler.write_rest()


def process_tags(run_id: str) -> dict[str, str]:
    """Return the tags that identify the process of this run, so that a later run can see whether it is alive."""
    return {_HOST: socket.gethostname(), _PROCESS: f"{_own_process()}-{run_id}"}


def close_orphans(instance: dg.DagsterInstance) -> list[str]:
    """Close the runs whose process on this machine is gone. Returns their ids.

    They end as CANCELED: as FAILURE, they would show every partition that they did not reach as failed.
    """
    here = socket.gethostname()
    filters = [dg.RunsFilter(statuses=_OPEN, tags={tag: here}) for tag in (_HOST, _EARLIER[_HOST])]
    dead = [run for mine in filters for run in instance.get_runs(filters=mine) if _is_gone(run)]
    for run in dead:
        instance.report_run_canceled(run, message="The process of this run is gone; accepted outputs are kept.")
    return [run.run_id for run in dead]


def cancel(context: dg.OpExecutionContext | dg.AssetExecutionContext, message: str) -> NoReturn:
    """End the run as CANCELED. As FAILURE, it would show every partition that it did not reach as failed."""
    context.instance.report_run_canceling(context.run)
    raise DagsterExecutionInterruptedError(message) from None


@contextmanager
def failing_with_message() -> Iterator[None]:
    """Turn our own errors and file errors into ``Failure``: Dagster shows its message first, but wraps other errors.

    The original error is the ``__context__`` of the failure.
    """
    try:
        with naming_disk_errors():
            yield
    except LlmBatchError as error:
        raise dg.Failure(visible(str(error)), allow_retries=False) from None


def _own_process() -> str:
    # A step may run in a child process that ends before the run does; then its parent is the run's process.
    parent = multiprocessing.parent_process()
    pid = os.getpid() if parent is None or parent.pid is None else parent.pid
    # The start time distinguishes it from a later process with the same id.
    return f"{pid}-{psutil.Process(pid).create_time():.2f}"


def _is_gone(run: dg.DagsterRun) -> bool:
    # Dagster copies tags when a run is launched again; tags with another run's id say nothing about this one.
    tag = run.tags.get(_PROCESS) or run.tags.get(_EARLIER[_PROCESS], "")
    process, signed, _ = tag.partition(f"-{run.run_id}")
    return bool(signed) and not _is_alive(process)


def _is_alive(process: str) -> bool:
    pid, _, began = process.partition("-")
    try:
        return f"{psutil.Process(int(pid)).create_time():.2f}" == began
    except (psutil.NoSuchProcess, ValueError):
        return False
    except psutil.AccessDenied:
        return True
