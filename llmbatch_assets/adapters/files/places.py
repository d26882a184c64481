"""Open regular files, and set aside anything else in their place."""

from __future__ import annotations

import errno
import itertools
import logging
import os
import stat
from typing import BinaryIO

log = logging.getLogger(__name__)

A_DEVICE = "a device"
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: A_DEVICE,
    stat.S_IFBLK: A_DEVICE,
    stat.S_IFLNK: "a broken link",
}
# Opening a socket, a folder, and a link that leads to itself.
_NO_FILE = {errno.ENXIO, errno.EISDIR, errno.ELOOP}


class NotAFileError(OSError):
    """Something is in a file's place that is not a regular file."""


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a file for reading. Raises ``NotAFileError`` at once for a folder, pipe, socket or device."""
    try:
        file = open(path, "rb", opener=_open_without_waiting)  # noqa: SIM115  # often, so no Path is made for it
    except OSError as error:
        if error.errno in _NO_FILE:
            raise _not_a_file(path) from None
        raise
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise _not_a_file(path)


def _open_without_waiting(path: str, flags: int) -> int:
    # Opening a pipe would wait for a writer.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _not_a_file(path: str | os.PathLike[str]) -> NotAFileError:
    return NotAFileError(errno.EINVAL, f"is {kind_in_place(path) or 'not a file'}", os.fspath(path))


def kind_in_place(path: str | os.PathLike[str]) -> str:
    """Describe what is in a file's place, such as "a folder"; empty for a regular file, or if there is nothing."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        # Nothing, a broken link, or a link that leads to itself.
        return _KINDS[stat.S_IFLNK] if os.path.islink(path) else ""
    return "" if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "not a file")


def clear_place(path: str | os.PathLike[str]) -> None:
    """Set aside anything but a regular file in a file's place, except for a device."""
    kind = kind_in_place(path)
    if kind and kind != A_DEVICE:
        aside = set_aside(path)
        log.warning("%s is %s, where a file belongs; it was set aside as %s", path, kind, os.path.basename(aside))


def make_room(path: str | os.PathLike[str]) -> None:
    """Clear the place of a file that is about to be replaced. Raises ``NotAFileError`` for a device."""
    if kind_in_place(path) == A_DEVICE:
        raise _not_a_file(path)
    clear_place(path)


def set_aside(path: str | os.PathLike[str]) -> str:
    """Rename what is at the path to the first free name: ``NAME.broken``, ``NAME.broken1`` and so on. Returns it."""
    names = (f"{os.fspath(path)}.broken{number or ''}" for number in itertools.count())
    aside = next(name for name in names if not os.path.lexists(name))
    os.replace(path, aside)
    return aside
