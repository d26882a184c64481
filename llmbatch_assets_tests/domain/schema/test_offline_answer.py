"""Made-up answers match any contract, and equal seeds give equal answers."""

from __future__ import annotations

import json
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, HttpUrl, create_model

from llmbatch_assets.domain.answer import read_verdict
from llmbatch_assets.domain.schema.contract import Contract
from llmbatch_assets.domain.schema.offline_answer import offline_answer
from llmbatch_assets_tests.domain.strategies import quick

SEEDS = [f"seed {number}" for number in range(12)]


class Node(BaseModel):
    model_config = ConfigDict(extra="forbid")

    title: str
    next: Node | None
    children: list[Node]


class Leafless(BaseModel):
    left: Leafless | None = None
    right: Leafless | None = None


class JudgeResult(BaseModel):
    model_config = ConfigDict(extra="forbid")

    reasons: list[str] = Field(..., min_length=1, max_length=2)
    score: int = Field(..., ge=0, le=100)
    verdict: Literal["FAIL", "PASS"]


TYPES: list[Any] = [
    str,
    int,
    float,
    bool,
    list,
    dict,
    list[str],
    dict[str, int],
    str | None,
    int | str,
    list[dict[str, list[int]]],
    Literal["x"],
    Literal["x", "y", 3, True, None],
    # Limits.
    Annotated[str, Field(min_length=100)],
    Annotated[str, Field(max_length=3)],
    Annotated[str, Field(min_length=7, max_length=7)],
    Annotated[str, Field(max_length=0)],
    Annotated[int, Field(ge=5)],
    Annotated[int, Field(gt=5, lt=7)],
    Annotated[int, Field(ge=-9, le=-7)],
    Annotated[int, Field(ge=0, le=0)],
    Annotated[int, Field(le=100)],
    Annotated[float, Field(ge=0, le=1)],
    Annotated[float, Field(gt=5)],
    Annotated[list[str], Field(min_length=3, max_length=4)],
    Annotated[int, Field(le=-5)],
    Annotated[int, Field(lt=0)],
    Annotated[int, Field(multiple_of=5)],
    Annotated[int, Field(gt=5, lt=20, multiple_of=7)],
    Annotated[float, Field(gt=0, lt=1)],
    Annotated[float, Field(ge=0.5)],
    Annotated[float, Field(ge=0.2, le=0.8)],
    Annotated[float, Field(le=-0.5)],
    Annotated[list[str], Field(max_length=0)],
    Annotated[dict[str, int], Field(min_length=1)],
    # Formats.
    date,
    datetime,
    AwareDatetime,
    time,
    timedelta,
    UUID,
    Decimal,
    HttpUrl,
    tuple[int, str, date],
    tuple[int, ...],
    set[int],
    Annotated[set[int], Field(min_length=5)],
    Annotated[set[Literal["a", "b", "c"]], Field(min_length=3)],
    frozenset[str],
]


def contract_of(**fields: Any) -> Contract:
    """The contract of a model with these required fields."""
    required: dict[str, Any] = {name: (kind, ...) for name, kind in fields.items()}
    return Contract.of(create_model("LLMOutput", **required))


@pytest.mark.parametrize("kind", TYPES, ids=str)
@pytest.mark.parametrize("name", ["value", "score"])
def test_an_offline_value_is_valid_whatever_its_type(kind: Any, name: str) -> None:
    contract = contract_of(**{name: kind})
    for seed in SEEDS:
        assert set(contract.validate(offline_answer(contract.json_schema, seed))) == {name}


@pytest.mark.parametrize("model", [Node, Leafless, JudgeResult])
def test_an_offline_object_is_valid_and_of_readable_size(model: type[BaseModel]) -> None:
    contract = Contract.of(model)
    for seed in SEEDS[:2]:
        answer = offline_answer(contract.json_schema, seed)
        contract.validate(answer)
        assert len(json.dumps(answer)) < 200_000


class Wide(BaseModel):
    """One of sixteen to the power of its depth."""

    parts: list[Wide]
    more: dict[str, Wide]
    a: Wide | None
    b: Wide | None
    c: Wide | None
    d: Wide | None


def test_the_answer_for_a_recursive_model_stays_readable() -> None:
    contract = Contract.of(Wide)
    answer = offline_answer(contract.json_schema, "seed")
    contract.validate(answer)
    assert len(json.dumps(answer)) < 200_000


def test_an_answer_that_must_be_enormous_is_not_made() -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(12):
        schema = {"type": "object", "properties": dict.fromkeys("abcd", schema), "required": list("abcd")}
    for enormous in (schema, {"type": "array", "minItems": 10**9}, {"type": "string", "minLength": 10**9}):
        with pytest.raises(OverflowError, match="more than"):
            offline_answer(enormous, "seed")


@quick
@given(st.text())
def test_the_same_question_has_the_same_answer(seed: str) -> None:
    schema = JudgeResult.model_json_schema()
    assert offline_answer(schema, seed) == offline_answer(schema, seed)


def test_other_questions_have_other_answers() -> None:
    schema = contract_of(text=str, number=int).json_schema
    assert len({json.dumps(offline_answer(schema, seed)) for seed in SEEDS}) > len(SEEDS) // 2


def test_a_choice_is_not_always_the_first() -> None:
    schema = contract_of(mood=Literal["a", "b", "c"]).json_schema
    assert {offline_answer(schema, seed)["mood"] for seed in SEEDS} == {"a", "b", "c"}


def test_the_offline_judge_accepts_everything_so_that_a_dry_run_reaches_the_end() -> None:
    for seed in SEEDS:
        assert read_verdict(offline_answer(JudgeResult.model_json_schema(), seed), 100).accepted
