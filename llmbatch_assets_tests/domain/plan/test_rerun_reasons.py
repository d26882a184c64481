"""Reasons: each thing that can change, and what became of an output, in the order in which they count."""

from __future__ import annotations

from typing import Any

import pytest

from llmbatch_assets.domain.items.identity import BatchIdentity, identity_of
from llmbatch_assets.domain.plan.rerun_reasons import (
    LABELS,
    Reason,
    Traces,
    changes_between,
    count_reasons,
    together,
    trace_of,
)
from llmbatch_assets.domain.plan.selection import State

NONE = Traces((), (), (), (), ())
JUDGE: dict[str, Any] = {"schema_sha": "j", "model_name": "m", "temperature": 1.0, "min_score": 0}
PLAIN = BatchIdentity(
    prompt_sha="p",
    schema_sha="s",
    model_name="m",
    temperature=1.0,
    settings={},
    judge_enabled=True,
    judge_prompt_sha="q",
    judge=JUDGE,
)


@pytest.mark.parametrize(
    ("state", "traces", "reason"),
    [
        ("accepted", NONE, ("forced",)),
        ("missing", NONE, ()),
        ("missing", NONE._replace(forced={"c"}), ("forced",)),
        ("failed", NONE._replace(failed={"c"}, forced={"c"}), ("failed_before",)),
        ("failed", NONE._replace(failed={"c"}, awaiting={"c"}), ("verdict_missing",)),
        ("failed", NONE._replace(failed={"c"}, once_accepted={"c"}), ("artifact_missing",)),
        ("failed", NONE._replace(failed={"c"}, broken={"c"}, once_accepted={"c"}), ("artifact_broken",)),
    ],
)
def test_what_became_of_an_output(state: State, traces: Traces, reason: tuple[Reason, ...]) -> None:
    assert trace_of("c", state, traces) == reason


@pytest.mark.parametrize(
    ("changes", "reasons"),
    [
        ({}, ()),
        ({"prompt_sha": "o"}, ("prompt_changed",)),
        ({"schema_sha": "o"}, ("schema_changed",)),
        ({"settings": {"llm_schema_txt": "o"}}, ("schema_changed",)),
        ({"settings": {"seed": 1}}, ("parameters_changed",)),
        ({"temperature": None}, ("parameters_changed",)),
        ({"judge_enabled": False, "judge_prompt_sha": None, "judge": None}, ("judge_changed",)),
        ({"judge": {**JUDGE, "min_score": 5}}, ("judge_changed",)),
        # A judge that is asked with the settings of llm changes with them.
        ({"model_name": "o", "judge": {**JUDGE, "model_name": "o"}}, ("parameters_changed",)),
        ({"model_name": "o", "judge": {**JUDGE, "model_name": "n"}}, ("parameters_changed", "judge_changed")),
        ({"prompt_sha": "o", "temperature": 0.0, "judge_prompt_sha": "o"}, None),
    ],
)
def test_what_makes_two_identities_differ(changes: dict[str, Any], reasons: tuple[Reason, ...] | None) -> None:
    expected = ("prompt_changed", "parameters_changed", "judge_changed") if reasons is None else reasons
    assert changes_between(PLAIN, PLAIN.model_copy(update=changes)) == expected


@pytest.mark.parametrize("identity", [PLAIN, PLAIN.model_copy(update={"settings": {"seed": 1, "provider": "local"}})])
def test_an_identity_is_read_back_from_its_parts(identity: BatchIdentity) -> None:
    assert identity_of(identity.parts("w")) == identity


def test_reasons_are_counted_the_most_frequent_first_and_always_in_one_order() -> None:
    both = together("prompt_changed", "row_changed", "prompt_changed")
    assert both == ("row_changed", "prompt_changed")
    several = {"a": ("new_row",), "b": both, "c": both, "d": ("forced",)}
    assert count_reasons(several) == [(both, 2), (("new_row",), 1), (("forced",), 1)]  # type: ignore[arg-type]  # literals
    assert all(LABELS.values())
