"""Events on their way to Dagster's storage, which takes many at once for little more than the price of one."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from llmbatch_assets.errors import LlmBatchError
from llmbatch_assets.stages.interruption import holding_interrupts

# More would cost little less, and keep the event loop from its calls for longer.
EVENTS_AT_ONCE = 50
# An event is in Dagster at most so many seconds later, as long as the event loop turns.
LONGEST_WAIT = 0.5

Event = TypeVar("Event")


class EventGroups(Generic[Event]):
    """Collects events and stores them in groups. What could not be stored is kept and tried again by ``flush``."""

    def __init__(self, store: Callable[[Sequence[Event]], None]) -> None:
        self._store_batch = store
        self._waiting: list[Event] = []
        self._timer: asyncio.TimerHandle | None = None
        self._fault: LlmBatchError | None = None

    def add(self, event: Event) -> None:
        """Store an event with the next group. Raises what is wrong with the storage; the event is kept even so."""
        self._waiting.append(event)
        # A storage that is away for a while takes its time to say so, and calls are in flight: one try is enough.
        if self._fault is None and len(self._waiting) >= EVENTS_AT_ONCE:
            self._try()
        elif self._fault is None and self._timer is None and (loop := _running_loop()) is not None:
            self._timer = loop.call_later(LONGEST_WAIT, self._try)
        if self._fault is not None:
            raise self._fault

    def _try(self) -> None:
        try:
            self.flush()
        except LlmBatchError as fault:
            self._fault = fault

    def flush(self) -> None:
        """Store what is waiting. A signal that comes meanwhile is acted upon afterwards."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._fault = None
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
