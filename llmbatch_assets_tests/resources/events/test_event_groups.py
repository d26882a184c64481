"""Events reach Dagster in groups, soon, and whole."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Sequence

import pytest
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.events.log import EventLogEntry

from llmbatch_assets.errors import RunPermanentError
from llmbatch_assets.resources.events.event_groups import EVENTS_AT_ONCE, LONGEST_WAIT, EventGroups
from llmbatch_assets_tests.event_history import MATERIALIZATION, event

Stored = list[list[EventLogEntry]]


def events(count: int) -> list[EventLogEntry]:
    return [event(MATERIALIZATION, "run", number, str(number)) for number in range(count)]


def stores_in(stored: Stored) -> Callable[[Sequence[EventLogEntry]], None]:
    return lambda batch: stored.append(list(batch))


def test_a_full_group_is_stored_at_once_and_the_rest_when_asked() -> None:
    stored: Stored = []
    groups, told = EventGroups(stores_in(stored)), events(2 * EVENTS_AT_ONCE + 1)
    for one in told:
        groups.add(one)
    assert [len(batch) for batch in stored] == [EVENTS_AT_ONCE, EVENTS_AT_ONCE]
    groups.flush()
    groups.flush()
    assert [one for batch in stored for one in batch] == told
    assert len(stored) == 3


def test_a_lone_event_waits_only_so_long_while_others_are_worked_on() -> None:
    stored, came = Stored(), asyncio.Event()

    def store(batch: Sequence[EventLogEntry]) -> None:
        stored.append(list(batch))
        came.set()

    groups, (first, second, third) = EventGroups(store), events(3)

    async def work() -> None:
        groups.add(first)
        groups.add(second)
        assert stored == []
        await asyncio.wait_for(came.wait(), 20 + LONGEST_WAIT)
        groups.add(third)

    asyncio.run(work())
    # The loop is over before the third one's time; the end of the run asks for it.
    assert stored == [[first, second]]
    groups.flush()
    assert stored == [[first, second], [third]]


def test_what_could_not_be_stored_is_stored_with_the_next_ones() -> None:
    stored, full = Stored(), True

    def store(batch: Sequence[EventLogEntry]) -> None:
        if full:
            raise OSError("no space left")
        stored.append(list(batch))

    groups, (first, second) = EventGroups(store), events(2)
    groups.add(first)
    with pytest.raises(OSError, match="no space"):
        groups.flush()
    full = False
    groups.add(second)
    groups.flush()
    assert stored == [[first, second]]


def test_a_storage_that_is_away_is_tried_once_while_calls_are_in_flight_and_again_at_the_end() -> None:
    stored, tries, tried, away = Stored(), list[int](), asyncio.Event(), True

    def store(batch: Sequence[EventLogEntry]) -> None:
        tries.append(len(batch))
        tried.set()
        if away:
            raise RunPermanentError("dagster_storage", "away")
        stored.append(list(batch))

    groups, told = EventGroups(store), events(EVENTS_AT_ONCE + 2)

    async def work() -> None:
        # Found out by the one that waited longest, and told to whoever comes next.
        groups.add(told[0])
        await asyncio.wait_for(tried.wait(), 20 + LONGEST_WAIT)
        for one in told[1:]:
            with pytest.raises(RunPermanentError, match="away"):
                groups.add(one)

    asyncio.run(work())
    assert tries == [1]
    away = False
    groups.flush()
    assert stored == [told]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_until_the_group_is_stored(number: signal.Signals) -> None:
    stored: Stored = []

    def store(batch: Sequence[EventLogEntry]) -> None:
        os.kill(os.getpid(), number)
        stored.append(list(batch))

    before = signal.getsignal(number)
    groups, told = EventGroups(store), events(3)
    for one in told:
        groups.add(one)
    try:
        with pytest.raises(DagsterExecutionInterruptedError):
            groups.flush()
    finally:
        signal.signal(number, before)
    assert stored == [told]
    groups.flush()
    assert len(stored) == 1
