"""The state of a work item, derived from its artifacts.

Accepted: a readable output whose identity hashes to its cache id and which, if it was edited, still matches the schema.
Failed or permanently failed: failed attempts and no accepted output; the last attempt decides. Missing: no artifact.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple, Protocol, get_args

from pydantic import ValidationError

from llmbatch_assets.domain.canonical import canonical_json, sha1_text
from llmbatch_assets.domain.outcome import AcceptedOutput, FailedAttempt, ItemResult
from llmbatch_assets.errors import AnswerError, FailureCause

ItemState = Literal["accepted", "failed", "failed_permanently", "missing"]
STATES: tuple[ItemState, ...] = get_args(ItemState)
_REQUIRED_META = {"attempt_outer", "model", "generation_id"}


class OutputContract(Protocol):
    """The schema that outputs were validated against."""

    @property
    def sha(self) -> str: ...

    def validate(self, answer: dict[str, Any]) -> object:
        """Raise ``AnswerError`` if the answer does not match."""
        ...


class CheckedOutput(NamedTuple):
    """An accepted output, or the defect that makes a stored one unusable. Neither is set if nothing is stored.

    ``edited`` outputs were changed by hand. Whether they are accepted depends on the current schema.
    """

    output: AcceptedOutput | None = None
    defect: str = ""
    edited: bool = False


def item_state(output: AcceptedOutput | None, last_failure: FailedAttempt | None) -> ItemState:
    """Return the state of an item with this accepted output or, if it has none, with this last failed attempt."""
    if output is not None:
        return "accepted"
    if last_failure is None:
        return "missing"
    return "failed_permanently" if last_failure.item_permanent else "failed"


def state_after(result: ItemResult, before: ItemState) -> ItemState:
    """Return the state of an item after an attempt, given its state before it."""
    if result.failed is None or before == "accepted":
        # If a forced regeneration failed, the earlier output is kept.
        return "accepted"
    return item_state(None, result.failed)


def check_output(
    content: dict[str, Any] | None, cache_id: str, contract: Callable[[], OutputContract] | None
) -> CheckedOutput:
    """Check the content of the output file of ``cache_id``. It is None if the file does not hold a JSON object."""
    if content is None:
        return CheckedOutput(defect="it holds no JSON object")
    edited = False
    try:
        output = AcceptedOutput.model_validate(content)
        if not _belongs_to(output.meta, cache_id):
            return CheckedOutput(defect="its identity does not match its name")
        edited = content.get("parsed_sha", "") not in ("", parsed_sha(output.parsed))
        if edited and contract:
            _check_edited(output, contract())
    except AnswerError:
        return CheckedOutput(defect="it was edited and no longer matches the schema", edited=True)
    except ValidationError as broken:
        first = broken.errors()[0]
        return CheckedOutput(defect=f"it cannot be read ({'.'.join(map(str, first['loc']))}: {first['msg']})")
    except (ValueError, RecursionError) as broken:
        return CheckedOutput(defect=f"it cannot be read: {str(broken).splitlines()[0]}")
    return CheckedOutput(output, edited=edited)


def _check_edited(output: AcceptedOutput, contract: OutputContract) -> None:
    # Revalidate edited outputs only: some contracts reject their own results, such as a default they forbid.
    # The contract knows nothing about outputs of another schema.
    if output.meta["identity"].get("schema_sha") == contract.sha:
        contract.validate(output.parsed)


def parsed_sha(parsed: dict[str, Any]) -> str:
    """Return the fingerprint that shows whether a stored output was edited."""
    return sha1_text(canonical_json(parsed))


def _belongs_to(meta: dict[str, Any], cache_id: str) -> bool:
    identity = meta.get("identity")
    if meta.get("cache_id") != cache_id or not isinstance(identity, dict) or not meta.keys() >= _REQUIRED_META:
        return False
    return type(meta["attempt_outer"]) is int and sha1_text(canonical_json(identity)) == cache_id


def unreadable_failure(cache_id: str, attempt: int) -> FailedAttempt:
    """Return the stand-in for a failed attempt whose file cannot be read. Its item counts as failed."""
    return FailedAttempt.model_validate(
        {
            "meta": {"cache_id": cache_id, "attempt_outer": attempt},
            "error": {"type": "ArtifactError", "message": "the file of this failure cannot be read"},
            "class": "transient",
            "cause": FailureCause.UNREADABLE_FAILURE,
            "raw_text": None,
            "feedback": None,
            "judge": None,
            "usage": {},
            "latency_sec": 0.0,
        }
    )


def count_states(states: Iterable[ItemState]) -> dict[str, int]:
    """Count items by state. Every state is included, and ``total`` is their sum."""
    counts = Counter(states)
    return {"total": counts.total(), **{state: counts[state] for state in STATES}}
