"""The schema's text beside its module, and the archive of what was replaced."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from llmbatch_assets.adapters.files.atomic import log_written, write_atomically
from llmbatch_assets.domain.canonical import sha1_text
from llmbatch_assets.errors import SchemaError
from llmbatch_assets.stages.project import Batch


class Ensured(NamedTuple):
    """What was done to a schema file."""

    written: bool
    sha: str
    told: str


def ensure_schema_txt(batch: Batch, *, force: bool = False) -> Ensured:
    """Write the schema's text where it is missing or no longer matches the module; the old one is archived."""
    path, text = batch.path(batch.layout.schema_txt), batch.schema.text()
    sha = sha1_text(text)
    if not force and path.is_file() and not schema_txt_mismatch(batch):
        return Ensured(False, sha, f"{batch.layout.schema_txt} matches {batch.layout.schema_py}; nothing to do")
    archived = replace_schema_txt(batch, text)
    told = f"wrote {batch.layout.schema_txt} (bytes={len(text.encode())})"
    return Ensured(True, sha, f"{told}; the old one is {batch.shown(archived)}" if archived else told)


def replace_schema_txt(batch: Batch, text: str) -> Path | None:
    """Write the schema's text; gives the archived copy of the one before."""
    path = batch.path(batch.layout.schema_txt)
    archived = archive(path, batch.path(batch.layout.archive)) if path.is_file() else None
    log_written(batch.shown(path), write_atomically(path, text.encode()))
    return archived


def schema_txt_mismatch(batch: Batch) -> str:
    """What is to be told of a text that is not the module's, or nothing. Raises ``SchemaError`` where that is an error."""
    path = batch.path(batch.layout.schema_txt)
    # A checkout may have changed the line ends.
    if not path.is_file() or path.read_bytes().replace(b"\r\n", b"\n") == batch.schema.text().encode():
        return ""
    told = f"{batch.layout.schema_txt} does not match {batch.layout.schema_py}"
    if batch.parameters.llm_schema.on_mismatch == "error":
        raise SchemaError(
            f"{told}, and llm_schema.on_mismatch is error; "
            f"write it anew with: {batch.command} --select llm_schema_txt --force"
        )
    return f"{told}; prompts show the module's: write the text anew with: {batch.command} --select llm_schema_txt"


def replace_schema_py(batch: Batch, source: str) -> Path | None:
    """Put a module that was vetted in place; gives the archived copy of the one before."""
    path = batch.path(batch.layout.schema_py)
    archived = archive(path, batch.path(batch.layout.archive)) if path.is_file() else None
    log_written(batch.shown(path), write_atomically(path, source.encode()))
    return archived


def archive(path: Path, folder: Path) -> Path:
    """Copy a file into the archive under a time-stamped name that no earlier one has; it stays until replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{path.stem}_{datetime.now(UTC):%Y%m%d_%H%M%S}"
    names = (f"{stem}{f'_{number}' if number else ''}{path.suffix}" for number in itertools.count())
    target = next(folder / name for name in names if _is_taken_now(folder / name))
    write_atomically(target, path.read_bytes())
    return target


def _is_taken_now(path: Path) -> bool:
    """Take a name that is free; looking first and writing later could be two runs' writing to one."""
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
