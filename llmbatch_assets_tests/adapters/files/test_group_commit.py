"""Files written together by a process: each waits for its own, one that cannot be written spoils no other."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from llmbatch_assets.adapters.files import durable
from llmbatch_assets.adapters.files.durable import FileWrite
from llmbatch_assets.adapters.files.group_commit import FILES_PER_GROUP, GROUPS_AHEAD, GroupCommit
from llmbatch_assets.adapters.files.pipe import child_command, pack_frame
from llmbatch_assets_tests.own_processes import running

# Several groups, the last of which has to wait for an answer to the first.
MANY = FILES_PER_GROUP * (GROUPS_AHEAD + 2) + 1


def file(path: Path, content: bytes = b"new", *obsolete: Path) -> FileWrite:
    return FileWrite(str(path), content, tuple(map(str, obsolete)))


def writers() -> list[int]:
    """Processes that write for this one."""
    return [one.pid for one in running(durable)]


async def written(commit: GroupCommit, *writes: FileWrite) -> list[BaseException | None]:
    """What went wrong with each, of those that are asked for at once."""
    return await asyncio.gather(*map(commit.write, writes), return_exceptions=True)


@pytest.mark.parametrize("in_process", [True, False])
def test_on_return_each_file_is_there_and_what_it_makes_obsolete_is_not(tmp_path: Path, in_process: bool) -> None:
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

        if not in_process:
            await asyncio.gather(*map(one, range(MANY)))
            return
        async with commit.in_process():
            await asyncio.gather(*map(one, range(MANY)))

    asyncio.run(all_of_them())
    assert len(list(tmp_path.rglob("*.json"))) == MANY
    assert list(tmp_path.rglob("*.tmp")) == []


@pytest.mark.parametrize("in_process", [True, False])
def test_a_file_that_cannot_be_written_spoils_no_other_and_keeps_what_it_would_have_replaced(
    tmp_path: Path, in_process: bool
) -> None:
    (tmp_path / "file").touch()
    mark = tmp_path / "mark"
    mark.touch()
    writes = [file(tmp_path / "a.json"), file(tmp_path / "file/c.json", b"", mark), file(tmp_path / "b.json")]

    async def three() -> list[BaseException | None]:
        commit = GroupCommit()
        if not in_process:
            return await written(commit, *writes)
        async with commit.in_process():
            return await written(commit, *writes)

    first, second, third = asyncio.run(three())
    assert (first, third) == (None, None)
    assert isinstance(second, OSError)
    assert {path.name for path in tmp_path.iterdir()} == {"a.json", "b.json", "file", "mark"}
    # A full disk names no file of its own.
    assert second.filename == str(tmp_path / "file/c.json")


@pytest.mark.skipif(sys.platform == "win32", reason="signals as on POSIX")
def test_nobody_waits_for_a_process_that_is_gone(tmp_path: Path) -> None:
    async def killed() -> list[BaseException | None]:
        commit = GroupCommit()
        async with commit.in_process():
            (writer,) = writers()
            os.kill(writer, signal.SIGSTOP)
            waiting = asyncio.create_task(written(commit, *(file(tmp_path / f"{n}.json") for n in range(MANY))))
            await asyncio.sleep(0)
            os.kill(writer, signal.SIGKILL)
            return [*await waiting, *await written(commit, file(tmp_path / "late.json"))]

    faults = asyncio.run(asyncio.wait_for(killed(), 30))
    assert len(faults) == MANY + 1
    assert all(isinstance(fault, OSError) and "has ended" in str(fault) for fault in faults)


UNINSTALLED = """
    import asyncio, sys
    from pathlib import Path
    # A path is skipped by Python: it is no text.
    sys.path[:0] = [sys.argv[1], Path(sys.argv[1])]
    from llmbatch_assets.adapters.files.durable import FileWrite
    from llmbatch_assets.adapters.files.group_commit import GroupCommit

    async def written():
        commit = GroupCommit()
        async with commit.in_process():
            await commit.write(FileWrite(sys.argv[2], b"new"))

    asyncio.run(written())
"""


def test_the_process_finds_a_package_that_is_not_installed(tmp_path: Path) -> None:
    # The interpreter without the packages of its environment, in a folder with a file like one of its own modules.
    (tmp_path / "secrets.py").write_text("1 / 0")
    bare = getattr(sys, "_base_executable", sys.executable)
    root = Path(durable.__file__).parents[3]
    command = [bare, "-P", "-c", textwrap.dedent(UNINSTALLED), str(root), str(tmp_path / "file")]
    bare_environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(command, cwd=tmp_path, env=bare_environment, check=True)
    assert (tmp_path / "file").read_bytes() == b"new"


def test_a_process_whose_input_ends_in_the_middle_of_a_group_ends_without_a_word(tmp_path: Path) -> None:
    # As when the other process is killed: what is larger than a pipe gets there in pieces.
    cut = pack_frame([file(tmp_path / "file")])[:-1]
    ended = subprocess.run(child_command(durable.__name__), input=cut, capture_output=True, check=True)
    assert (ended.stdout, ended.stderr) == (b"", b"")
    assert list(tmp_path.iterdir()) == []


def test_what_a_cancelled_task_had_asked_for_is_written_all_the_same(tmp_path: Path) -> None:
    async def cancelled() -> None:
        commit = GroupCommit()
        async with commit.in_process():
            tasks = [asyncio.create_task(commit.write(file(tmp_path / f"{n}.json"))) for n in range(MANY)]
            await asyncio.sleep(0)
            for task in tasks:
                task.cancel()

    asyncio.run(cancelled())
    assert len(list(tmp_path.glob("*.json"))) == MANY
    assert writers() == []


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
        async with commit.in_process():
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
