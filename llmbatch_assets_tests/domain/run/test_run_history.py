"""Past runs, combined from the call log and the run history."""

from __future__ import annotations

from typing import Any

from llmbatch_assets.domain.report.charts import history_charts
from llmbatch_assets.domain.run.ledger import CallRecord, RunRecord, last_runs, usage_by_run, usage_of_all_runs


def call(run_id: str, cost: float | None = 0.5, **changes: Any) -> CallRecord:
    values: dict[str, Any] = {
        "at_utc": "2026-01-01T00:00:00.000+00:00",
        "run_id": run_id,
        "purpose": "generate",
        "provider": "openai",
        "model": "m",
        "input_tokens": 10,
        "cached_input_tokens": 0,
        "output_tokens": 5,
        "reasoning_tokens": 0,
        "cost_usd": cost,
        "latency_sec": 0.1,
        "outcome": "ok",
        "status": 200,
        "request_id": "",
        **dict.fromkeys(("work_id", "cache_id", "partition_key", "attempt")),
    }
    return CallRecord.model_validate(values | changes)


def record(run_id: str, ended: str, **changes: Any) -> RunRecord:
    """A run that accepted 3 of 4 items."""
    values: dict[str, Any] = {
        "run_id": run_id,
        "ended_at_utc": ended,
        "elapsed_sec": 1.0,
        "provider": "openai",
        "model_name": "m",
        "prompt_sha": "p",
        "schema_sha": "s",
        "judge_prompt_sha": None,
        "n_total": 4,
        "n_success": 3,
        "n_fail": 1,
        "n_not_attempted": 0,
        "n_to_run": 4,
        "n_accepted": 3,
        "n_failed": 1,
        "stopped_by": None,
    }
    return RunRecord(**values | changes)


def test_usage_by_run_sums_known_costs_and_counts_unknown_ones() -> None:
    costs = usage_by_run([call("a"), call("a", None), call("b", None), call("c", 0.0)])
    first = costs["a"].total
    assert (first.known_cost_usd, first.n_unknown_cost, first.requests, first.total_tokens) == (0.5, 1, 2, 30)
    assert (costs["b"].total.known_cost_usd, costs["c"].total.known_cost_usd) == (None, 0.0)
    total = usage_of_all_runs(costs.values())
    assert (total.requests, total.total_tokens, total.n_unknown_cost, total.known_cost_usd) == (4, 60, 2, 0.5)


def test_the_last_runs_are_listed_oldest_first() -> None:
    records = [record(name, f"2026-01-0{day}T00:00:00Z") for name, day in (("b", 2), ("c", 3), ("a", 1))]
    assert [run.run_id for run in last_runs(records, {}, 2)] == ["b", "c"]


def test_a_killed_run_is_listed_from_its_calls_but_a_schema_run_or_a_ping_is_not() -> None:
    calls = [call("killed", work_id="item"), call("schema", purpose="schema"), call("ping")]
    costs = usage_by_run(calls)
    (run,) = last_runs([], costs, 5)
    assert (run.run_id, run.record, run.acceptance, run.total.requests) == ("killed", None, None, 1)
    assert run.at_utc == "2026-01-01T00:00:00.000+00:00"


def test_history_charts_show_acceptance_and_cost() -> None:
    records = [record("a", "2026-01-01T00:00:00Z"), record("b", "2026-01-02T00:00:00Z", n_success=4)]
    share, cost = history_charts(last_runs(records, usage_by_run([call("a"), call("b", 0.25)]), 5))
    assert [bar.value for bar in share.bars] == [75.0, 100.0]
    assert [bar.value for bar in cost.bars] == [0.5, 0.25]
