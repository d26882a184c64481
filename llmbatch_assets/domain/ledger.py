"""The ledger: one line for every call that was made, whatever came of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from llmbatch_assets.domain.outcome import Stored, TokenUsage
from llmbatch_assets.domain.request import Purpose

LEDGER_VERSION: Literal[1] = 1
OK = "ok"


class CallRecord(Stored):
    """One call. ``outcome`` is ``ok`` or the cause of the fault; a fault's tokens are those that the provider told.

    ``cost_usd`` is None where the price is not known, or where it is not known whether the call is billed.
    """

    v: Literal[1] = LEDGER_VERSION
    at_utc: str
    run_id: str
    purpose: Purpose
    work_id: str | None
    cache_id: str | None
    partition_key: str | None
    attempt: int | None
    provider: str
    model: str
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    reasoning_tokens: int
    cost_usd: float | None
    latency_sec: float
    outcome: str
    status: int | None
    request_id: str

    @property
    def usage(self) -> TokenUsage:
        """The call as a part of a sum."""
        return TokenUsage(
            requests=1,
            input_tokens=self.input_tokens,
            cached_input_tokens=self.cached_input_tokens,
            output_tokens=self.output_tokens,
            reasoning_tokens=self.reasoning_tokens,
            cost_usd=self.cost_usd,
        )


class Spending:
    """Sums over calls. The cost is what is known of it; ``unknown`` counts the calls that it leaves out."""

    def __init__(self, records: Iterable[CallRecord] = ()) -> None:
        self._usage = TokenUsage()
        self.unknown = 0
        for record in records:
            self.count(record)

    def count(self, record: CallRecord) -> None:
        """Take one more call into the sums."""
        usage = record.usage
        if usage.cost_usd is None:
            self.unknown += 1
            usage = usage.costing(0.0)
        self._usage += usage

    def take_in(self, other: Spending) -> None:
        """Take the calls of another sum into this one."""
        self.unknown += other.unknown
        self._usage += other._usage

    @property
    def usage(self) -> TokenUsage:
        """All calls together; the cost is None where nothing is known of it."""
        return self._usage if self._usage.cost_usd or not self.unknown else self._usage.costing(None)
