"""Contracts: validated strictly, with plain feedback, and identified by their content."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from llmbatch_assets.adapters.schema_module import load_source
from llmbatch_assets.domain.schema.contract import Contract, SchemaModels
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
    reasons: list[str]
    score: int
    verdict: Literal["PASS", "FAIL"]


GOOD = {"name": "a", "count": 1, "share": 0.5, "sure": True}
OUTPUT = Contract.of(LLMOutput)


@pytest.mark.parametrize(
    ("changes", "reported"),
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
        # Wrong values, and extra fields.
        ({"name": "toolong"}, "- name: "),
        ({"mood": "glad"}, "- mood: "),
        ({"extra": 1}, "- extra: "),
        # The path is shown at any depth.
        ({"steps": [{"title": "a"}, {"title": 3}]}, "- steps.1.title: "),
        ({"steps": [{}]}, "- steps.0.title: "),
    ],
)
def test_the_feedback_says_where_an_answer_breaks_the_contract(changes: dict[str, Any], reported: str) -> None:
    with pytest.raises(AnswerError) as refused:
        OUTPUT.validate(GOOD | changes)
    assert refused.value.cause == "schema_mismatch"
    assert str(refused.value).startswith("The answer does not match the schema:\n")
    assert reported in str(refused.value)


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
        # An infinite number is the answer's mistake, not a crash.
        GOOD | {"share": float("inf")},
    ],
    ids=repr,
)
def test_no_answer_breaks_the_validation(answer: dict[str, Any]) -> None:
    with pytest.raises(AnswerError):
        OUTPUT.validate(answer)


def test_a_wrapped_answer_gets_feedback_about_the_wrapper() -> None:
    with pytest.raises(AnswerError, match="is wrapped in") as refused:
        OUTPUT.validate({"LLMOutput": GOOD})
    assert '{"LLMOutput": ...}' in str(refused.value)
    with pytest.raises(AnswerError, match="does not match the schema"):
        OUTPUT.validate({"Answer": GOOD})


def test_a_model_may_have_a_field_of_its_own_name() -> None:
    class Same(BaseModel):
        Same: dict[str, int]

    assert Contract.of(Same).validate({"Same": {"a": 1}}) == {"Same": {"a": 1}}


def test_the_first_of_many_mistakes_are_listed_and_the_rest_counted() -> None:
    with pytest.raises(AnswerError) as refused:
        OUTPUT.validate(GOOD | {"steps": [{}] * 20})
    lines = str(refused.value).splitlines()
    assert len(lines) == 14
    assert lines[-1] == "- and 8 more"


def models(*found: type[BaseModel]) -> SchemaModels:
    """A schema module with these classes."""
    return SchemaModels({model.__name__: model for model in found}, "schema/x.py")


def test_the_output_is_the_class_of_that_name_or_the_only_candidate() -> None:
    assert models(Step, LLMOutput, JudgeResult).output().model is LLMOutput
    assert models(JudgeResult, Step).output().model is Step


@pytest.mark.parametrize(
    ("found", "reported"),
    [
        ((JudgeResult,), r"schema/x\.py: no class is named LLMOutput \(found: none\)"),
        ((Step, type("Other", (BaseModel,), {})), r"\(found: Step, Other\)"),
    ],
)
def test_a_module_without_a_clear_output_is_refused(found: tuple[type[BaseModel], ...], reported: str) -> None:
    with pytest.raises(SchemaError, match=reported):
        models(*found).output()


def candidates_of(source: str) -> str:
    """The name of the model that is taken for the output's."""
    classes = "".join(f"class {line}\n" for line in source.split("; "))
    return load_source(f"from pydantic import BaseModel\n\n{classes}", "schema/x.py").output().name


@pytest.mark.parametrize(
    ("source", "meant"),
    [
        ("Answer(BaseModel): a: str", "Answer"),
        ("Answer(BaseModel): a: 'Part'; Part(BaseModel): b: str", "Answer"),
        ("Part(BaseModel): b: str; Answer(BaseModel): a: list[Part]", "Answer"),
        ("Shared(BaseModel): a: str; Answer(Shared): b: str", "Answer"),
        ("Answer(BaseModel): a: 'Answer | None' = None", "Answer"),
        ("Answer(BaseModel): a: str; JudgeResult(BaseModel): b: 'Why'; Why(BaseModel): c: str", "Answer"),
        ("Other(BaseModel): a: str; LLMOutput(BaseModel): b: str", "LLMOutput"),
        # Of two models that contain each other, neither is the output.
        ("A(BaseModel): b: 'B | None' = None; B(BaseModel): a: 'A | None' = None", None),
        ("A(BaseModel): a: str; B(BaseModel): a: str", None),
        ("JudgeResult(BaseModel): a: str", None),
    ],
)
def test_the_only_model_that_no_other_contains_is_the_output(source: str, meant: str | None) -> None:
    if meant is not None:
        assert candidates_of(source) == meant
        return
    with pytest.raises(SchemaError, match="give the output class this name"):
        candidates_of(source)


