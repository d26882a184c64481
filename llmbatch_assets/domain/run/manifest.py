"""The manifest of a generation run: ``pipeline4_manifest.json``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pydantic import Field

from llmbatch_assets.domain.configuration.parameters import Parameters
from llmbatch_assets.domain.item_state import ItemState
from llmbatch_assets.domain.items.identity import BatchIdentity
from llmbatch_assets.domain.outcome import Source, Stored
from llmbatch_assets.domain.run.ledger import RunRecord
from llmbatch_assets.domain.usage import UsageSummary

MAX_ITEMS_BETWEEN_LINES = 1000


@dataclass
class PacingStats:
    """The number of calls, and how rate limits slowed them down."""

    calls: int = 0
    rate_limited: int = 0
    cool_downs: int = 0
    lowest_concurrency: int = 0
    seconds_waited: float = 0.0

    @classmethod
    def combined(cls, parts: Sequence[PacingStats]) -> PacingStats:
        """Return the statistics of several servers as one."""
        return cls(
            calls=sum(part.calls for part in parts),
            rate_limited=sum(part.rate_limited for part in parts),
            cool_downs=sum(part.cool_downs for part in parts),
            lowest_concurrency=min((part.lowest_concurrency for part in parts), default=0),
            seconds_waited=round(sum(part.seconds_waited for part in parts), 2),
        )


class GenerationMeta(Stored):
    """Settings and circumstances of the run. Manifests of earlier versions may lack fields that have a default."""

    pipeline: int = 4
    generated_at_utc: str
    model_name: str = ""
    temperature: float = 0.0
    provider: str = ""
    judge_enabled: bool = False
    prompt_sha: str = ""
    schema_sha: str = ""
    judge_prompt_sha: str | None = None
    elapsed_sec: float
    verbose: int = 0
    progress_every_n: int = 0
    cache_skips_pre_scan: int = 0
    cache_skips_observed: int = 0
    max_workers: int = 1
    execution_mode: str = ""
    stopped_by: str | None = None
    structured_output: str | None = None
    pacing: PacingStats = PacingStats()

    def changes_since(self, identity: BatchIdentity) -> list[str]:
        """List the settings that differ in ``identity`` and therefore require new outputs."""
        settings = {
            "the schema": "schema_sha",
            "the generation prompt": "prompt_sha",
            "the model": "model_name",
            "the temperature": "temperature",
            "the judge": "judge_enabled",
            "the judge prompt": "judge_prompt_sha",
        }
        return [
            name
            for name, key in settings.items()
            if key in self.model_fields_set and getattr(self, key) != getattr(identity, key)
        ]


class GenerationCounts(Stored):
    """Items by state after the run, which add up to ``n_total``, and the number of items to run."""

    n_total: int
    n_success: int = 0
    n_fail: int = 0
    n_not_attempted: int = 0
    n_cache_skipped: int
    n_to_run: int = 0


class OutputFiles(Stored):
    """Names of the files of all items."""

    outputs_dir: str
    failures_dir: str
    success_files: list[str]
    failure_files: list[str]


class GenerationManifest(Stored):
    meta: GenerationMeta
    counts: GenerationCounts
    failures_by_cause: dict[str, int] = Field(default_factory=dict)
    usage: UsageSummary = UsageSummary()
    outputs: OutputFiles | None = None

    def run_record(self, run_id: str, *, n_accepted: int, n_failed: int) -> RunRecord:
        """Return the run's line in the run history. The counts are of the items that the run itself finished."""
        own = {"run_id": run_id, "ended_at_utc": self.meta.generated_at_utc}
        finished = {"n_accepted": n_accepted, "n_failed": n_failed}
        # The model takes only the fields that it declares.
        return RunRecord.model_validate({**dict(self.meta), **dict(self.counts), **own, **finished})


class RunFacts(NamedTuple):
    """The facts of a run, apart from the states of its items."""

    generated_at_utc: str
    elapsed_sec: float
    n_cache_skipped: int
    n_to_run: int
    usage: UsageSummary
    pacing: PacingStats
    structured_output: str | None
    causes: Mapping[str, int]
    stopped_by: str | None


def progress_every_n(verbose: int, n_to_run: int) -> int:
    """Return the number of items between log lines: about ``verbose`` lines per run, every item at 10, none (0) at 0."""
    if verbose <= 0:
        return 0
    return 1 if verbose >= 10 else max(1, min(n_to_run // verbose, MAX_ITEMS_BETWEEN_LINES))


def generation_manifest(
    parameters: Parameters, source: Source, states: Mapping[str, ItemState], facts: RunFacts, files: OutputFiles
) -> GenerationManifest:
    """Build the manifest. ``states`` has the state of every item after the run."""
    max_workers, counted = parameters.llm.max_workers, Counter(states.values())
    settings = {
        "provider": source.provider,
        "verbose": parameters.cache.verbose,
        "progress_every_n": progress_every_n(parameters.cache.verbose, facts.n_to_run),
        "cache_skips_pre_scan": facts.n_cache_skipped,
        "cache_skips_observed": facts.n_cache_skipped,
        "max_workers": max_workers,
        "execution_mode": "parallel" if max_workers > 1 else "sequential",
    }
    # The model takes only the fields that it declares.
    meta = GenerationMeta.model_validate({**dict(source.identity), **facts._asdict(), **settings})
    counts = GenerationCounts(
        n_total=len(states),
        n_success=counted["accepted"],
        n_fail=counted["failed"] + counted["failed_permanently"],
        n_not_attempted=counted["missing"],
        n_cache_skipped=facts.n_cache_skipped,
        n_to_run=facts.n_to_run,
    )
    return GenerationManifest(
        meta=meta, counts=counts, failures_by_cause=dict(facts.causes), usage=facts.usage, outputs=files
    )
