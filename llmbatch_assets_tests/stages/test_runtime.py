"""Signals leave calls in flight a moment, and garbage is looked for seldom while items are worked on."""

import asyncio
import contextlib
import gc
import os
import signal
import sys

import pytest

from llmbatch_assets.errors import RunInterruptedError
from llmbatch_assets.stages.runtime import GRACE_SEC, YOUNG_OBJECTS, interruptible, rare_collections
from llmbatch_assets_tests.engine.fakes import run

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")


@posix_only
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("signals", "work_sec", "ends_after", "finished"),
    [
        # Work that ends in time is not cut short, and the signal is still reported.
        (1, GRACE_SEC - 1, GRACE_SEC - 1, [True]),
        (1, GRACE_SEC + 100, GRACE_SEC, []),
        (2, GRACE_SEC - 1, 0.0, []),
    ],
)
def test_a_signal_gives_work_a_moment_and_a_second_one_none(
    number: int, signals: int, work_sec: float, ends_after: float, finished: list[bool]
) -> None:
    told, ended = list[str](), list[bool]()

    async def work() -> float:
        clock = asyncio.get_running_loop().time
        began = clock()
        with pytest.raises(RunInterruptedError) as raised, interruptible(lambda: told.append("once")) as stopped:  # noqa: PT012  # all of it is the block
            for _ in range(signals):
                os.kill(os.getpid(), number)
                await asyncio.sleep(0)
            await stopped.wait()
            await asyncio.sleep(work_sec)
            ended.append(True)
        assert raised.value.signal_number == number
        return clock() - began

    before = signal.getsignal(number)
    assert run(work) == pytest.approx(ends_after, abs=0.01)
    assert (told, ended) == (["once"], finished)
    assert signal.getsignal(number) is before


@posix_only
def test_a_block_without_a_signal_ends_as_ever() -> None:
    async def work() -> str:
        with interruptible() as stopped:
            return "done" if not stopped.is_set() else "stopped"

    assert run(work) == "done"


def test_what_was_there_is_not_gone_through_and_all_is_as_before_afterwards() -> None:
    before = gc.get_threshold()
    with contextlib.suppress(KeyboardInterrupt), rare_collections():
        assert gc.get_freeze_count() > 0
        assert gc.get_threshold()[0] == YOUNG_OBJECTS
        raise KeyboardInterrupt
    assert (gc.get_threshold(), gc.get_freeze_count()) == (before, 0)


def test_what_another_one_has_frozen_stays_frozen() -> None:
    gc.freeze()
    try:
        with rare_collections():
            pass
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()
