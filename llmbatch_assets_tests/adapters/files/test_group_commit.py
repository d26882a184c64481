"""Files written together: each waits for its own, one that cannot be written spoils no other."""

from __future__ import annotations

import asyncio
import math
import os
import stat
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from llmbatch_assets.adapters.files.durable import FileWrite
from llmbatch_assets.adapters.files.group_commit import FILES_PER_GROUP, GroupCommit

# Several groups, all but the first of which have to wait.
MANY = 3 * FILES_PER_GROUP + 1


def file(path: Path, content: bytes = b"new", *obsolete: Path) -> FileWrite:
    return FileWrite(str(path), content, tuple(map(str, obsolete)))


async def written(commit: GroupCommit, *writes: FileWrite) -> list[BaseException | None]:
    """What went wrong with each, of those that are asked for at once."""
    return await asyncio.gather(*map(commit.write, writes), return_exceptions=True)


@pytest.mark.parametrize("in_groups", [True, False])
def test_on_return_each_file_is_there_and_what_it_makes_obsolete_is_not(tmp_path: Path, in_groups: bool) -> None:
    marks = [tmp_path / f"mark-{number}" for number in range(MANY)]
    for mark in marks:
        mark.touch()

    async def all_of_them() -> None:
        commit = GroupCommit()

        async def one(number: int) -> None:
            path = tmp_path / "new folder" / f"{number}.json"
            await commit.write(file(path, b"%d" % number, marks[number]))
            assert path.read_bytes() == b"%d" % number
            assert not marks[number].exists()

        if not in_groups:
            await asyncio.gather(*map(one, range(MANY)))
            return
        async with commit.in_groups():
            await asyncio.gather(*map(one, range(MANY)))

    asyncio.run(all_of_them())
    assert len(list(tmp_path.rglob("*.json"))) == MANY
    assert list(tmp_path.rglob("*.tmp")) == []


@pytest.mark.parametrize("in_groups", [True, False])
def test_a_file_that_cannot_be_written_spoils_no_other_and_keeps_what_it_would_have_replaced(
    tmp_path: Path, in_groups: bool
) -> None:
    (tmp_path / "file").touch()
    mark = tmp_path / "mark"
    mark.touch()
    writes = [file(tmp_path / "a.json"), file(tmp_path / "file/c.json", b"", mark), file(tmp_path / "b.json")]

    async def three() -> list[BaseException | None]:
        commit = GroupCommit()
        if not in_groups:
            return await written(commit, *writes)
        async with commit.in_groups():
            return await written(commit, *writes)

    first, second, third = asyncio.run(three())
    assert (first, third) == (None, None)
    assert isinstance(second, OSError)
    assert {path.name for path in tmp_path.iterdir()} == {"a.json", "b.json", "file", "mark"}
    # A full disk names no file of its own.
    assert second.filename == str(tmp_path / "file/c.json")


def test_nobody_waits_for_files_that_no_thread_can_write(tmp_path: Path) -> None:
    async def without_threads() -> list[BaseException | None]:
        commit = GroupCommit()
        async with commit.in_groups():
            # As where the system refuses to start one.
            asyncio.get_running_loop().set_default_executor(NoThreads())
            return await written(commit, *(file(tmp_path / f"{number}.json") for number in range(MANY)))

    faults = asyncio.run(asyncio.wait_for(without_threads(), 30))
    assert [str(fault) for fault in faults] == ["can't start new thread"] * MANY
    assert list(tmp_path.iterdir()) == []


