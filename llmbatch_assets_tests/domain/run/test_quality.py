"""Checks pass and fail at their limits."""

from __future__ import annotations

from typing import Any

import pytest

from llmbatch_assets.domain.configuration.model_blocks import Checks
from llmbatch_assets.domain.run.quality import OUTPUT_CHECKS, OutputQuality, assess

GOOD = OutputQuality(n_accepted=9, n_failed=1, causes={}, versions=["a", "b"], scores=[70.0, 90.0])


def failed(quality: OutputQuality = GOOD, **limits: Any) -> list[str]:
    findings = list(assess(quality, Checks(**limits)))
    assert [finding.name for finding in findings] == list(OUTPUT_CHECKS)
    return [finding.name for finding in findings if not finding.passed]


@pytest.mark.parametrize(("least", "names"), [(0.0, []), (0.9, []), (0.91, ["acceptance_rate"])])
def test_the_acceptance_rate_counts_attempted_items(least: float, names: list[str]) -> None:
    assert failed(min_acceptance=least) == names


def test_a_batch_without_accepted_items_fails_even_without_a_limit() -> None:
    none = OutputQuality(0, 24, {"refused": 24}, [], [])
    assert failed(none) == ["acceptance_rate"]
    assert next(assess(none, Checks())).message == "0 of 24 attempted items accepted (required: more than 0)"


@pytest.mark.parametrize(("least", "names"), [(0.0, []), (80.0, []), (80.1, ["judge_score"])])
def test_the_score_is_the_mean(least: float, names: list[str]) -> None:
    assert failed(min_judge_score=least) == names


def test_without_scores_the_score_check_passes() -> None:
    assert failed(OutputQuality(1, 0, {}, ["a"], []), min_judge_score=100) == []


def test_a_batch_without_items_passes_all_checks() -> None:
    assert failed(OutputQuality(0, 0, {}, [], []), min_acceptance=1, min_judge_score=100) == []


def test_duplicate_outputs_and_broken_answers_are_only_warnings() -> None:
    quality = OutputQuality(4, 3, {"not_json": 1, "refused": 1, "wrapped": 1}, ["a", "a", "b", "b", "c"], [])
    found = {finding.name: finding for finding in assess(quality, Checks())}
    assert failed(quality) == ["schema_failures", "duplicate_outputs"]
    assert all(found[name].warning for name in failed(quality))
    assert found["schema_failures"].message == "2 items in the last run broke the schema (1 not_json, 1 wrapped)"
    assert found["duplicate_outputs"].facts == {"n_outputs": 4, "n_sets": 2}
