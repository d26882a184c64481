"""The summary of a generation run: ``pipeline4_manifest.json``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel

from llmbatch_assets.domain.items.identity import BatchIdentity
from llmbatch_assets.domain.outcome import Source, TokenUsage
from llmbatch_assets.domain.pacing import PacingFacts
from llmbatch_assets.domain.parameters import Parameters
from llmbatch_assets.domain.plan.selection import State

LONGEST_SILENCE_ITEMS = 1000


class GenerationMeta(BaseModel):
    """What later steps read of the manifest's ``meta``."""

    generated_at_utc: str
    elapsed_sec: float


class GenerationCounts(BaseModel):
    """What later steps read of the manifest's ``counts``."""

    n_total: int
    n_cache_skipped: int


class GenerationManifest(BaseModel):
    """What later steps read of the manifest."""

    meta: GenerationMeta
    counts: GenerationCounts


class RunFacts(NamedTuple):
    """What happened in a run, apart from how its items stand."""

    generated_at_utc: str
    elapsed_sec: float
    n_cache_skipped: int
    n_to_run: int
    usage: TokenUsage
    n_unknown_cost: int
    pacing: PacingFacts
    structured_output: str | None
    causes: Mapping[str, int]
    stopped_by: str | None


def what_changed(meta: Mapping[str, Any], identity: BatchIdentity) -> list[str]:
    """What has changed since the run whose manifest has this ``meta``, of that which makes outputs new questions."""
    now = {
        "the schema": ("schema_sha", identity.schema_sha),
        "the generation prompt": ("prompt_sha", identity.prompt_sha),
        "the model": ("model_name", identity.model_name),
        "the temperature": ("temperature", identity.temperature),
        "the judge": ("judge_enabled", identity.judge_enabled),
        "the judge's prompt": ("judge_prompt_sha", identity.judge_prompt_sha),
    }
    return [name for name, (key, value) in now.items() if key in meta and meta[key] != value]


def progress_every_n(verbose: int, n_to_run: int) -> int:
    """After how many items a line is logged: about ``verbose`` lines a run, each item at 10; 0 means never."""
    if verbose <= 0:
        return 0
    return 1 if verbose >= 10 else max(1, min(n_to_run // verbose, LONGEST_SILENCE_ITEMS))


def execution_mode(max_workers: int) -> str:
    """``parallel`` or ``sequential``."""
    return "parallel" if max_workers > 1 else "sequential"


def generation_manifest(
    parameters: Parameters, source: Source, states: Mapping[str, State], facts: RunFacts, files: dict[str, Any]
) -> dict[str, Any]:
    """The manifest. ``states`` is keyed by work id, after the run; its counts always add up."""
    identity, llm, counted = source.identity, parameters.llm, Counter(states.values())
    return {
        "meta": {
            "pipeline": 4,
            "generated_at_utc": facts.generated_at_utc,
            "model_name": identity.model_name,
            "temperature": identity.temperature,
            "provider": source.provider,
            "judge_enabled": identity.judge_enabled,
            "prompt_sha": identity.prompt_sha,
            "schema_sha": identity.schema_sha,
            "judge_prompt_sha": identity.judge_prompt_sha,
            "elapsed_sec": facts.elapsed_sec,
            "verbose": parameters.cache.verbose,
            "progress_every_n": progress_every_n(parameters.cache.verbose, facts.n_to_run),
            "cache_skips_pre_scan": facts.n_cache_skipped,
            "cache_skips_observed": facts.n_cache_skipped,
            "max_workers": llm.max_workers,
            "execution_mode": execution_mode(llm.max_workers),
            "stopped_by": facts.stopped_by,
            "structured_output": facts.structured_output,
            "pacing": facts.pacing._asdict(),
        },
        "counts": {
            "n_total": len(states),
            "n_success": counted["accepted"],
            "n_fail": counted["failed"] + counted["failed_permanently"],
            "n_not_attempted": counted["missing"],
            "n_cache_skipped": facts.n_cache_skipped,
            "n_to_run": facts.n_to_run,
        },
        "failures_by_cause": dict(facts.causes),
        "usage": {**facts.usage.model_dump(), "n_unknown_cost": facts.n_unknown_cost},
        "outputs": files,
    }
