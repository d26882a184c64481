"""Files that are made at about the same time, written together by a process of their own."""

from __future__ import annotations

import asyncio
import errno
import pickle
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from llmbatch_assets.adapters import durable
from llmbatch_assets.adapters.durable import LENGTH, FileWrite, framed, write_group


class _Waiting(NamedTuple):
    write: FileWrite
    done: asyncio.Future[None]


class GroupCommit:
    """Writes files as ``write_atomically`` does: what has come while one group was written is the next group."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._waiting: list[_Waiting] = []
        self._running: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def in_process(self) -> AsyncIterator[None]:
        """Write with a process of its own in this block, which has written everything at its end; else with a thread."""
        self._process = process = await asyncio.create_subprocess_exec(
            # Nothing of the working directory is imported, and a signal from the terminal is not for it.
            *(sys.executable, "-P", "-m", durable.__name__),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        try:
            yield
        finally:
            self._process = None
            assert process.stdin is not None
            process.stdin.close()
            await process.wait()

    async def write(self, write: FileWrite) -> None:
        """Replace the file; on return it is on disk.

        Raises ``OSError`` where this file cannot be written, whatever becomes of the others of its group.
        """
        done = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(write, done))
        if self._running is None or self._running.done():
            # The task begins after what else is ready now, which so gets into the same group.
            self._running = asyncio.create_task(self._commit())
        await done

    async def _commit(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting, []
            faults = await self._written([one.write for one in group])
            for one, fault in zip(group, faults, strict=True):
                if one.done.done():
                    # Whoever waited was cancelled.
                    continue
                if fault is None:
                    one.done.set_result(None)
                else:
                    one.done.set_exception(fault)

    async def _written(self, group: list[FileWrite]) -> list[OSError | None]:
        if self._process is None:
            return await asyncio.to_thread(write_group, group)
        try:
            return await _asked(self._process, group)
        except (OSError, asyncio.IncompleteReadError):
            return [OSError(errno.EIO, "the process that writes the files has ended")] * len(group)


async def _asked(process: asyncio.subprocess.Process, group: list[FileWrite]) -> list[OSError | None]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(framed(group))
    await process.stdin.drain()
    (size,) = LENGTH.unpack(await process.stdout.readexactly(LENGTH.size))
    faults: list[OSError | None] = pickle.loads(await process.stdout.readexactly(size))  # noqa: S301  # our own process
    return faults
