"""The schema's text beside its module, and the archive of what was replaced."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from llmbatch_assets.adapters.files import write_atomically
from llmbatch_assets.adapters.project import Batch
from llmbatch_assets.domain.canonical import sha1_text


class Ensured(NamedTuple):
    """What was done to a schema file."""

    written: bool
    sha: str
    told: str


def ensure_schema_txt(batch: Batch, *, force: bool = False) -> Ensured:
    """Write the schema's text where it is missing or no longer matches the module; the old one is archived."""
    path, text = batch.path(batch.layout.schema_txt), batch.schema.text()
    sha = sha1_text(text)
    if not force and path.is_file() and path.read_bytes() == text.encode():
        return Ensured(False, sha, f"{batch.layout.schema_txt} matches {batch.layout.schema_py}; nothing to do")
    archived = archive(path, batch.path(batch.layout.archive)) if path.is_file() else None
    write_atomically(path, text.encode())
    told = f"wrote {batch.layout.schema_txt} (bytes={len(text.encode())})"
    return Ensured(True, sha, f"{told}; the old one is {batch.shown(archived)}" if archived else told)


def archive(path: Path, folder: Path) -> Path:
    """Move a file into the archive under a time-stamped name that no earlier one has."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{path.stem}_{datetime.now(UTC):%Y%m%d_%H%M%S}"
    names = (f"{stem}{f'_{number}' if number else ''}{path.suffix}" for number in itertools.count())
    target = next(folder / name for name in names if not (folder / name).exists())
    path.replace(target)
    return target
