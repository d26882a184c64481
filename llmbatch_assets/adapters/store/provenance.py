"""Keeps each prompt, schema and identity that outputs were made with, under its sha."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, NamedTuple

from llmbatch_assets.adapters.files.atomic import write_json
from llmbatch_assets.adapters.files.jsonl import JsonlWriter, read_jsonl
from llmbatch_assets.domain.canonical import canonical_json
from llmbatch_assets.domain.items.identity import BatchIdentity

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
        if not path.exists():
            write_json(path, text)


def kept_text(folder: Path, sha: str) -> Any:
    """Return the text kept under a sha; None if there is none that can be read."""
    try:
        return json.loads((folder / f"{sha}.json").read_bytes())
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError):
        log.warning("%s cannot be read and is ignored", folder / f"{sha}.json")
        return None


def note_use(folder: Path, use: IdentityUse) -> None:
    """Append the use, unless the last one differs only in its time."""
    last = (read_uses(folder) or [IdentityUse("", "", "")])[-1]
    if last[1:] == use[1:]:
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
            known.append(BatchIdentity.model_validate(json.loads(path.read_bytes())))
        except (ValueError, RecursionError):
            log.warning("%s cannot be read; outputs of that run are ignored", path)
    return known


def earlier_identities(folder: Path, identity: BatchIdentity) -> list[BatchIdentity]:
    """Return the identities that differ from ``identity`` only in the judge."""
    return [other for other in kept_identities(folder) if other.differs_only_in_judge(identity)]
