"""A process that stores events for another one, whose event loop is then not held up by it.

It reads groups of events from its input and answers each.
"""

from __future__ import annotations

import contextlib
import gc
import os
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import dagster as dg
from dagster._core.instance.ref import InstanceRef
from dagster._serdes import deserialize_value, serialize_value

from llmbatch_assets.adapters.files.pipe import PipeEndedError, child_command, pack_frame, read_frame
from llmbatch_assets.resources.events.item_events import ItemEvent, Teller

# A storage that is slower than the calls holds them up from here on: whoever ends the run waits for what is left, which
# may be some seconds with Dagster's own SQLite storage.
GROUPS_BEHIND = 12


class NotStoredError(Exception):
    """The process could not store a group."""


class _Sent(NamedTuple):
    group: Sequence[ItemEvent]
    answer: Future[None]


class EventProcess:
    """Stores groups of events in the order in which they come.

    What it cannot store is stored by ``store_here``, which says what is wrong by raising.
    """

    def __init__(
        self, instance: InstanceRef, teller: Teller, store_here: Callable[[Sequence[ItemEvent]], None]
    ) -> None:
        self._store_here = store_here
        self._sent = deque[_Sent]()
        self._process = subprocess.Popen(
            child_command(__name__),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # A signal from the terminal is not for it.
            start_new_session=True,
        )
        # It waits for the process, so that nobody else does.
        self._thread = ThreadPoolExecutor(1, "events")
        self._thread.submit(self._write, (serialize_value(instance), teller))

    def close(self) -> None:
        """Wait until everything is stored, and end the process."""
        try:
            self._settle(0)
        finally:
            self._thread.shutdown()
            with contextlib.suppress(BrokenPipeError):
                self._process.communicate()

    def store(self, group: Sequence[ItemEvent]) -> None:
        """Have a group stored. What raises is about groups of before; this one was then not taken."""
        self._settle(GROUPS_BEHIND)
        self._sent.append(_Sent(group, self._thread.submit(self._exchange, group)))

    def _settle(self, most: int) -> None:
        while self._sent and (len(self._sent) > most or self._sent[0].answer.done()):
            group, answer = self._sent[0]
            if answer.exception() is not None:
                self._store_here(group)
            self._sent.popleft()

    def _write(self, value: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(pack_frame(value))
        self._process.stdin.flush()

    def _exchange(self, group: Sequence[ItemEvent]) -> None:
        self._write(group)
        assert self._process.stdout is not None
        fault = read_frame(self._process.stdout)
        if fault is not None:
            raise NotStoredError(fault)


def main() -> None:
    """Store groups until the input ends, as it does when the other process does."""
    pipe_in, pipe_out = sys.stdin.buffer, os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    # What a storage prints is not an answer.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    with contextlib.suppress(PipeEndedError, BrokenPipeError):
        instance_ref, teller = read_frame(pipe_in)
        with dg.DagsterInstance.from_ref(deserialize_value(instance_ref, InstanceRef)) as instance:
            while True:
                pipe_out.write(pack_frame(_fault_of_storing(instance, teller, read_frame(pipe_in))))
    # Python would look for garbage once more before it ends, and the other process waits for that.
    gc.freeze()


def _fault_of_storing(instance: dg.DagsterInstance, teller: Teller, group: Sequence[ItemEvent]) -> str | None:
    try:
        store_events(instance, teller, group)
    except Exception as fault:  # noqa: BLE001  # of any storage
        # Whatever it is, the other process meets it, too, and tells.
        return str(fault)
    return None


def store_events(instance: dg.DagsterInstance, teller: Teller, group: Sequence[ItemEvent]) -> None:
    """Store events, in this process."""
    instance.event_log_storage.store_event_batch([event.entry(teller) for event in group])
