"""How a run stands, in counts."""

from __future__ import annotations

from dataclasses import dataclass, field

from llmbatch_assets.domain.outcome import TokenUsage
from llmbatch_assets.engine.attempt import ItemResult


@dataclass
class Tally:
    """How a run stands. Counts of items, but for ``usage``.

    ``found`` are items that another run has accepted in the meantime, ``failed_for_good`` those of the failed ones that
    the provider refused, ``cached`` those that had an output before the run and are no part of ``total``.
    """

    total: int
    accepted: int = 0
    failed: int = 0
    found: int = 0
    failed_for_good: int = 0
    in_flight: int = 0
    cached: int = 0
    causes: dict[str, int] = field(default_factory=dict)
    usage: TokenUsage = field(default_factory=TokenUsage)

    @property
    def done(self) -> int:
        return self.accepted + self.failed + self.found

    def count(self, result: ItemResult) -> None:
        """Take one ended item into the counts."""
        self.usage += result.usage
        if result.found:
            self.found += 1
        elif result.failed is None:
            self.accepted += 1
        else:
            self.failed += 1
            self.failed_for_good += result.failed.item_permanent
            self.causes[result.failed.cause] = self.causes.get(result.failed.cause, 0) + 1
