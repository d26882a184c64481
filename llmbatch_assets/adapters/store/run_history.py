"""The history of runs as a file: one line each, appended and never changed."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from llmbatch_assets.domain.canonical import canonical_json
from llmbatch_assets.domain.ledger import RunRecord

log = logging.getLogger(__name__)


def append_run(path: Path, record: RunRecord) -> None:
    """Append a run; the line is on disk on return. A line that was cut off spoils itself, not this one."""
    line = canonical_json(record.model_dump(mode="json")).encode() + b"\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            line = line if file.read(1) == b"\n" else b"\n" + line
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def read_runs(path: Path) -> Iterator[RunRecord]:
    """The runs in the order in which they ended. A line that cannot be read is told and left out."""
    if not path.is_file():
        return
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                if line.strip():
                    yield RunRecord.model_validate(json.loads(line))
            except (ValueError, ValidationError, RecursionError):
                log.warning("line %d of %s cannot be read and is left out; its writer was cut short", number, path)
