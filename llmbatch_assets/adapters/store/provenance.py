"""What was asked, kept for good: each prompt and schema that outputs were made with, under its sha."""

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


class Use(NamedTuple):
    """From ``at_utc`` on, runs asked what ``identity`` names, of rows made into items as ``items`` names."""

    at_utc: str
    identity: str
    items: str


def keep_provenance(folder: Path, texts: dict[str, Any]) -> None:
    """Keep every text under its sha, once."""
    for sha, text in texts.items():
        path = folder / f"{sha}.json"
        if not path.exists():
            write_json(path, text)


def kept_text(folder: Path, sha: str) -> Any:
    """What is kept under a sha, None where nothing is, or nothing that can be read."""
    try:
        return json.loads((folder / f"{sha}.json").read_bytes())
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError):
        log.warning("%s cannot be read; what it said is not known", folder / f"{sha}.json")
        return None


def note_use(folder: Path, use: Use) -> None:
    """Append the use, unless the last one differs only in its time."""
    last = (read_uses(folder) or [Use("", "", "")])[-1]
    if last[1:] == use[1:]:
        return
    with JsonlWriter(folder / USES) as file:
        file.append(canonical_json(use._asdict()).encode())


def read_uses(folder: Path) -> list[Use]:
    """Return the uses, the latest last."""
    return list(read_jsonl(folder / USES, Use))


def kept_identities(folder: Path) -> list[BatchIdentity]:
    """Everything that runs have asked, in no order that means anything."""
    known: list[BatchIdentity] = []
    for path in sorted(folder.glob("identity_*.json")):
        try:
            known.append(BatchIdentity.model_validate(json.loads(path.read_bytes())))
        except (ValueError, RecursionError):
            log.warning("%s cannot be read; outputs of that run are not looked for", path)
    return known


def earlier_identities(folder: Path, identity: BatchIdentity) -> list[BatchIdentity]:
    """What was asked by runs whose outputs differ from those of ``identity`` only in who judged them."""
    return [other for other in kept_identities(folder) if other.differs_only_in_judge(identity)]
