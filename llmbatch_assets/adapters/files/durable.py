"""Replace files so that they are on disk when the call returns."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from typing import BinaryIO, NamedTuple

from llmbatch_assets.adapters.files.places import make_room

TEMPORARY_SUFFIX = ".tmp"


class FileWrite(NamedTuple):
    """A file to replace. The ``obsolete`` files are removed once it is on disk."""

    path: str
    content: bytes
    obsolete: tuple[str, ...] = ()


class _Replacement:
    """A temporary file that replaces another in four steps: open, write, sync, rename. Discard it if a step fails."""

    def __init__(self, path: str) -> None:
        self._path = path
        folder, name = os.path.split(path)
        self._temporary = os.path.join(folder, f".{name}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")
        self.file: BinaryIO | None = None

    def open(self) -> BinaryIO:
        try:
            self.file = open(self._temporary, "xb+")  # noqa: SIM115  # rename or discard closes it
        except FileNotFoundError:
            os.makedirs(os.path.dirname(self._path), exist_ok=True)
            self.file = open(self._temporary, "xb+")  # noqa: SIM115  # rename or discard closes it
        return self.file

    def write(self, content: bytes) -> None:
        file = self.open()
        file.write(content)
        file.flush()

    def sync(self) -> None:
        assert self.file is not None
        self.file.flush()
        os.fsync(self.file.fileno())

    def rename(self) -> None:
        assert self.file is not None
        self.file.close()
        make_room(self._path)
        os.replace(self._temporary, self._path)

    def discard(self) -> None:
        # Closing a file flushes it, which fails again on a full disk.
        with contextlib.suppress(OSError):
            if self.file is not None:
                self.file.close()
        with contextlib.suppress(OSError):
            os.unlink(self._temporary)


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file that replaces ``path`` if the block succeeds; it is then on disk. Readers never see part of it."""
    path = os.fspath(path)
    replacement = _Replacement(path)
    try:
        yield replacement.open()
        replacement.sync()
        replacement.rename()
        _sync_directory(os.path.dirname(path))
    except BaseException as error:
        replacement.discard()
        if isinstance(error, OSError):
            _name_file(error, path)
        raise


def write_group(group: list[FileWrite], threads: Executor | None = None) -> list[OSError | None]:
    """Replace files with one sync of each folder. Returns the error of each file, or None.

    All files are written before the first is synced: concurrent syncs cost little more than one.
    """
    run_all = threads.map if threads and len(group) > 1 else map
    replacements = [_Replacement(write.path) for write in group]
    folders = {os.path.dirname(write.path) for write in group}
    errors = [_error_of(one.write, write.content) for one, write in zip(replacements, group, strict=True)]
    errors = list(run_all(lambda one, error: error or _error_of(one.sync), replacements, errors))
    errors = [error or _error_of(one.rename) for one, error in zip(replacements, errors, strict=True)]
    for one, error in zip(replacements, errors, strict=True):
        if error:
            one.discard()
    folder_errors = {folder: _error_of(_sync_directory, folder) for folder in folders}
    errors = [error or folder_errors[os.path.dirname(write.path)] for write, error in zip(group, errors, strict=True)]
    errors = [error or _error_of(_remove, write.obsolete) for write, error in zip(group, errors, strict=True)]
    for write, error in zip(group, errors, strict=True):
        if error:
            _name_file(error, write.path)
    return errors


def _sync_directory(folder: str) -> None:
    """Make renames in the folder survive a power failure, where the system supports it."""
    if os.name != "posix":
        return
    handle = os.open(folder or ".", os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(obsolete: tuple[str, ...]) -> None:
    for path in obsolete:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            os.unlink(path)


def _name_file(error: OSError, path: str) -> None:
    """Name the file in an error that names no file (as on a full disk), or only the temporary file."""
    if error.filename is None or str(error.filename).endswith(TEMPORARY_SUFFIX):
        error.filename, error.filename2 = path, None


def _error_of(action: Callable[..., object], *arguments: object) -> OSError | None:
    try:
        action(*arguments)
    except OSError as error:
        return error
    return None
