"""Runs whose process is gone. Dagster shows them as running for ever, and their partitions with them."""

import os
import socket

import dagster as dg
import psutil

_HOST, _PROCESS = "llmbatch/host", "llmbatch/process"
_OPEN = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]


def sign_run(context: dg.OpExecutionContext | dg.AssetExecutionContext) -> None:
    """Write down which process a run is, so that a later one can tell whether it is still there."""
    context.instance.add_run_tags(context.run.run_id, process_tags())


def process_tags() -> dict[str, str]:
    """The signature of this process."""
    return {_HOST: socket.gethostname(), _PROCESS: _own_process()}


def close_orphans(instance: dg.DagsterInstance) -> list[str]:
    """Close the runs that were signed by a process of this machine that is no more; gives their ids.

    They end as CANCELED: as FAILURE, they would show every partition that they did not reach as failed.
    """
    mine = dg.RunsFilter(statuses=_OPEN, tags={_HOST: socket.gethostname()})
    dead = [run for run in instance.get_runs(filters=mine) if not _is_alive(run.tags.get(_PROCESS, ""))]
    for run in dead:
        instance.report_run_canceled(run, message="The process of this run is gone; what it accepted is kept.")
    return [run.run_id for run in dead]


def _own_process() -> str:
    # The time tells it from a later process with the same number.
    return f"{os.getpid()}-{psutil.Process().create_time():.2f}"


def _is_alive(process: str) -> bool:
    pid, _, began = process.partition("-")
    try:
        return f"{psutil.Process(int(pid)).create_time():.2f}" == began
    except (psutil.NoSuchProcess, ValueError):
        return False
    except psutil.AccessDenied:
        return True
