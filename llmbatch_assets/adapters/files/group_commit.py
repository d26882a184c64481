"""Group commit: files that are ready at about the same time are written together by a child process."""

from __future__ import annotations

import asyncio
import errno
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

from llmbatch_assets.adapters.files import durable
from llmbatch_assets.adapters.files.durable import FileWrite, write_group
from llmbatch_assets.adapters.files.pipe import PipeEndedError, child_command, pack_frame, receive_frame

# In larger groups, workers whose files are written first would wait too long for the rest.
FILES_PER_GROUP = 16
# Keeps the child busy while the event loop has not read its reply yet.
GROUPS_AHEAD = 3


class _Waiting(NamedTuple):
    write: FileWrite
    done: asyncio.Future[None]


class GroupCommit:
    """Writes files as ``write_atomically`` does. Files that arrive while a group is being written form the next group."""

    def __init__(self) -> None:
        self._pipe: asyncio.StreamWriter | None = None
        self._waiting = deque[_Waiting]()
        self._sent = deque[list[_Waiting]]()
        self._ended = False

    @asynccontextmanager
    async def in_process(self) -> AsyncIterator[None]:
        """Write with a child process inside this block, and finish all writes at its end. Outside it, use a thread."""
        process = await asyncio.create_subprocess_exec(
            *child_command(durable.__name__),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            # Signals from the terminal must not reach it.
            start_new_session=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        self._pipe, self._ended = process.stdin, False
        replies = asyncio.create_task(self._take_replies(process.stdout))
        try:
            yield
        finally:
            # Files of cancelled tasks may not have been sent yet.
            self._send(at_most=len(self._sent) + len(self._waiting))
            self._pipe = None
            process.stdin.close()
            await process.wait()
            await replies

    async def write(self, write: FileWrite) -> None:
        """Replace the file; it is on disk on return.

        Raises ``OSError`` if this file cannot be written, whatever happens to the others of its group. A task that is
        cancelled meanwhile still gets the outcome of its file, so that it can report the file, and is cancelled at its
        next await.
        """
        loop = asyncio.get_running_loop()
        if self._pipe is None:
            (error,) = await asyncio.to_thread(write_group, [write])
            if error is not None:
                raise error
            return
        done = loop.create_future()
        self._waiting.append(_Waiting(write, done))
        if self._ended:
            self._fail_all()
        elif len(self._waiting) == 1:
            # Defer to the end of this loop tick so that concurrent writes join the group.
            loop.call_soon(self._send)
        try:
            await asyncio.shield(done)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            assert task is not None
            try:
                await done
            finally:
                task.cancel()

    def _send(self, at_most: int = GROUPS_AHEAD) -> None:
        while self._pipe is not None and self._waiting and len(self._sent) < at_most:
            group = [self._waiting.popleft() for _ in range(min(FILES_PER_GROUP, len(self._waiting)))]
            self._sent.append(group)
            self._pipe.write(pack_frame([one.write for one in group]))

    async def _take_replies(self, replies: asyncio.StreamReader) -> None:
        try:
            while True:
                errors = await receive_frame(replies)
                _settle(self._sent.popleft(), errors)
                self._send()
        except PipeEndedError:
            self._ended = True
            self._fail_all()

    def _fail_all(self) -> None:
        for group in (*self._sent, list(self._waiting)):
            _settle(group, [OSError(errno.EIO, "the process that writes files has ended")] * len(group))
        self._sent.clear()
        self._waiting.clear()


def _settle(group: list[_Waiting], errors: Sequence[OSError | None]) -> None:
    for one, error in zip(group, errors, strict=True):
        if one.done.done():
            # Its task was cancelled.
            continue
        if error is None:
            one.done.set_result(None)
        else:
            one.done.set_exception(error)
