"""Processes that use an instance: ``python -m ... NAME N`` writes events, ``... fork`` too, ``... race HOME`` opens it."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable
from itertools import count

import dagster as dg

from llmbatch_assets_tests.event_history import MATERIALIZATION, event

BATCH = 50
RUN = "run-of-all"
RACERS = 4
RACED = [f"red-{number}" for number in range(1000)]


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


def race(home: str) -> None:
    """Several processes open an instance that is not there yet, all at once, and register the same partitions."""
    # Dagster is imported already, so that they all arrive at the same moment.
    forking = multiprocessing.get_context("fork")
    start = forking.Barrier(RACERS)
    racers = [forking.Process(target=_open_and_register, args=(home, start.wait)) for _ in range(RACERS)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    sys.exit(sum(racer.exitcode != 0 for racer in racers))


def _open_and_register(home: str, start: Callable[[float], object]) -> None:
    start(30)
    with dg.DagsterInstance.from_config(home) as opened:
        start(30)
        opened.add_dynamic_partitions("work_items", RACED)


if __name__ == "__main__":
    if sys.argv[1] == "race":
        race(sys.argv[2])
    with dg.DagsterInstance.get() as instance:
        if sys.argv[1] == "fork":
            fork_between(instance)
        else:
            write(instance, sys.argv[1], int(sys.argv[2]))
