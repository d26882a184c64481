"""Hashes of files: those that an export or a report was made from, and those that it wrote."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import BinaryIO

import llmbatch_assets
from llmbatch_assets.adapters.files.places import open_regular
from llmbatch_assets.domain.canonical import sha1_named
from llmbatch_assets.domain.export.manifest import FileChecksum

# The layers that decide what a published file contains.
_LAYERS = ("domain", "adapters", "stages")
_SOURCES = (".py", ".j2", ".css", ".js")


def file_checksum(path: Path) -> FileChecksum | None:
    """Return the size and SHA-256 of a file; None if it cannot be read."""
    try:
        with open_regular(path) as file:
            return FileChecksum(sha256=_hash(file, "sha256"), bytes=file.tell())
    except OSError:
        return None


def file_sha(path: Path) -> str:
    """Return the SHA-1 of a file; "" if it cannot be read."""
    try:
        with open_regular(path) as file:
            return _hash(file, "sha1")
    except OSError:
        return ""


def _hash(file: BinaryIO, name: str) -> str:
    # Files that are open for reading have the method that the protocol asks for; the type only omits it.
    return hashlib.file_digest(file, lambda: hashlib.new(name, usedforsecurity=False)).hexdigest()  # type: ignore[arg-type]


@cache
def code_sha() -> str:
    """Return the hash of this package's version and source: files made by other code are not up to date."""
    package = Path(llmbatch_assets.__file__).parent
    paths = sorted(path for layer in _LAYERS for path in (package / layer).rglob("*") if path.suffix in _SOURCES)
    sources = {path.relative_to(package).as_posix(): file_sha(path) for path in paths}
    return sha1_named(version=version("llmbatch-assets"), sources=sources)
