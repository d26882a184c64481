"""A process of its own that writes events to the instance in DAGSTER_HOME: ``python -m ... write N`` or ``fork``."""

from __future__ import annotations

import os
import sys
from itertools import count

import dagster as dg

from llmbatch_assets_tests.event_history import MATERIALIZATION, event

BATCH = 50
RUN = "run-of-all"


def write(storage: dg.DagsterInstance, name: str, batches: int) -> None:
    """Store batches of one materialization per partition, ``<name>-<number>``."""
    for batch in range(batches) if batches else count():
        numbers = range(batch * BATCH, (batch + 1) * BATCH)
        storage.event_log_storage.store_event_batch(
            [event(MATERIALIZATION, RUN, number, f"{name}-{number}") for number in numbers]
        )
        print(batch, flush=True)  # noqa: T201


def fork_between(storage: dg.DagsterInstance) -> None:
    """Parent and child write in turn, on one storage that was open before they parted."""
    write(storage, "before", 1)
    child = os.fork()
    if child == 0:
        write(storage, "child", 2)
        storage.dispose()
        os._exit(0)
    write(storage, "parent", 2)
    assert os.waitpid(child, 0)[1] == 0
    write(storage, "after", 1)


if __name__ == "__main__":
    with dg.DagsterInstance.get() as instance:
        if sys.argv[1] == "fork":
            fork_between(instance)
        else:
            write(instance, sys.argv[1], int(sys.argv[2]))