# The judge.


def test_the_error_for_a_missing_judge_class_says_how_to_write_one() -> None:
    assert models(LLMOutput, JudgeResult).judge().model is JudgeResult
    with pytest.raises(SchemaError, match=r"class JudgeResult is needed, with.*Literal"):
        models(LLMOutput).judge()


def judge_of(fields: str) -> Contract:
    """The judge's contract of a ``JudgeResult`` with these fields."""
    lines = "".join(f"    {line}\n" for line in fields.split("; "))
    return load_source(f"{JUDGE_HEAD}class JudgeResult(BaseModel):\n{lines}", "schema/x.py").judge()


JUDGE_HEAD = """from enum import Enum
from typing import Any, Literal

from pydantic import BaseModel, Field


class Word(str, Enum):
    PASS = "PASS"
    FAIL = "FAIL"


"""
WORDS = 'Literal["PASS", "FAIL"]'


@pytest.mark.parametrize(
    "fields",
    [
        f"reasons: list[str]; score: int; verdict: {WORDS}",
        # Equivalent types.
        "reasons: list[str]; score: int; verdict: Word",
        "reasons: list[str]; score: int; verdict: str",
        "reasons: list[str]; score: int; verdict: Any",
        f"reasons: list[str] | None = None; score: float | None = None; verdict: {WORDS} | None = None",
        'reasons: str; score: float; verdict: Literal["PASS", "FAIL", "UNSURE"]',
        "reasons: list[str]; score: int; passed: bool",
        "reasons: list[str]; score: Literal[0, 50, 100]; ok: bool",
        # Additional fields.
        f"reasons: list[str]; score: int = Field(ge=0, le=100); verdict: {WORDS}; mood: str; parts: list[int]",
    ],
)
def test_a_judge_model_that_can_hold_a_verdict_is_accepted(fields: str) -> None:
    assert judge_of(fields).name == "JudgeResult"


@pytest.mark.parametrize(
    ("fields", "reported"),
    [
        # Fields that are missing.
        (f"score: int; verdict: {WORDS}", "lacks reasons"),
        (f"reasons: list[str]; verdict: {WORDS}", "lacks score"),
        ("reasons: list[str]; score: int", "lacks verdict"),
        ("answer: str", "lacks reasons, score, verdict"),
        # Verdicts that can only be one thing, or that nobody could read: each output would be paid for and rejected.
        ('reasons: list[str]; score: int; verdict: Literal["PASS"]', "wrong type for verdict"),
        ('reasons: list[str]; score: int; verdict: Literal["pass", "fail"]', "wrong type for verdict"),
        ('reasons: list[str]; score: int; verdict: Literal["good", "bad"]', "wrong type for verdict"),
        ("reasons: list[str]; score: int; verdict: bool", "wrong type for verdict"),
        ("reasons: list[str]; score: int; verdict: int", "wrong type for verdict"),
        ("reasons: list[str]; score: int; passed: str", "wrong type for passed"),
        ("reasons: list[str]; score: int; passed: Literal[True]", "wrong type for passed"),
        # Types that reading the verdict would fail on.
        (f"reasons: int; score: int; verdict: {WORDS}", "wrong type for reasons"),
        (f"reasons: dict[str, str]; score: int; verdict: {WORDS}", "wrong type for reasons"),
        (f"reasons: list[str]; score: str; verdict: {WORDS}", "wrong type for score"),
    ],
)
def test_a_judge_model_that_cannot_is_refused_before_any_call(fields: str, reported: str) -> None:
    with pytest.raises(SchemaError, match=rf"schema/x\.py: JudgeResult .*{reported}.*it needs reasons: list\[str\]"):
        judge_of(fields)


# Sets.


class Tagged(BaseModel):
    tags: set[str]
    more: frozenset[int] | None = None
    inner: list[set[str]] = []


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        ({"tags": ["c", "a", "b"]}, {"tags": ["a", "b", "c"], "more": None, "inner": []}),
        ({"tags": [], "more": [3, 1]}, {"tags": [], "more": [1, 3], "inner": []}),
        (
            {"tags": ["é", "z"], "inner": [["b", "a"], []]},
            {"tags": ["z", "é"], "more": None, "inner": [["a", "b"], []]},
        ),
    ],
)
def test_a_set_is_sorted(answer: dict[str, Any], kept: dict[str, Any]) -> None:
    contract = Contract.of(Tagged)
    assert contract.validate(answer) == kept
    assert contract.validate(kept) == kept


