"""The manifest of a run: its counts add up, and its fields are the documented ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbatch_assets.domain.item_state import ItemState
from llmbatch_assets.domain.run.manifest import (
    MAX_ITEMS_BETWEEN_LINES,
    OutputFiles,
    PacingStats,
    RunFacts,
    generation_manifest,
    progress_every_n,
)
from llmbatch_assets.domain.usage import UsageSummary
from llmbatch_assets_tests.domain.strategies import make_source, parameters, quick

STATES: st.SearchStrategy[ItemState] = st.sampled_from(["accepted", "failed", "failed_permanently", "missing"])
FACTS = RunFacts(
    generated_at_utc="2026-02-16T00:00:00Z",
    elapsed_sec=64.42,
    n_cache_skipped=40,
    n_to_run=10,
    usage=UsageSummary(requests=12, n_unknown_cost=12),
    pacing=PacingStats(calls=12, lowest_concurrency=10),
    structured_output="json_schema",
    causes={"not_json": 1},
    stopped_by=None,
)

FILES = OutputFiles(outputs_dir="o", failures_dir="f", success_files=[], failure_files=[])


@quick
@given(st.dictionaries(st.text(), STATES))
def test_its_counts_add_up_whatever_happened(states: dict[str, ItemState]) -> None:
    counts = generation_manifest(parameters(), make_source(), states, FACTS, FILES).counts
    assert counts.n_total == len(states)
    assert counts.n_success + counts.n_fail + counts.n_not_attempted == len(states)
    assert counts.n_success == list(states.values()).count("accepted")
    assert counts.n_not_attempted == list(states.values()).count("missing")


@pytest.mark.parametrize(
    ("verbose", "n_to_run", "every"),
    [
        # 0 is silent, 10 tells of every item, between them about so many lines.
        (0, 100, 0),
        (10, 100_000, 1),
        (3, 10, 3),
        (3, 300, 100),
        (1, 300, 300),
        (9, 3, 1),
        (3, 0, 1),
        # No run is silent for very long.
        (1, 1_000_000, MAX_ITEMS_BETWEEN_LINES),
    ],
)
def test_progress_is_logged_as_often_as_configured(verbose: int, n_to_run: int, every: int) -> None:
    assert progress_every_n(verbose, n_to_run) == every


@pytest.mark.parametrize(("workers", "mode"), [(1, "sequential"), (2, "parallel")])
def test_one_worker_is_sequential(workers: int, mode: str) -> None:
    assert (
        generation_manifest(
            parameters(llm={"max_workers": workers}), make_source(), {}, FACTS, FILES
        ).meta.execution_mode
        == mode
    )


def test_the_manifest_has_the_documented_fields() -> None:
    states: dict[str, ItemState] = {"a": "accepted", "b": "failed", "c": "failed_permanently", "d": "missing"}
    read = parameters(llm={"max_workers": 10}, cache={"verbose": 3})
    assert generation_manifest(read, make_source(), states, FACTS, FILES).model_dump() == {
        "meta": {
            "pipeline": 4,
            "generated_at_utc": "2026-02-16T00:00:00Z",
            "model_name": "test-model",
            "temperature": 0.5,
            "provider": "openai",
            "judge_enabled": True,
            "prompt_sha": "p" * 40,
            "schema_sha": "s" * 40,
            "judge_prompt_sha": "j" * 40,
            "elapsed_sec": 64.42,
            "verbose": 3,
            "progress_every_n": 3,
            "cache_skips_pre_scan": 40,
            "cache_skips_observed": 40,
            "max_workers": 10,
            "execution_mode": "parallel",
            "stopped_by": None,
            "structured_output": "json_schema",
            "pacing": {
                "calls": 12,
                "rate_limited": 0,
                "cool_downs": 0,
                "lowest_concurrency": 10,
                "seconds_waited": 0.0,
            },
        },
        "counts": {
            "n_total": 4,
            "n_success": 1,
            "n_fail": 2,
            "n_not_attempted": 1,
            "n_cache_skipped": 40,
            "n_to_run": 10,
        },
        "failures_by_cause": {"not_json": 1},
        "usage": {
            "requests": 12,
            "input_tokens": 0,
            "cached_input_tokens": 0,
            "output_tokens": 0,
            "reasoning_tokens": 0,
            "cost_usd": None,
            "n_unknown_cost": 12,
        },
        "outputs": FILES.model_dump(),
    }


def test_pacing_of_several_servers_is_summed_with_the_lowest_concurrency() -> None:
    both = PacingStats.combined([PacingStats(5, 2, 1, 4, 1.25), PacingStats(3, 0, 0, 8, 0.5)])
    assert both == PacingStats(8, 2, 1, 4, 1.75)


def test_pacing_without_servers_is_all_zero() -> None:
    assert PacingStats.combined([]) == PacingStats()
