"""How a batch stands: items by state, failures by cause, and what the calls so far came to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from llmbatch_assets.domain.ledger import CallRecord
from llmbatch_assets.domain.plan.selection import State
from llmbatch_assets.domain.text import cut, flatten
from llmbatch_assets.domain.usage import UsageTotal

STATES: tuple[State, ...] = ("accepted", "failed", "failed_permanently", "missing")
EXAMPLE_CHARS = 200


class LastFailure(NamedTuple):
    """The last failed attempt of an item, as its file says."""

    partition_key: str
    row_index: int | None
    file: str
    content: dict[str, Any]

    def shown(self) -> dict[str, Any]:
        """The failure as an example of its cause."""
        error = self.content.get("error")
        message = str(error.get("message", "")) if isinstance(error, dict) else "the file cannot be read"
        return {
            "partition_key": self.partition_key,
            "row_index": self.row_index,
            "message": cut(flatten(message), EXAMPLE_CHARS)[0],
            "file": self.file,
        }


def failures_by_cause(failures: Iterable[LastFailure]) -> list[dict[str, Any]]:
    """Failed items by cause, the most frequent first, each cause with the first item that has it."""
    by_cause: dict[str, list[LastFailure]] = {}
    for failure in failures:
        by_cause.setdefault(str(failure.content.get("cause", "unreadable_failure")), []).append(failure)
    most_first = sorted(by_cause.items(), key=lambda one: (-len(one[1]), one[0]))
    return [
        {
            "cause": cause,
            "class": found[0].content.get("class"),
            "n_items": len(found),
            "example": found[0].shown(),
        }
        for cause, found in most_first
    ]


class Spent:
    """Sums over the ledger: of all calls, and by what the user can change."""

    def __init__(self, records: Iterable[CallRecord]) -> None:
        self.total = UsageTotal()
        self.by_model: dict[str, UsageTotal] = {}
        self.by_attempt: dict[int, UsageTotal] = {}
        self.by_purpose: dict[str, UsageTotal] = {}
        # Each call is added once, since there may be a million; the few kinds of calls are added up after that.
        kinds: dict[tuple[str, str, int | None], UsageTotal] = {}
        for record in records:
            kind = (f"{record.provider}/{record.model}", record.purpose, record.attempt)
            kinds.setdefault(kind, UsageTotal()).add(record)
        for (model, purpose, attempt), part in kinds.items():
            self.total.add_total(part)
            self.by_model.setdefault(model, UsageTotal()).add_total(part)
            self.by_purpose.setdefault(purpose, UsageTotal()).add_total(part)
            # Calls that write a schema belong to no attempt of an item.
            if attempt is not None:
                self.by_attempt.setdefault(attempt, UsageTotal()).add_total(part)

    def shown(self) -> dict[str, Any]:
        """All sums, as JSON has them."""
        return {
            "total": sums(self.total),
            "by_model": [{"model": name, **sums(part)} for name, part in sorted(self.by_model.items())],
            "by_purpose": [{"purpose": name, **sums(part)} for name, part in sorted(self.by_purpose.items())],
            "by_attempt": [{"attempt": number, **sums(part)} for number, part in sorted(self.by_attempt.items())],
        }


def sums(spending: UsageTotal) -> dict[str, Any]:
    """Calls, tokens and cost, and the number of calls that the cost leaves out."""
    return spending.summary().model_dump()


def counts_of(states: Iterable[State]) -> dict[str, int]:
    """Items by state; each state is there, and ``total`` is their sum."""
    counted: dict[str, int] = dict.fromkeys(STATES, 0)
    for state in states:
        counted[state] += 1
    return {"total": sum(counted.values()), **counted}
