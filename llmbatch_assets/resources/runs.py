"""Runs whose process is gone. Dagster shows them as running for ever, and their partitions with them."""

import multiprocessing
import os
import socket
from typing import NoReturn

import dagster as dg
import psutil
from dagster._core.errors import DagsterExecutionInterruptedError

_HOST, _PROCESS = "llmbatch/host", "llmbatch/process"
_OPEN = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]


def sign_run(context: dg.OpExecutionContext | dg.AssetExecutionContext) -> None:
    """Write down which process a run is, so that a later one can tell whether it is still there."""
    context.instance.add_run_tags(context.run.run_id, process_tags(context.run.run_id))


def process_tags(run_id: str) -> dict[str, str]:
    """The signature of the process that this run stands and falls with."""
    return {_HOST: socket.gethostname(), _PROCESS: f"{_own_process()}-{run_id}"}


def close_orphans(instance: dg.DagsterInstance) -> list[str]:
    """Close the runs that were signed by a process of this machine that is no more; gives their ids.

    They end as CANCELED: as FAILURE, they would show every partition that they did not reach as failed.
    """
    mine = dg.RunsFilter(statuses=_OPEN, tags={_HOST: socket.gethostname()})
    dead = [run for run in instance.get_runs(filters=mine) if _is_gone(run)]
    for run in dead:
        instance.report_run_canceled(run, message="The process of this run is gone; what it accepted is kept.")
    return [run.run_id for run in dead]


def cancel(context: dg.OpExecutionContext | dg.AssetExecutionContext) -> NoReturn:
    """End the run as CANCELED. Ended as FAILURE, it would show every partition that it did not reach as failed."""
    context.instance.report_run_canceling(context.run)
    raise DagsterExecutionInterruptedError


def _own_process() -> str:
    # A step may have a process of its own, which ends before its run does: the one that started it counts.
    parent = multiprocessing.parent_process()
    pid = os.getpid() if parent is None or parent.pid is None else parent.pid
    # The time tells it from a later process with the same number.
    return f"{pid}-{psutil.Process(pid).create_time():.2f}"


def _is_gone(run: dg.DagsterRun) -> bool:
    # Dagster copies tags when a run is launched again: the signature of another run says nothing about this one.
    process, signed, _ = run.tags.get(_PROCESS, "").partition(f"-{run.run_id}")
    return bool(signed) and not _is_alive(process)


def _is_alive(process: str) -> bool:
    pid, _, began = process.partition("-")
    try:
        return f"{psutil.Process(int(pid)).create_time():.2f}" == began
    except (psutil.NoSuchProcess, ValueError):
        return False
    except psutil.AccessDenied:
        return True
