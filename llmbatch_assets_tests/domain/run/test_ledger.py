"""Sums over calls, and the number of calls of unknown cost."""

from __future__ import annotations

from typing import Any

from llmbatch_assets.domain.run.ledger import CallRecord
from llmbatch_assets.domain.usage import TokenUsage, UsageTotal

PLAIN: dict[str, Any] = {
    "at_utc": "2026-02-16T00:00:00.000+00:00",
    "run_id": "r",
    "purpose": "generate",
    "work_id": None,
    "cache_id": None,
    "partition_key": None,
    "attempt": None,
    "provider": "openai",
    "model": "m",
    "input_tokens": 10,
    "cached_input_tokens": 4,
    "output_tokens": 5,
    "reasoning_tokens": 2,
    "cost_usd": 0.25,
    "latency_sec": 0.5,
    "outcome": "ok",
    "status": 200,
    "request_id": "",
}


def record(**changes: Any) -> CallRecord:
    """One call."""
    return CallRecord.model_validate(PLAIN | changes)


def test_all_calls_are_added() -> None:
    spending = UsageTotal([record(), record(outcome="timeout", status=None, input_tokens=0, cost_usd=0.0)])
    assert spending.usage == TokenUsage(
        requests=2,
        input_tokens=10,
        cached_input_tokens=8,
        output_tokens=10,
        reasoning_tokens=4,
        cost_usd=0.25,
    )
    assert spending.n_unknown_cost == 0


def test_a_partly_known_cost_has_the_number_of_unknown_calls() -> None:
    spending = UsageTotal([record(), record(cost_usd=None)])
    assert (spending.known_cost_usd, spending.n_unknown_cost) == (0.25, 1)


def test_a_cost_without_any_known_part_is_unknown_not_zero() -> None:
    assert UsageTotal([record(cost_usd=None), record(cost_usd=0.0)]).known_cost_usd is None
    assert UsageTotal().known_cost_usd == 0.0
