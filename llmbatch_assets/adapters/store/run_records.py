"""Records of runs: the call ledger, the run history, and the prompts, schemas and identities of outputs by sha."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Self

import orjson
from pydantic import ValidationError

from llmbatch_assets.adapters.files.atomic import read_regular, write_json
from llmbatch_assets.adapters.files.jsonl import JsonlWriter, read_jsonl
from llmbatch_assets.domain.canonical import canonical_json
from llmbatch_assets.domain.items.identity import BatchIdentity
from llmbatch_assets.domain.run.ledger import CallRecord, RunRecord
from llmbatch_assets.domain.usage import UsageTotal
from llmbatch_assets.errors import RunPermanentError, StopCause

log = logging.getLogger(__name__)

USES = "uses.jsonl"


class IdentityUse(NamedTuple):
    """From ``at_utc`` on, runs used this identity and these item settings, both named by their shas."""

    at_utc: str
    identity: str
    items: str


def keep_provenance(folder: Path, texts: dict[str, Any]) -> None:
    """Write each text to a file named by its sha, unless it exists."""
    for sha, text in texts.items():
        path = folder / f"{sha}.json"
        if not path.is_file():
            write_json(path, text)


def kept_text(folder: Path, sha: str) -> Any:
    """Return the text kept under a sha; None if there is none that can be read."""
    try:
        return json.loads(read_regular(folder / f"{sha}.json"))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError, OSError):
        log.warning("%s cannot be read and is ignored", folder / f"{sha}.json")
        return None


def note_use(folder: Path, use: IdentityUse) -> None:
    """Append the use, unless the last one differs only in its time."""
    uses = read_uses(folder)
    if uses and uses[-1][1:] == use[1:]:
        return
    with JsonlWriter(folder / USES) as file:
        file.append(canonical_json(use._asdict()).encode())


def read_uses(folder: Path) -> list[IdentityUse]:
    """Return the uses, the latest last."""
    return list(read_jsonl(folder / USES, IdentityUse))


def kept_identities(folder: Path) -> list[BatchIdentity]:
    """Return the identities of all runs, in no particular order."""
    known: list[BatchIdentity] = []
    for path in sorted(folder.glob("identity_*.json")):
        try:
            known.append(BatchIdentity.model_validate(json.loads(read_regular(path))))
        except (ValueError, RecursionError, OSError):
            log.warning("%s cannot be read; outputs of that run are ignored", path)
    return known


def identity_as_kept(folder: Path, identity: BatchIdentity) -> BatchIdentity:
    """Return the identity under which the same requests were last made, so that their outputs are found; else this one.

    The two can only differ in the spelling of the server's address.
    """
    kept = {one.sha: one for one in kept_identities(folder) if one.asks_the_same(identity)}
    if len(kept) < 2:
        return next(iter(kept.values()), identity)
    used = (kept.get(use.identity) for use in reversed(read_uses(folder)))
    return next((one for one in used if one is not None), next(iter(kept.values())))


def earlier_identities(folder: Path, identity: BatchIdentity) -> list[BatchIdentity]:
    """Return the identities that differ from ``identity`` only in the judge."""
    return [other for other in kept_identities(folder) if other.differs_only_in_judge(identity)]


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

    def open(self) -> None:
        """Open the file, or create it. Raises ``OSError`` if that fails."""
        self._file.open()

    def write(self, record: CallRecord) -> None:
        """Append one line. Raises ``OSError`` if it cannot be written as a whole."""
        fields = record.model_dump()
        try:
            line = orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)
        except TypeError:
            # A lone surrogate, for example in a provider's request id.
            line = canonical_json(fields).encode("utf-8", "backslashreplace")
        self._file.append(line)


def read_ledger(path: Path) -> Iterator[CallRecord]:
    """Yield the call records in the order in which they were written."""
    return read_jsonl(path, CallRecord)


_CACHE_ID = re.compile(rb'"cache_id":"([0-9a-f]{40})"')


def usage_of_items(path: Path, cache_ids: Collection[str]) -> dict[str, UsageTotal]:
    """Sum the calls of these items, by cache id. Only the lines of these items are parsed."""
    wanted, totals = {cache_id.encode() for cache_id in cache_ids}, dict[str, UsageTotal]()
    if not wanted or not path.is_file():
        return totals
    with path.open("rb") as lines:
        for line in lines:
            found = _CACHE_ID.search(line)
            if found is None or found[1] not in wanted:
                continue
            # A line that was cut off is reported where the whole ledger is read.
            with suppress(ValidationError):
                totals.setdefault(found[1].decode(), UsageTotal()).add(CallRecord.model_validate_json(line))
    return totals


def check_history(path: Path) -> None:
    """Raise ``RunPermanentError`` if a run could not be appended to an existing history."""
    try:
        with JsonlWriter(path):
            pass
    except OSError as refused:
        raise RunPermanentError(
            StopCause.DISK, f"{path} cannot be written to ({refused.strerror}); no call was made"
        ) from None


def append_run(path: Path, record: RunRecord) -> None:
    """Append a run to the history; the line is on disk on return."""
    with JsonlWriter(path) as file:
        file.append(canonical_json(record.model_dump(mode="json")).encode())


def read_runs(path: Path) -> Iterator[RunRecord]:
    """Yield the runs in the order in which they ended."""
    return read_jsonl(path, RunRecord)
