"""Group commit: files that are ready at about the same time are written and synced together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import NamedTuple

from llmbatch_assets.adapters.files.durable import FileWrite, write_group

# In larger groups, workers whose files are written first would wait too long for the rest.
FILES_PER_GROUP = 16
# The file system combines concurrent syncs.
SYNC_THREADS = 8


class _Waiting(NamedTuple):
    write: FileWrite
    done: asyncio.Future[None]


class GroupCommit:
    """Writes files as ``write_atomically`` does. Files that arrive while a group is being written form the next group."""

    def __init__(self) -> None:
        self._threads: ThreadPoolExecutor | None = None
        self._waiting = deque[_Waiting]()
        self._writing: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def in_groups(self) -> AsyncIterator[None]:
        """Write files in groups inside this block, and finish all writes at its end. Outside it, write each on its own."""
        with ThreadPoolExecutor(SYNC_THREADS, "sync") as self._threads:
            try:
                yield
            finally:
                try:
                    if self._writing is not None:
                        # Files of cancelled tasks may not have been written yet.
                        await asyncio.shield(self._writing)
                finally:
                    self._threads = self._writing = None

    async def write(self, write: FileWrite) -> None:
        """Replace the file; it is on disk on return.

        Raises ``OSError`` if this file cannot be written, whatever happens to the others of its group. A task that is
        cancelled meanwhile still gets the outcome of its file, so that it can report the file, and is cancelled at its
        next await.
        """
        if self._threads is None:
            (error,) = await asyncio.to_thread(write_group, [write])
            if error is not None:
                raise error
            return
        done = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(write, done))
        if self._writing is None or self._writing.done():
            # The task starts after this tick of the event loop, so that concurrent writes join the group.
            self._writing = asyncio.create_task(self._write_all(self._threads))
        try:
            await asyncio.shield(done)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            assert task is not None
            try:
                await done
            finally:
                task.cancel()

    async def _write_all(self, threads: ThreadPoolExecutor) -> None:
        while self._waiting:
            group = [self._waiting.popleft() for _ in range(min(FILES_PER_GROUP, len(self._waiting)))]
            errors: list[OSError | None] | list[Exception]
            try:
                errors = await asyncio.to_thread(write_group, [one.write for one in group], threads)
            except Exception as error:  # noqa: BLE001  # whatever it is, nobody may wait for these files forever
                errors = [error] * len(group)
            except BaseException:
                # The event loop is closing: it waits for all tasks, and so for those that wait here.
                for one in (*group, *self._waiting):
                    one.done.cancel()
                self._waiting.clear()
                raise
            _settle(group, errors)


def _settle(group: list[_Waiting], errors: list[OSError | None] | list[Exception]) -> None:
    for one, error in zip(group, errors, strict=True):
        if one.done.done():
            # Its task was cancelled.
            continue
        if error is None:
            one.done.set_result(None)
        else:
            one.done.set_exception(error)
