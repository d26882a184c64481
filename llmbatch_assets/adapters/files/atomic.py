"""Artifacts on disk: each file is written as a whole or not at all, and JSON has one canonical form."""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel

from llmbatch_assets.adapters.files.durable import replacing
from llmbatch_assets.adapters.files.places import open_regular
from llmbatch_assets.domain.text import counted, format_bytes
from llmbatch_assets.errors import ArtifactError, MissingArtifactError

log = logging.getLogger(__name__)
# Shown to users. Reports whole artifacts, but not each output of a batch.
artifact_log = logging.getLogger("llmbatch_assets.written")

CHUNK_ITEMS = 1_000
# The names of temporary files, see ``durable``.
_LEFTOVER = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")
_LEFTOVER_SEC = 3_600
_LONG_NUMBER = re.compile(rb"[^\"\w]\d{19}")
_OPTIONS = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE | orjson.OPT_PASSTHROUGH_DATACLASS


def json_bytes(value: Any) -> bytes:
    """Encode a JSON artifact: sorted keys, two spaces, UTF-8, a final newline.

    Models and dataclasses are written by their fields, without a copy. Numbers must be finite; models and readers check
    that.
    """
    try:
        return orjson.dumps(value, _fields, _OPTIONS)
    except TypeError:
        # orjson refuses integers beyond 64 bits and lone surrogates.
        return (
            json.dumps(value, ensure_ascii=True, indent=2, sort_keys=True, allow_nan=False, default=_fields) + "\n"
        ).encode()


def json_chunks(value: Any) -> Iterator[bytes]:
    """Yield the bytes of ``json_bytes`` for an object or a list in chunks, so that a large table never fills memory."""
    if isinstance(value, list):
        yield from _list_chunks(value, b"\n")
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
            yield from _list_chunks(members[key], b"\n  ")
        else:
            yield json_bytes(members[key]).rstrip().replace(b"\n", b"\n  ")
    yield b"\n}\n"


def _list_chunks(values: list[Any], line_start: bytes) -> Iterator[bytes]:
    """Yield a list with indented lines. JSON strings contain no line breaks, so replacing these is safe."""
    if not values:
        yield b"[]"
        return
    for start in range(0, len(values), CHUNK_ITEMS):
        body = json_bytes(values[start : start + CHUNK_ITEMS])[1 : -len(b"\n]\n")]
        yield (b"," if start else b"[") + body.replace(b"\n", line_start)
    yield line_start + b"]"


def _fields(value: Any) -> dict[str, Any]:
    if isinstance(value, BaseModel):
        return dict(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    raise TypeError(f"{type(value).__name__} cannot be written to a JSON artifact")


def write_atomically(path: Path, content: bytes | Iterable[bytes]) -> int:
    """Replace the file and return its size. It is on disk on return, and readers never see part of it."""
    with replacing(path) as file:
        file.writelines((content,) if isinstance(content, bytes) else content)
        size = file.tell()
    log.debug("wrote %s (%d bytes)", path, size)
    return size


def write_json(path: Path, value: Any) -> int:
    """Write a JSON artifact and return its size in bytes."""
    return write_atomically(path, json_bytes(value))


def write_json_if_changed(path: Path, value: Any) -> tuple[int, bool]:
    """Write a JSON artifact unless the file already has the same bytes. Returns its size and True if it was written."""
    if path.is_file() and _has_content(path, json_chunks(value)):
        return path.stat().st_size, False
    return write_atomically(path, json_chunks(value)), True


def _has_content(path: Path, chunks: Iterable[bytes]) -> bool:
    with path.open("rb") as file:
        return all(file.read(len(chunk)) == chunk for chunk in chunks) and not file.read(1)


def log_written(path: str, size: int, rows: int | None = None) -> None:
    """Log an artifact that was written, with its number of rows where that is known."""
    length = "" if rows is None else f"{counted(rows, 'row')}, "
    artifact_log.info("Wrote %s (%s%s)", path, length, format_bytes(size))


def log_unchanged(paths: Iterable[str], since: str) -> None:
    """Log files that are up to date, so that they were not written again."""
    artifact_log.info("Unchanged since %s: %s", since, ", ".join(paths))


def log_archived(path: str, archived: str) -> None:
    """Log that the previous version of a file was kept."""
    artifact_log.info("Archived the previous %s as %s", path, archived)


def read_json(path: Path, made_by: str = "llmbatch run") -> Any:
    """Return the value of a JSON artifact, which the command ``made_by`` creates.

    Raises ``MissingArtifactError`` or ``ArtifactError``; both name that command.
    """
    try:
        return parse_json(read_regular(path))
    except FileNotFoundError:
        raise MissingArtifactError(f"{path} does not exist; make it with: {made_by}") from None
    except (ValueError, OSError, RecursionError) as error:
        raise ArtifactError(f"{path} cannot be read as JSON ({error}); make it again with: {made_by}") from error


def parse_json(content: bytes) -> Any:
    """Return the value of JSON text. Raises ``ValueError`` or ``RecursionError``."""
    # orjson is faster and shares equal keys between files, which halves the memory. But it turns integers beyond
    # 64 bits into floats, and it refuses lone surrogates.
    if not _LONG_NUMBER.search(content):
        with suppress(orjson.JSONDecodeError):
            return orjson.loads(content)
    return json.loads(content)


def read_regular(path: Path) -> bytes:
    """Return the content of a file. Raises ``OSError``, also for a folder, pipe, socket or device in its place."""
    with open_regular(path) as file:
        return file.read()


def remove_leftovers(folders: Iterable[Path]) -> None:
    """Remove temporary files of interrupted writes. Recent ones are kept: another run may be writing them."""
    too_old = time.time() - _LEFTOVER_SEC
    for folder in folders:
        with os.scandir(folder) if folder.is_dir() else nullcontext(()) as entries:
            leftovers = [entry for entry in entries if _LEFTOVER.fullmatch(entry.name)]
        for entry in leftovers:
            if entry.stat().st_mtime < too_old:
                Path(entry.path).unlink(missing_ok=True)
