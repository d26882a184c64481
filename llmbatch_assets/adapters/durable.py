"""Files that are on disk when a call returns; also a process that writes them for another one.

    python -m llmbatch_assets.adapters.durable      reads groups of files from its input and answers what went wrong

A process, since a thread that writes waits for the interpreter's lock after every call to the system, and a busy event loop
lets go of it only every few milliseconds. It imports next to nothing, so it is there at once.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import secrets
import struct
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import BinaryIO, NamedTuple

LENGTH = struct.Struct("!Q")
# Where a sync is slow, several at once let the disk sync them together.
_THREADS = 4


class FileWrite(NamedTuple):
    """A file to be replaced; once it is on disk, and only then, the ``obsolete`` ones are removed."""

    path: str
    content: bytes
    obsolete: tuple[str, ...] = ()


def replace_file(path: str, content: bytes | Iterable[bytes]) -> int:
    """Replace the file, whole and on disk; its folder is still to be synced for it to outlive a power failure.

    Gives its size.
    """
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name}.{secrets.token_hex(4)}.tmp")
    file = _open_new(temporary)
    try:
        with file:
            file.writelines((content,) if isinstance(content, bytes) else content)
            size = file.tell()
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        _remove((temporary,))
        raise
    return size


def _open_new(path: str) -> BinaryIO:
    try:
        return open(path, "xb")
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return open(path, "xb")


def sync_directory(folder: str) -> None:
    """Make renames in the folder last through a power failure, where the system can."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_group(group: list[FileWrite], threads: Executor | None = None) -> list[OSError | None]:
    """Replace files with one sync of each folder. Gives what went wrong with each file, if anything did."""
    each = threads.map if threads and len(group) > 1 else map
    replaced = list(each(lambda write: _fault_of(replace_file, write.path, write.content), group))
    synced = {folder: _fault_of(sync_directory, folder) for folder in {os.path.dirname(write.path) for write in group}}
    faults = [fault or synced[os.path.dirname(write.path)] for write, fault in zip(group, replaced, strict=True)]
    return [fault or _fault_of(_remove, write.obsolete) for write, fault in zip(group, faults, strict=True)]


def _remove(obsolete: tuple[str, ...]) -> None:
    for path in obsolete:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def _fault_of(act: Callable[..., object], *on: object) -> OSError | None:
    try:
        act(*on)
    except OSError as fault:
        return fault
    return None


def framed(value: object) -> bytes:
    """A value as it goes through a pipe."""
    body = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    return LENGTH.pack(len(body)) + body


def main() -> None:
    """Write groups until the input ends, as it does when the other process does."""
    pipe_in, pipe_out = sys.stdin.buffer, sys.stdout.buffer
    with ThreadPoolExecutor(_THREADS) as threads:
        while len(length := pipe_in.read(LENGTH.size)) == LENGTH.size:
            (size,) = LENGTH.unpack(length)
            group = pickle.loads(pipe_in.read(size))  # noqa: S301  # from the process that started this one
            pipe_out.write(framed(write_group(group, threads)))
            pipe_out.flush()


if __name__ == "__main__":
    main()