SHOW_A_SET = """
from llmbatch_assets.adapters.schema_module import load_source
contract = load_source("from pydantic import BaseModel\\n\\nclass LLMOutput(BaseModel):\\n    tags: set[str]\\n", "s").output()
print(contract.validate({"tags": [chr(97 + number) * number for number in range(20)]}), contract.sha)
"""


def test_a_set_has_the_same_order_in_every_process() -> None:
    shown = {
        subprocess.run(
            [sys.executable, "-c", SHOW_A_SET],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(shown) == 1
    assert "cc" in shown.pop()


# The text.


def test_the_text_names_every_model_in_its_order() -> None:
    text = models(LLMOutput, JudgeResult).text()
    content = json.loads(text)
    assert text.endswith("}\n")
    assert (content["title"], content["type"]) == ("LLM Schema", "object")
    assert list(content["models"]) == ["LLMOutput", "JudgeResult"]
    shown = content["models"]["LLMOutput"]
    assert shown["properties"]["name"] == LLMOutput.model_json_schema()["properties"]["name"]
    assert shown["required"] == ["name", "count", "share", "sure"]
    # Nested models are inlined.
    assert shown["properties"]["steps"]["items"]["properties"] == Step.model_json_schema()["properties"]
    assert "$ref" not in text


SOURCE = """from pydantic import BaseModel, Field

class Part(BaseModel):
    name: str = Field(description="Its name.")

class LLMOutput(BaseModel):
    parts: list[Part] = Field(description="All of them.")
    first: Part | None = None
    note: str
"""


def test_in_the_text_every_object_is_closed_and_every_field_described_as_in_the_module() -> None:
    models_of_text = json.loads(load_source(SOURCE, "s.py").text())["models"]
    output = models_of_text["LLMOutput"]
    part = output["properties"]["parts"]["items"]
    assert [node["additionalProperties"] for node in (*models_of_text.values(), part)] == [False] * 3
    assert (output["required"], part["required"]) == (["parts", "note"], ["name"])
    assert output["properties"]["parts"]["description"] == "All of them."
    assert part["properties"]["name"]["description"] == "Its name."
    assert output["properties"]["first"]["anyOf"][0] == part


def test_the_text_of_a_module_is_always_the_same() -> None:
    assert load_source(SOURCE, "a.py").text() == load_source(SOURCE + "\n# a comment\n", "b.py").text()


def test_a_contract_is_identified_by_its_model_and_everything_it_refers_to() -> None:
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


def test_the_judge_is_not_part_of_the_output_contract() -> None:
    assert models(LLMOutput, JudgeResult).output().sha == models(LLMOutput).output().sha
    assert "verdict" not in models(LLMOutput, JudgeResult).output().text


def test_a_trusted_modules_code_is_part_of_its_contract() -> None:
    plain, trusted = Contract.of(LLMOutput), Contract.of(LLMOutput, "c" * 40)
    assert plain.sha != trusted.sha
    assert plain.json_schema == trusted.json_schema


# Speed of validation.


def test_validating_an_output_is_fast() -> None:
    contract = Contract.of(LLMOutput)
    answer = GOOD | {
        "steps": [{"title": f"step {number} of the many that an answer of this length has"} for number in range(400)]
    }
    kilobytes = len(json.dumps(answer)) / 1000
    contract.validate(answer)
    rounds = []
    for _ in range(20):
        started = time.process_time()
        contract.validate(answer)
        rounds.append((time.process_time() - started) / kilobytes)
    # A benchmark measures the speed; this only catches a huge slowdown.
    assert min(rounds) < 500e-6


def test_feedback_stays_short_however_many_and_long_the_errors_are() -> None:
    class Numbers(BaseModel):
        model_config = ConfigDict(extra="forbid")
        numbers: list[int]

    contract = Contract.of(Numbers)
    for wrong, expected in (
        ({"numbers": ["x"] * 5_000}, "and 4988 more"),
        ({"numbers": ["x"] * 50_000}, "does not match the schema in 50,000 places"),
        ({"numbers": [], "k" * 100_000: 1}, "kkk …[cut]"),
    ):
        with pytest.raises(AnswerError, match=re.escape(expected)) as reported:
            contract.validate(wrong)
        assert len(str(reported.value)) < 3_000
