"""Contracts: validated strictly, told plainly, and identified by what they ask."""

from __future__ import annotations

import json
from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from llmbatch_assets.domain.schema import Contract, SchemaModels
from llmbatch_assets.errors import AnswerError, SchemaError


class Step(BaseModel):
    model_config = ConfigDict(extra="forbid")

    title: str


class LLMOutput(BaseModel):
    """An answer."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(..., max_length=5)
    count: int
    share: float
    sure: bool
    steps: list[Step] = Field(default_factory=list)
    mood: Literal["calm", "brisk"] | None = None


class JudgeResult(BaseModel):
    verdict: Literal["PASS", "FAIL"]


GOOD = {"name": "a", "count": 1, "share": 0.5, "sure": True}
OUTPUT = Contract.of(LLMOutput)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        # Nothing is coerced.
        ({"count": "1"}, "- count: "),
        ({"count": 1.5}, "- count: "),
        ({"count": True}, "- count: "),
        ({"share": "0.5"}, "- share: "),
        ({"sure": "yes"}, "- sure: "),
        ({"sure": 1}, "- sure: "),
        ({"name": 7}, "- name: "),
        ({"name": None}, "- name: "),
        # Nothing is forgiven.
        ({"name": "toolong"}, "- name: "),
        ({"mood": "glad"}, "- mood: "),
        ({"extra": 1}, "- extra: "),
        # Where it is, at any depth.
        ({"steps": [{"title": "a"}, {"title": 3}]}, "- steps.1.title: "),
        ({"steps": [{}]}, "- steps.0.title: "),
    ],
)
def test_an_answer_that_breaks_the_contract_is_told_where(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(AnswerError) as refused:
        OUTPUT.validate(GOOD | changes)
    assert refused.value.cause == "schema_mismatch"
    assert str(refused.value).startswith("The answer does not match the schema:\n")
    assert told in str(refused.value)


def test_a_good_answer_comes_back_as_the_model_understands_it() -> None:
    assert OUTPUT.validate(GOOD) == {**GOOD, "steps": [], "mood": None}
    assert OUTPUT.validate(GOOD | {"share": 1})["share"] == 1.0


def test_what_was_validated_once_is_valid_again() -> None:
    kept = OUTPUT.validate(GOOD | {"steps": [{"title": "x"}], "mood": "calm"})
    assert OUTPUT.validate(json.loads(json.dumps(kept))) == kept


@pytest.mark.parametrize(
    "answer",
    [
        {"name": "\ud800", **{key: GOOD[key] for key in ("count", "share", "sure")}},
        {"name": {"a": {"b": []}}},
        {"": ""},
        {},
        # A number without end is an answer that cannot be used, not a fault of ours.
        GOOD | {"share": float("inf")},
    ],
    ids=repr,
)
def test_no_answer_breaks_the_validation(answer: dict[str, Any]) -> None:
    with pytest.raises(AnswerError):
        OUTPUT.validate(answer)


def test_a_wrapped_answer_is_told_to_come_out() -> None:
    with pytest.raises(AnswerError, match="is wrapped in") as refused:
        OUTPUT.validate({"LLMOutput": GOOD})
    assert '{"LLMOutput": ...}' in str(refused.value)
    with pytest.raises(AnswerError, match="does not match the schema"):
        OUTPUT.validate({"Answer": GOOD})


def test_a_model_may_have_a_field_of_its_own_name() -> None:
    class Same(BaseModel):
        Same: dict[str, int]

    assert Contract.of(Same).validate({"Same": {"a": 1}}) == {"Same": {"a": 1}}


def test_of_very_many_mistakes_the_first_are_told_and_the_rest_counted() -> None:
    with pytest.raises(AnswerError) as refused:
        OUTPUT.validate(GOOD | {"steps": [{}] * 20})
    lines = str(refused.value).splitlines()
    assert len(lines) == 14
    assert lines[-1] == "- and 8 more"


def models(*found: type[BaseModel]) -> SchemaModels:
    """A schema module with these classes."""
    return SchemaModels({model.__name__: model for model in found}, "schema/x.py")


def test_the_output_is_the_class_of_that_name_or_the_only_one_that_can_be_meant() -> None:
    assert models(Step, LLMOutput, JudgeResult).output().model is LLMOutput
    assert models(JudgeResult, Step).output().model is Step


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ((JudgeResult,), r"schema/x\.py: no class is named LLMOutput \(found: none\)"),
        ((Step, type("Other", (BaseModel,), {})), r"\(found: Step, Other\)"),
    ],
)
def test_a_module_without_a_clear_output_is_refused(found: tuple[type[BaseModel], ...], told: str) -> None:
    with pytest.raises(SchemaError, match=told):
        models(*found).output()


def test_a_judge_without_its_class_is_told_how_to_write_one() -> None:
    assert models(LLMOutput, JudgeResult).judge().model is JudgeResult
    with pytest.raises(SchemaError, match=r"class JudgeResult is needed.*Literal"):
        models(LLMOutput).judge()


def test_the_text_names_every_model_in_its_order() -> None:
    text = models(LLMOutput, JudgeResult).text()
    content = json.loads(text)
    assert text.endswith("}\n")
    assert (content["title"], content["type"]) == ("LLM Schema", "object")
    assert list(content["models"]) == ["LLMOutput", "JudgeResult"]
    assert content["models"]["LLMOutput"] == LLMOutput.model_json_schema()


def test_a_contract_is_identified_by_what_it_asks_and_by_what_it_refers_to() -> None:
    def variant(**fields: Any) -> str:
        made = type("LLMOutput", (BaseModel,), {"__annotations__": fields})
        return Contract.of(made).sha

    class Other(BaseModel):
        model_config = ConfigDict(extra="forbid")

        title: str
        more: int

    Other.__name__ = "Step"
    same = variant(a=str, b=Step)
    assert variant(a=str, b=Step) == same
    assert len({same, variant(a=str), variant(a=int, b=Step), variant(a=str, c=Step), variant(a=str, b=Other)}) == 5


def test_the_judge_has_no_part_in_the_contract_of_the_output() -> None:
    assert models(LLMOutput, JudgeResult).output().sha == models(LLMOutput).output().sha
    assert "verdict" not in models(LLMOutput, JudgeResult).output().text