class NoThreads(ThreadPoolExecutor):
    """An executor on a system that is out of threads."""

    def submit(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("can't start new thread")


def test_files_that_are_ready_at_once_share_the_syncs_of_their_folder(tmp_path: Path) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def counted(handle: int) -> None:
        synced.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        fsync(handle)

    async def at_once() -> None:
        commit = GroupCommit()
        async with commit.in_groups():
            await written(commit, *(file(tmp_path / f"{number}.json") for number in range(MANY)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", counted)
        asyncio.run(at_once())
    assert synced.count("file") == MANY
    assert synced.count("folder") == math.ceil(MANY / FILES_PER_GROUP)


def test_what_a_cancelled_task_had_asked_for_is_written_all_the_same(tmp_path: Path) -> None:
    async def cancelled() -> None:
        commit = GroupCommit()
        async with commit.in_groups():
            tasks = [asyncio.create_task(commit.write(file(tmp_path / f"{n}.json"))) for n in range(MANY)]
            await asyncio.sleep(0)
            for task in tasks:
                task.cancel()

    asyncio.run(cancelled())
    assert len(list(tmp_path.glob("*.json"))) == MANY


def test_a_cancelled_task_tells_of_its_file_before_it_ends(tmp_path: Path) -> None:
    # An output was on disk, and nobody was told: its run had been ended while it was written.
    told: list[str] = []

    async def one(commit: GroupCommit, path: Path, content: bytes) -> None:
        try:
            await commit.write(file(path, content))
            told.append(path.name)
        except OSError:
            told.append(f"not {path.name}")
        await asyncio.sleep(60)

    async def cancelled() -> None:
        commit = GroupCommit()
        async with commit.in_groups():
            good, bad = tmp_path / "good", tmp_path / "file" / "bad"
            bad.parent.touch()
            tasks = [asyncio.create_task(one(commit, path, b"new")) for path in (good, bad)]
            await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            assert [type(one) for one in ended] == [asyncio.CancelledError] * 2

    asyncio.run(cancelled())
    assert told == ["good", "not bad"]
    assert (tmp_path / "good").read_bytes() == b"new"


@pytest.fixture
def slow_disk() -> Iterator[threading.Event]:
    """Holds each sync until the event is set."""
    free = threading.Event()
    fsync = os.fsync

    def held(handle: int) -> None:
        assert free.wait(30)
        fsync(handle)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", held)
        yield free
        free.set()


def test_a_loop_that_closes_waits_for_no_file_forever(tmp_path: Path, slow_disk: threading.Event) -> None:
    ended: list[str] = []

    async def one(commit: GroupCommit, number: int) -> None:
        try:
            await commit.write(file(tmp_path / f"{number}.json"))
        finally:
            ended.append("one")

    async def abandoned() -> None:
        commit = GroupCommit()
        writes = asyncio.get_running_loop().create_task(open_and_write(commit))
        await asyncio.sleep(0.1)
        # The disk answers once the loop has cancelled all tasks.
        threading.Timer(0.5, slow_disk.set).start()
        assert not writes.done()

    async def open_and_write(commit: GroupCommit) -> None:
        async with commit.in_groups():
            await asyncio.gather(*(one(commit, number) for number in range(MANY)))

    closing = threading.Thread(target=lambda: asyncio.run(abandoned()), daemon=True)
    closing.start()
    closing.join(30)
    assert not closing.is_alive()
    assert len(ended) == MANY


def test_files_after_a_block_whose_end_was_cancelled_are_written_each_on_its_own(
    tmp_path: Path, slow_disk: threading.Event
) -> None:
    async def cancelled_end() -> None:
        commit = GroupCommit()

        async def block() -> None:
            async with commit.in_groups():
                write = asyncio.create_task(commit.write(file(tmp_path / "in.json")))
                await asyncio.sleep(0)
                write.cancel()

        ending = asyncio.create_task(block())
        await asyncio.sleep(0.1)
        # Its end waits for the file.
        assert not ending.done()
        threading.Timer(0.1, slow_disk.set).start()
        ending.cancel()
        await asyncio.gather(ending, return_exceptions=True)
        assert ending.cancelled()
        assert await written(commit, *(file(tmp_path / name) for name in ("1.json", "2.json"))) == [None, None]

    asyncio.run(asyncio.wait_for(cancelled_end(), 30))
    assert {path.name for path in tmp_path.iterdir()} == {"in.json", "1.json", "2.json"}
