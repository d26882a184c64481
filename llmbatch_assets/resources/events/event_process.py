"""A child process that stores events, so that storing does not block the event loop of the calls.

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
from llmbatch_assets.resources.events.item_events import EventOrigin, ItemEvent, MaterializedEvent
from llmbatch_assets.resources.sqlite_storage import BatchingEventLogStorage

# With more groups waiting than this, a slow storage slows down the calls. The end of the run waits for the rest, which
# may take some seconds with Dagster's own SQLite storage.
GROUPS_BEHIND = 12


class _Sent(NamedTuple):
    group: Sequence[ItemEvent]
    # The error of storing the group, if any. The future itself fails if the child process has ended.
    answer: Future[str | None]


class EventProcess:
    """Stores groups of events in the order in which they are passed.

    Groups that the child process cannot store are stored by ``store_here``, which raises the error.
    """

    def __init__(
        self, instance: InstanceRef, origin: EventOrigin, store_here: Callable[[Sequence[ItemEvent]], None]
    ) -> None:
        self._store_here = store_here
        self._sent = deque[_Sent]()
        self._process = subprocess.Popen(
            child_command(__name__),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Signals from the terminal must not reach it.
            start_new_session=True,
        )
        # One thread waits for the child's answers, so that the event loop need not.
        self._thread = ThreadPoolExecutor(1, "events")
        self._thread.submit(self._write, (serialize_value(instance), origin))

    def close(self) -> None:
        """Wait until everything is stored, and end the child process."""
        try:
            self._await_answers(0)
        finally:
            self._thread.shutdown()
            with contextlib.suppress(BrokenPipeError):
                self._process.communicate()

    def store(self, group: Sequence[ItemEvent]) -> None:
        """Pass a group to the child process. Raises the error of an earlier group; this one is then not accepted."""
        self._await_answers(GROUPS_BEHIND)
        self._sent.append(_Sent(group, self._thread.submit(self._exchange, group)))

    def _await_answers(self, max_open: int) -> None:
        while self._sent and (len(self._sent) > max_open or self._sent[0].answer.done()):
            group, answer = self._sent[0]
            if answer.exception() or answer.result():
                self._store_here(group)
            self._sent.popleft()

    def _write(self, value: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(pack_frame(value))
        self._process.stdin.flush()

    def _exchange(self, group: Sequence[ItemEvent]) -> str | None:
        self._write(group)
        assert self._process.stdout is not None
        error: str | None = read_frame(self._process.stdout)
        return error


def main() -> None:
    """Store groups until the input ends, as it does when the parent process ends."""
    pipe_in, pipe_out = sys.stdin.buffer, os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    # Anything that a storage prints must not be mistaken for an answer.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    with contextlib.suppress(PipeEndedError, BrokenPipeError):
        instance_ref, origin = read_frame(pipe_in)
        with dg.DagsterInstance.from_ref(deserialize_value(instance_ref, InstanceRef)) as instance:
            while True:
                pipe_out.write(pack_frame(_error_of_storing(instance, origin, read_frame(pipe_in))))
    # Skip the garbage collection at exit; the parent process waits for this one.
    gc.freeze()


def _error_of_storing(instance: dg.DagsterInstance, origin: EventOrigin, group: Sequence[ItemEvent]) -> str | None:
    try:
        store_events(instance, origin, group)
    except Exception as error:  # noqa: BLE001  # of any storage
        # The parent process tries again, and raises the error if it occurs again.
        return repr(error)
    return None


def store_events(instance: dg.DagsterInstance, origin: EventOrigin, group: Sequence[ItemEvent]) -> None:
    """Store events from this process."""
    storage = instance.event_log_storage
    made = [event for event in group if isinstance(event, MaterializedEvent)]
    if made and len(made) == len(group) and isinstance(storage, BatchingEventLogStorage):
        storage.store_materializations(made[-1].entry(origin), [event.values(origin) for event in made])
    else:
        storage.store_event_batch([event.entry(origin) for event in group])
