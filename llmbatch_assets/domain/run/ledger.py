"""The call log (one line per call) and the run history (one line per run)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from llmbatch_assets.domain.outcome import Stored
from llmbatch_assets.domain.request import Purpose
from llmbatch_assets.domain.usage import UsageTotal

OK = "ok"


class CallRecord(Stored):
    """One call. ``outcome`` is ``ok`` or the cause of the error. The tokens of a failed call are those the provider reported.

    ``cost_usd`` is None if the price is unknown, or if the call may or may not be billed.
    """

    v: Literal[1] = 1
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
    def requests(self) -> int:
        """1, so that a ``UsageTotal`` can add the record."""
        return 1


class RunRecord(Stored):
    """One line of ``run_history.jsonl``: the state of the batch after a run of ``llm_outputs`` that had items to run."""

    v: Literal[1] = 1
    run_id: str
    ended_at_utc: str
    elapsed_sec: float
    provider: str
    model_name: str
    prompt_sha: str
    schema_sha: str
    judge_prompt_sha: str | None
    n_total: int
    n_success: int
    n_fail: int
    n_not_attempted: int
    n_to_run: int
    n_accepted: int
    n_failed: int
    stopped_by: str | None


@dataclass
class RunUsage:
    """The calls of one run. ``has_items``: some of them were for items, not to write a schema or to ping a model."""

    started_at_utc: str = ""
    total: UsageTotal = field(default_factory=UsageTotal)
    has_items: bool = False

    def add(self, call: CallRecord) -> None:
        self.started_at_utc = min(self.started_at_utc or call.at_utc, call.at_utc)
        self.total.add(call)
        self.has_items |= call.work_id is not None


@dataclass(frozen=True)
class PastRun:
    """A run in the call log and the run history. A run without a ``record`` was cut short."""

    run_id: str
    at_utc: str
    total: UsageTotal
    record: RunRecord | None

    @property
    def acceptance(self) -> float | None:
        """The share of all items that had an output at the end of the run."""
        if self.record is None or not self.record.n_total:
            return None
        return self.record.n_success / self.record.n_total


def usage_by_run(calls: Iterable[CallRecord]) -> dict[str, RunUsage]:
    """Sum the calls of each run, by run id."""
    runs: dict[str, RunUsage] = {}
    for call in calls:
        runs.setdefault(call.run_id, RunUsage()).add(call)
    return runs


def usage_of_all_runs(runs: Iterable[RunUsage]) -> UsageTotal:
    total = UsageTotal()
    for run in runs:
        total.add_total(run.total)
    return total


def last_runs(records: Iterable[RunRecord], usages: Mapping[str, RunUsage], limit: int) -> list[PastRun]:
    """Return the last runs that generated or judged outputs, the oldest first."""
    # A run that Dagster retries keeps its id; its last record counts.
    known = {record.run_id: record for record in records}
    ids = [*known, *(run_id for run_id, run in usages.items() if run_id not in known and run.has_items)]
    runs = []
    for run_id in ids:
        usage, record = usages.get(run_id, RunUsage()), known.get(run_id)
        at_utc = record.ended_at_utc if record else usage.started_at_utc
        runs.append(PastRun(run_id, at_utc, usage.total, record))
    return sorted(runs, key=lambda run: run.at_utc)[-limit:]


def usage_breakdown(records: Iterable[CallRecord]) -> dict[str, Any]:
    """Sum up the call log as JSON: in total, and by model, purpose and attempt."""
    # Sum each of the million calls once; combine the few kinds of calls afterwards.
    kinds: dict[tuple[str, str, int | None], UsageTotal] = {}
    for record in records:
        kind = (f"{record.provider}/{record.model}", record.purpose, record.attempt)
        kinds.setdefault(kind, UsageTotal()).add(record)
    total = UsageTotal()
    totals: dict[str, dict[Any, UsageTotal]] = {"model": {}, "purpose": {}, "attempt": {}}
    for values, part in kinds.items():
        total.add_total(part)
        for by, value in zip(totals.values(), values, strict=True):
            # Calls that write a schema do not belong to an attempt.
            if value is not None:
                by.setdefault(value, UsageTotal()).add_total(part)
    return {"total": _summary(total)} | {
        f"by_{name}": [{name: value, **_summary(part)} for value, part in sorted(by.items())]
        for name, by in totals.items()
    }


def _summary(total: UsageTotal) -> dict[str, Any]:
    return total.summary().model_dump()
