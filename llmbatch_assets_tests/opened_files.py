"""Records which output and failure files, and which input tables, this process opens for reading."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FOLDERS = {"llm_outputs": ".json", "llm_failures": ".json", "raw_data": ".csv"}
_records: list[list[str]] = []


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if event != "open" or not _records or not isinstance(arguments[0], str):
        return
    path = Path(arguments[0])
    # A file that does not exist is looked for, not read.
    if path.suffix == _FOLDERS.get(path.parent.name) and arguments[1] in ("r", "rb") and path.exists():
        for record in _records:
            record.append(str(path))


# A hook cannot be removed, so there is one for all tests. Without a recording it does nothing.
sys.addaudithook(_note)


@contextmanager
def recording_opens() -> Iterator[list[str]]:
    """Collect the path of each file at each opening."""
    record: list[str] = []
    _records.append(record)
    try:
        yield record
    finally:
        _records.remove(record)
