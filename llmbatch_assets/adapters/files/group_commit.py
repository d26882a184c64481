"""Files that are made at about the same time, written together by a process of their own."""

from __future__ import annotations

import asyncio
import errno
import pickle
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

from llmbatch_assets.adapters.files import durable
from llmbatch_assets.adapters.files.durable import LENGTH, FileWrite, command_of, framed, write_group

# A larger group would have those wait that were written first, and their workers with them.
FILES_AT_ONCE = 16
# The next group is there when one has been written; how it went is read when the event loop comes to it.
GROUPS_AHEAD = 3


class _Waiting(NamedTuple):
    write: FileWrite
    done: asyncio.Future[None]


class GroupCommit:
    """Writes files as ``write_atomically`` does: what has come while groups were written is the next group."""

    def __init__(self) -> None:
        self._pipe: asyncio.StreamWriter | None = None
        self._waiting = deque[_Waiting]()
        self._sent = deque[list[_Waiting]]()
        self._ended = False

    @asynccontextmanager
    async def in_process(self) -> AsyncIterator[None]:
        """Write with a process of its own in this block, which has written everything at its end; else with a thread."""
        process = await asyncio.create_subprocess_exec(
            *command_of(durable.__name__),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            # A signal from the terminal is not for it.
            start_new_session=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        self._pipe, self._ended = process.stdin, False
        replies = asyncio.create_task(self._take_replies(process.stdout))
        try:
            yield
        finally:
            # Whoever waited may have been cancelled.
            self._send(at_most=len(self._sent) + len(self._waiting))
            self._pipe = None
            process.stdin.close()
            await process.wait()
            await replies

    async def write(self, write: FileWrite) -> None:
        """Replace the file; on return it is on disk.

        Raises ``OSError`` where this file cannot be written, whatever becomes of the others of its group. A task that is
        cancelled meanwhile gets the file's outcome first and ends where it waits next: what is on disk can so be told of.
        """
        loop = asyncio.get_running_loop()
        if self._pipe is None:
            (fault,) = await asyncio.to_thread(write_group, [write])
            if fault is not None:
                raise fault
            return
        done = loop.create_future()
        self._waiting.append(_Waiting(write, done))
        if self._ended:
            self._give_up()
        elif len(self._waiting) == 1:
            # After what else is ready now, which so gets into the same group.
            loop.call_soon(self._send)
        try:
            await asyncio.shield(done)
        except asyncio.CancelledError:
            await _cancelling_later(done)

    def _send(self, at_most: int = GROUPS_AHEAD) -> None:
        while self._pipe is not None and self._waiting and len(self._sent) < at_most:
            group = [self._waiting.popleft() for _ in range(min(FILES_AT_ONCE, len(self._waiting)))]
            self._sent.append(group)
            self._pipe.write(framed([one.write for one in group]))

    async def _take_replies(self, replies: asyncio.StreamReader) -> None:
        """Settle group by group, until the process ends."""
        try:
            while True:
                (size,) = LENGTH.unpack(await replies.readexactly(LENGTH.size))
                faults: list[OSError | None] = pickle.loads(await replies.readexactly(size))  # noqa: S301  # our own
                _settle(self._sent.popleft(), faults)
                self._send()
        except (asyncio.IncompleteReadError, ConnectionError):
            self._ended = True
            self._give_up()

    def _give_up(self) -> None:
        for group in (*self._sent, list(self._waiting)):
            _settle(group, [OSError(errno.EIO, "the process that writes the files has ended")] * len(group))
        self._sent.clear()
        self._waiting.clear()


async def _cancelling_later(done: asyncio.Future[None]) -> None:
    task = asyncio.current_task()
    assert task is not None
    try:
        await done
    finally:
        task.cancel()


def _settle(group: list[_Waiting], faults: Sequence[OSError | None]) -> None:
    for one, fault in zip(group, faults, strict=True):
        if one.done.done():
            # Whoever waited was cancelled.
            continue
        if fault is None:
            one.done.set_result(None)
        else:
            one.done.set_exception(fault)
