"""Python values sent through a pipe between a process and the child that it started.

Each frame is a length followed by a pickle.
"""

from __future__ import annotations

import pickle
import struct
import sys
from typing import IO, Any

_LENGTH = struct.Struct("!Q")


class PipeEndedError(Exception):
    """The other process has ended, possibly in the middle of a frame."""


def child_command(module: str) -> tuple[str, ...]:
    """Return the command that runs ``main`` of a module in a child process with the same import path as this one.

    Installed packages come first, so that no file in the working directory shadows one of them.
    """
    # Python ignores entries of sys.path that are not strings.
    path = [entry for entry in sys.path if isinstance(entry, str)]
    return (sys.executable, "-P", "-c", f"import sys; sys.path += {path!r}; from {module} import main; main()")


def pack_frame(value: object) -> bytes:
    body = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    return _LENGTH.pack(len(body)) + body


def read_frame(pipe: IO[bytes]) -> Any:
    """Return the next value. Raises ``PipeEndedError`` if there is none."""
    return pickle.loads(_read(pipe, *_LENGTH.unpack(_read(pipe, _LENGTH.size))))  # noqa: S301  # from our own process


def _read(pipe: IO[bytes], size: int) -> bytes:
    content = pipe.read(size)
    if len(content) < size:
        raise PipeEndedError("the other process has ended")
    return content
