"""The runs of a batch: what each did, and what its calls came to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from llmbatch_assets.domain.cost import dollars, shown
from llmbatch_assets.domain.ledger import CallRecord
from llmbatch_assets.domain.outcome import Stored


class RunRecord(Stored):
    """One line of ``run_history.jsonl``: how a run of ``llm_outputs`` that had something to do left the batch."""

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


def run_record(manifest: Mapping[str, Any], run_id: str, *, n_accepted: int, n_failed: int) -> RunRecord:
    """The record of a run whose manifest of Pipeline 4 this is; it accepted and failed so many items itself."""
    meta, counts = manifest["meta"], manifest["counts"]
    names = ("elapsed_sec", "provider", "model_name", "prompt_sha", "schema_sha", "judge_prompt_sha", "stopped_by")
    states = ("n_total", "n_success", "n_fail", "n_not_attempted", "n_to_run")
    return RunRecord(
        run_id=run_id,
        ended_at_utc=meta["generated_at_utc"],
        n_accepted=n_accepted,
        n_failed=n_failed,
        **{name: meta[name] for name in names},
        **{name: counts[name] for name in states},
    )


@dataclass
class RunCosts:
    """What the calls of one run came to. ``cost_usd`` is what is known of it; ``unknown`` counts the calls without."""

    began_at_utc: str = ""
    calls: int = 0
    tokens: int = 0
    cost_usd: float = 0.0
    unknown: int = 0
    purposes: set[str] = field(default_factory=set)

    def count(self, call: CallRecord) -> None:
        """Take one more call into the sums."""
        self.began_at_utc = min(self.began_at_utc or call.at_utc, call.at_utc)
        self.calls += 1
        self.tokens += call.input_tokens + call.output_tokens
        self.purposes.add(call.purpose)
        if call.cost_usd is None:
            self.unknown += 1
        else:
            self.cost_usd = dollars(self.cost_usd + call.cost_usd)

    @property
    def known_cost(self) -> float | None:
        """The cost, None where nothing is known of it."""
        return self.cost_usd if self.cost_usd or not self.unknown else None

    @property
    def shown(self) -> str:
        """The cost for people."""
        return shown(self.known_cost, self.unknown)


@dataclass(frozen=True)
class PastRun:
    """A run as the ledger and the history together tell of it. One without a record did not come to its end."""

    run_id: str
    at_utc: str
    costs: RunCosts
    record: RunRecord | None

    @property
    def acceptance(self) -> float | None:
        """The share of all items that had an output when it ended."""
        if self.record is None or not self.record.n_total:
            return None
        return self.record.n_success / self.record.n_total


def costs_by_run(calls: Iterable[CallRecord]) -> dict[str, RunCosts]:
    """The sums of the ledger, by run."""
    runs: dict[str, RunCosts] = {}
    for call in calls:
        runs.setdefault(call.run_id, RunCosts()).count(call)
    return runs


def all_runs(costs: Iterable[RunCosts]) -> RunCosts:
    """All runs together."""
    total = RunCosts()
    for run in costs:
        total.calls += run.calls
        total.tokens += run.tokens
        total.unknown += run.unknown
        total.cost_usd = dollars(total.cost_usd + run.cost_usd)
    return total


def last_runs(records: Iterable[RunRecord], costs: Mapping[str, RunCosts], most: int) -> list[PastRun]:
    """The last runs that made or judged outputs, the oldest of them first."""
    # A run that Dagster retries keeps its name; its last word counts.
    known = {record.run_id: record for record in records}
    ids = [*known, *(name for name, run in costs.items() if name not in known and run.purposes - {"schema"})]
    runs = [_past_run(name, costs.get(name, RunCosts()), known.get(name)) for name in ids]
    return sorted(runs, key=lambda run: run.at_utc)[-most:]


def _past_run(run_id: str, costs: RunCosts, record: RunRecord | None) -> PastRun:
    return PastRun(run_id, record.ended_at_utc if record else costs.began_at_utc, costs, record)
