"""Files that are on disk when a call returns; also a process that writes them for another one.

It reads groups of files from its input and answers what went wrong. A process, since a thread that writes waits for the interpreter's lock after every call to the system, and a busy event loop
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
from typing import NamedTuple

LENGTH = struct.Struct("!Q")
# Several syncs at once become one of the disk's.
_THREADS = 8


class FileWrite(NamedTuple):
    """A file to be replaced; once it is on disk, and only then, the ``obsolete`` ones are removed."""

    path: str
    content: bytes
    obsolete: tuple[str, ...] = ()


class _Replacement:
    """A file on its way to the place of another one: begun, synced, ended. A step that fails takes back what was begun."""

    def __init__(self, path: str) -> None:
        self.path = path
        folder, name = os.path.split(path)
        self._temporary = os.path.join(folder, f".{name}.{secrets.token_hex(4)}.tmp")
        self._handle = -1

    def begin(self, content: bytes | Iterable[bytes]) -> int:
        """Write the content beside the file; gives its size."""
        self._handle = _open_new(self._temporary)
        try:
            if isinstance(content, bytes):
                return _written(self._handle, content)
            # A page comes in a hundred thousand small pieces.
            with open(self._handle, "wb", closefd=False) as buffered:
                buffered.writelines(content)
                return buffered.tell()
        except BaseException:
            self._take_back()
            raise

    def sync(self) -> None:
        """Have the content on disk."""
        try:
            os.fsync(self._handle)
        except BaseException:
            self._take_back()
            raise

    def end(self) -> None:
        """Take the place of the file."""
        try:
            os.close(self._handle)
            self._handle = -1
            os.replace(self._temporary, self.path)
        except BaseException:
            self._take_back()
            raise

    def _take_back(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
        _remove((self._temporary,))


def replace_file(path: str, content: bytes | Iterable[bytes]) -> int:
    """Replace the file, whole and on disk; its folder is still to be synced for it to outlive a power failure.

    Gives its size.
    """
    replacement = _Replacement(path)
    size = replacement.begin(content)
    replacement.sync()
    replacement.end()
    return size


def _open_new(path: str) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    try:
        return os.open(path, flags, 0o666)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return os.open(path, flags, 0o666)


def _written(handle: int, content: bytes) -> int:
    left = memoryview(content)
    while left:
        left = left[os.write(handle, left) :]
    return len(content)


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
    """Replace files with one sync of each folder. Gives what went wrong with each file, if anything did.

    All are written before the first is synced: syncs that come together cost little more than one.
    """
    at_once = threads.map if threads and len(group) > 1 else map
    half = [_Replacement(write.path) for write in group]
    faults = [_fault_of(one.begin, write.content) for one, write in zip(half, group, strict=True)]
    faults = [*at_once(lambda one, fault: fault or _fault_of(one.sync), half, faults)]
    faults = [fault or _fault_of(one.end) for one, fault in zip(half, faults, strict=True)]
    synced = {folder: _fault_of(sync_directory, folder) for folder in {os.path.dirname(write.path) for write in group}}
    faults = [fault or synced[os.path.dirname(write.path)] for write, fault in zip(group, faults, strict=True)]
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


def command_of(module: str) -> tuple[str, ...]:
    """What runs ``main`` of a module in a process of its own, which imports what this one can, e.g. from a checkout.

    What is installed comes first, so that no file of the working directory, which may be in this one's path, is taken
    for it.
    """
    # Python skips what is no text.
    path = [place for place in sys.path if isinstance(place, str)]
    return (sys.executable, "-P", "-c", f"import sys; sys.path += {path!r}; from {module} import main; main()")


def main() -> None:
    """Write groups until the input ends, as it does when the other process does."""
    pipe_in, pipe_out = sys.stdin.buffer, sys.stdout.buffer
    with ThreadPoolExecutor(_THREADS) as threads:
        while len(length := pipe_in.read(LENGTH.size)) == LENGTH.size:
            (size,) = LENGTH.unpack(length)
            content = pipe_in.read(size)
            if len(content) < size:
                # The other process has ended in the middle of it.
                break
            group = pickle.loads(content)  # noqa: S301  # from the process that started this one
            pipe_out.write(framed(write_group(group, threads)))
            pipe_out.flush()
