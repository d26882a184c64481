"""The call ledger (``usage.jsonl``) and the run history (``run_history.jsonl``)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Self

import orjson

from llmbatch_assets.adapters.files.jsonl import JsonlWriter, read_jsonl
from llmbatch_assets.domain.canonical import canonical_json
from llmbatch_assets.domain.ledger import CallRecord, RunRecord
from llmbatch_assets.errors import RunPermanentError, StopCause

# A sync for every call would cost more than the few lines that a power failure can take.
SYNC_LINES = 100


class UsageLedger:
    """Appends a record of each call."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = JsonlWriter(path, sync_every=SYNC_LINES)

    def __enter__(self) -> Self:
        """Raises ``RunPermanentError`` if an existing ledger cannot be appended to."""
        try:
            self._file.__enter__()
        except OSError as refused:
            raise RunPermanentError(
                StopCause.DISK, f"{self._path} cannot be written to ({refused.strerror}); no call was made"
            ) from None
        return self

    def __exit__(self, *error: object) -> None:
        self._file.__exit__(*error)

    def write(self, record: CallRecord) -> None:
        """Append one line. Raises ``OSError`` if it cannot be written as a whole."""
        fields = dict(record)
        try:
            line = orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)
        except TypeError:
            # A lone surrogate, for example in a provider's request id.
            line = canonical_json(fields).encode("utf-8", "backslashreplace")
        self._file.append(line)


def read_ledger(path: Path) -> Iterator[CallRecord]:
    """Yield the call records in the order in which they were written."""
    return read_jsonl(path, CallRecord)


def append_run(path: Path, record: RunRecord) -> None:
    """Append a run to the history; the line is on disk on return."""
    with JsonlWriter(path) as file:
        file.append(canonical_json(record.model_dump(mode="json")).encode())


def read_runs(path: Path) -> Iterator[RunRecord]:
    """Yield the runs in the order in which they ended."""
    return read_jsonl(path, RunRecord)
