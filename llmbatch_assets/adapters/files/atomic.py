"""Files that are either wholly there or not at all."""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import fields, is_dataclass
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import Any, BinaryIO

import orjson
from pydantic import BaseModel

from llmbatch_assets.adapters.files.durable import replace_file, sync_directory
from llmbatch_assets.errors import ArtifactError, MissingArtifactError

log = logging.getLogger(__name__)
# What a user may want to know of: the whole artifacts, not each of a hundred thousand outputs.
written = logging.getLogger("llmbatch_assets.written")

PIECE_ITEMS = 1_000
# How both ways of writing name a file that is not whole yet.
LEFTOVER = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")
LEFTOVER_SEC = 3_600
_OPTIONS = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE | orjson.OPT_PASSTHROUGH_DATACLASS


def json_bytes(value: Any) -> bytes:
    """The one form of every JSON artifact: sorted keys, two spaces, UTF-8, a final newline.

    Models and dataclasses are written by their fields, without a copy of all of them. Numbers are finite: what comes
    from a model or a file was checked where it came in.
    """
    try:
        return orjson.dumps(value, _fields, _OPTIONS)
    except TypeError:
        # Integers beyond 64 bits and lone surrogates, which orjson refuses.
        return (
            json.dumps(value, ensure_ascii=True, indent=2, sort_keys=True, allow_nan=False, default=_fields) + "\n"
        ).encode()


def json_pieces(value: Any) -> Iterator[bytes]:
    """The bytes of ``json_bytes`` for an object or a list, in pieces: a large table's are never in memory at once."""
    if isinstance(value, list):
        yield from _list_pieces(value, b"\n")
        yield b"\n"
        return
    members = value if isinstance(value, dict) else _fields(value)
    lists = {key for key, member in members.items() if isinstance(member, list)}
    if not lists:
        yield json_bytes(members)
        return
    for place, key in enumerate(sorted(members)):
        yield b"%s\n  %s: " % (b"," if place else b"{", json_bytes(key).strip())
        if key in lists:
            yield from _list_pieces(members[key], b"\n  ")
        else:
            yield json_bytes(members[key]).rstrip().replace(b"\n", b"\n  ")
    yield b"\n}\n"


def _list_pieces(values: list[Any], line: bytes) -> Iterator[bytes]:
    """A list whose lines begin with ``line``. Inside JSON's strings there are no line breaks, so this is safe."""
    if not values:
        yield b"[]"
        return
    for start in range(0, len(values), PIECE_ITEMS):
        body = json_bytes(values[start : start + PIECE_ITEMS])[1 : -len(b"\n]\n")]
        yield (b"," if start else b"[") + body.replace(b"\n", line)
    yield line + b"]"


def _fields(value: Any) -> dict[str, Any]:
    if isinstance(value, BaseModel):
        return dict(value)
    if is_dataclass(value) and not isinstance(value, type):
        names, values_of = _dataclass_fields(type(value))
        return dict(zip(names, values_of(value), strict=True))
    raise TypeError(f"{type(value).__name__} is no part of a JSON artifact")


@cache
def _dataclass_fields(kind: type) -> tuple[tuple[str, ...], Callable[[Any], tuple[Any, ...]]]:
    names = tuple(field.name for field in fields(kind))
    return names, attrgetter(*names)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of ``path`` when the block ends well; then it is on disk. A reader never sees a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb+") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(str(path.parent))


def write_atomically(path: Path, content: bytes | Iterable[bytes]) -> int:
    """Replace the file by ``content``; on return it is on disk. A reader never sees a part of it. Gives its size."""
    size = replace_file(str(path), content)
    sync_directory(str(path.parent))
    log.debug("wrote %s (bytes=%d)", path, size)
    return size


def sweep(folders: Iterable[Path]) -> None:
    """Remove from the folders what writes that were cut short have left. Young ones may be another run's."""
    too_old = time.time() - LEFTOVER_SEC
    for folder in folders:
        with os.scandir(folder) if folder.is_dir() else nullcontext(()) as entries:
            left = [entry for entry in entries if LEFTOVER.fullmatch(entry.name)]
        for entry in left:
            if entry.stat().st_mtime < too_old:
                Path(entry.path).unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> int:
    """Write a JSON artifact; gives its size in bytes."""
    return write_atomically(path, json_bytes(value))


def tell_written(shown_as: str, size: int) -> None:
    """Tell of an artifact that was written."""
    written.info("Wrote %s (bytes=%d)", shown_as, size)


def keep_json(path: Path, value: Any) -> tuple[int, bool]:
    """Write a JSON artifact unless the file holds these very bytes; gives its size, and whether it was written."""
    if path.is_file() and _holds(path, json_pieces(value)):
        return path.stat().st_size, False
    return write_atomically(path, json_pieces(value)), True


def _holds(path: Path, pieces: Iterable[bytes]) -> bool:
    with path.open("rb") as file:
        return all(file.read(len(piece)) == piece for piece in pieces) and not file.read(1)


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
