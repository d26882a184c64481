"""Files that are either wholly there or not at all."""

from __future__ import annotations

import json
import logging
import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson

from llmbatch_assets.errors import ArtifactError, MissingArtifactError

log = logging.getLogger(__name__)


def json_bytes(value: Any) -> bytes:
    """The one form of every JSON artifact: sorted keys, two spaces, UTF-8, a final newline.

    Numbers are finite: what comes from a model or a file was checked where it came in.
    """
    try:
        return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE)
    except TypeError:
        # Integers beyond 64 bits and lone surrogates, which orjson refuses.
        return (json.dumps(value, ensure_ascii=True, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def write_atomically(path: Path, content: bytes | Iterable[bytes]) -> int:
    """Replace the file by ``content``; on return it is on disk. A reader never sees a part of it. Gives its size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.writelines((content,) if isinstance(content, bytes) else content)
            size = file.tell()
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)
    log.debug("wrote %s (bytes=%d)", path, size)
    return size


def sync_directory(folder: Path) -> None:
    """Make renames in the folder last through a power failure, where the system can."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, value: Any) -> int:
    """Write a JSON artifact; gives its size in bytes."""
    return write_atomically(path, json_bytes(value))


def keep_json(path: Path, value: Any) -> tuple[int, bool]:
    """Write a JSON artifact unless the file holds these very bytes; gives its size, and whether it was written."""
    content = json_bytes(value)
    if path.is_file() and path.stat().st_size == len(content) and path.read_bytes() == content:
        return len(content), False
    return write_atomically(path, content), True


def read_json(path: Path, made_by: str = "llmbatch run") -> Any:
    """The value of a JSON artifact, which the command ``made_by`` makes.

    Raises ``MissingArtifactError`` or ``ArtifactError``, both naming that command.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise MissingArtifactError(f"{path} does not exist; make it with: {made_by}") from None
    except (ValueError, OSError, RecursionError) as broken:
        raise ArtifactError(f"{path} cannot be read as JSON ({broken}); make it again with: {made_by}") from broken
