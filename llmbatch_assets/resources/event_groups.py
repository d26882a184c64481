"""Events on their way to Dagster's storage, which takes many at once for little more than the price of one."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from llmbatch_assets.resources.interruption import holding_interrupts

# More would cost little less, and keep the event loop from its calls for longer.
EVENTS_AT_ONCE = 50
# An event is in Dagster at most so many seconds later, as long as the event loop turns.
LONGEST_WAIT = 0.5

Event = TypeVar("Event")


class EventGroups(Generic[Event]):
    """Collects events and stores them in groups. What could not be stored is kept and tried again with the next ones."""

    def __init__(self, store: Callable[[Sequence[Event]], None]) -> None:
        self._store_batch = store
        self._waiting: list[Event] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, event: Event) -> None:
        """Store an event with the next group."""
        self._waiting.append(event)
        if len(self._waiting) >= EVENTS_AT_ONCE:
            self.flush()
        elif self._timer is None and (loop := _running_loop()) is not None:
            self._timer = loop.call_later(LONGEST_WAIT, self.flush)

    def flush(self) -> None:
        """Store what is waiting. A signal that comes meanwhile is acted upon afterwards."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._waiting:
            return
        if _running_loop() is not None:
            # Signals are taken between two steps of the loop, and this is within one.
            self._store()
        else:
            with holding_interrupts():
                self._store()

    def _store(self) -> None:
        self._store_batch(self._waiting)
        self._waiting = []


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
