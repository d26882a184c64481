"""Sums over the calls of a batch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llmbatch_assets.domain.ledger import CallRecord, Spending


class Spent:
    """Sums over the ledger: of all calls, and by what the user can change."""

    def __init__(self, records: Iterable[CallRecord]) -> None:
        self.total = Spending()
        self.by_model: dict[str, Spending] = {}
        self.by_attempt: dict[int, Spending] = {}
        self.by_purpose: dict[str, Spending] = {}
        # Each call is added once, since there may be a million; the few kinds of calls are added up after that.
        kinds: dict[tuple[str, str, int | None], Spending] = {}
        for record in records:
            kind = (f"{record.provider}/{record.model}", record.purpose, record.attempt)
            kinds.setdefault(kind, Spending()).count(record)
        for (model, purpose, attempt), part in kinds.items():
            self.total.take_in(part)
            self.by_model.setdefault(model, Spending()).take_in(part)
            self.by_purpose.setdefault(purpose, Spending()).take_in(part)
            # Calls that write a schema belong to no attempt of an item.
            if attempt is not None:
                self.by_attempt.setdefault(attempt, Spending()).take_in(part)

    def shown(self) -> dict[str, Any]:
        """All sums, as JSON has them."""
        return {
            "total": sums(self.total),
            "by_model": [{"model": name, **sums(part)} for name, part in sorted(self.by_model.items())],
            "by_purpose": [{"purpose": name, **sums(part)} for name, part in sorted(self.by_purpose.items())],
            "by_attempt": [{"attempt": number, **sums(part)} for number, part in sorted(self.by_attempt.items())],
        }


def sums(spending: Spending) -> dict[str, Any]:
    """Calls, tokens and cost, and the number of calls that the cost leaves out."""
    return {**spending.usage.model_dump(), "n_unknown_cost": spending.unknown}
