"""Stored models survive a round trip and identify themselves."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from llmbatch_assets.domain.outcome import AcceptedOutput, FailedAttempt, FailureClass
from llmbatch_assets.domain.usage import TokenUsage
from llmbatch_assets_tests.domain.strategies import make_failure, make_identity, make_item, make_output, make_source


def test_an_accepted_output_survives_a_round_trip() -> None:
    output = make_output(make_item(1))
    assert AcceptedOutput.model_validate(json.loads(output.model_dump_json())) == output


@pytest.mark.parametrize("kind", get_args(FailureClass))
def test_a_failed_attempt_survives_a_round_trip_under_the_key_class(kind: str) -> None:
    failure = make_failure(make_item(1), **{"class": kind})
    kept = json.loads(failure.model_dump_json(by_alias=True))
    assert kept["class"] == kind
    assert "failure_class" not in kept
    assert FailedAttempt.model_validate(kept) == failure
    assert failure.item_permanent is (kind == "item_permanent")


@pytest.mark.parametrize("broken", [{"class": "other"}, {"error": "text"}, {"usage": None}, {"meta": None}])
def test_a_file_that_cannot_be_a_failed_attempt_is_refused(broken: dict[str, Any]) -> None:
    kept = make_failure(make_item(1)).model_dump(mode="json", by_alias=True)
    with pytest.raises(ValidationError):
        FailedAttempt.model_validate(kept | broken)


def test_an_artifact_names_everything_that_identifies_it() -> None:
    item = make_item(7, "red", group_context_id="c" * 40)
    identity = make_identity()
    assert make_source().meta(item, 2, "2026-02-16T00:00:00Z") == {
        "cache_id": identity.cache_id(item.work_id),
        "work_id": item.work_id,
        "partition_key": item.partition_key,
        "group_key": "red",
        "row_index": 7,
        "group_context_id": "c" * 40,
        "model": "test-model",
        "temperature": 0.5,
        "provider": "openai",
        "generation_prompt_path": "prompts/generation.yaml",
        "judge_enabled": True,
        "judge_prompt_path": "prompts/judge.yaml",
        "generation_id": identity.generation_id(item.work_id),
        "identity": identity.parts(item.work_id),
        "attempt_outer": 2,
        "created_at_utc": "2026-02-16T00:00:00Z",
    }


def test_usage_adds_up_field_by_field() -> None:
    one = TokenUsage(requests=1, input_tokens=10, cached_input_tokens=4, output_tokens=3)
    assert one + one + TokenUsage() == TokenUsage(requests=2, input_tokens=20, cached_input_tokens=8, output_tokens=6)


def test_a_sum_with_a_part_of_unknown_cost_is_unknown() -> None:
    priced = TokenUsage(requests=1, cost_usd=0.1)
    assert (priced + TokenUsage(requests=1, cost_usd=0.2) + TokenUsage()).cost_usd == 0.3
    assert (priced + TokenUsage(requests=1)).cost_usd is None


def test_usage_written_before_costs_existed_has_unknown_cost() -> None:
    assert TokenUsage.model_validate({"requests": 2, "input_tokens": 9}).cost_usd is None
    assert TokenUsage.model_validate({}).cost_usd == 0.0


def test_stored_models_are_frozen() -> None:
    with pytest.raises(ValidationError):
        make_output(make_item(1)).parsed = {}  # type: ignore[misc]  # that it is an error is what is shown
