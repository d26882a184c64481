"""Answers without a model: they keep the contract, and the same question has the same one."""

import asyncio
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from llmbatch_assets.adapters.providers.registry import OfflineClient
from llmbatch_assets.domain.answer import read_object
from llmbatch_assets.domain.outcome import Completion
from llmbatch_assets.domain.request import ChatRequest
from llmbatch_assets_tests.adapters.values import LLMOutput, chat_request


class Inner(BaseModel):
    name: Annotated[str, Field(min_length=25, max_length=26)]


class Rich(BaseModel):
    model_config = ConfigDict(extra="forbid")

    kind: Literal["a", "b"]
    only: Literal["x"]
    low: int = Field(ge=3, lt=5)
    share: float = Field(ge=0, le=1)
    inner: Inner
    many: list[Inner] = Field(min_length=2)
    maybe: str | None
    again: "Rich | None" = None


class Verdict(BaseModel):
    reasons: list[str]
    score: int = Field(ge=0, le=100)
    verdict: Literal["FAIL", "PASS"]


def ask(*requests: ChatRequest) -> list[Completion]:
    client = OfflineClient()

    async def all_of_them() -> list[Completion]:
        return [await client.complete(request) for request in requests]

    return asyncio.run(all_of_them())


@pytest.mark.parametrize("model", [LLMOutput, Rich, Verdict])
def test_answers_keep_their_contract(model: type[BaseModel]) -> None:
    requests = [chat_request(f"row {number}", model) for number in range(25)]
    for request, completion in zip(requests, ask(*requests), strict=True):
        assert request.contract is not None
        request.contract.validate(read_object(completion.text))
        assert completion.finish_reason == "stop"


def test_the_same_question_has_the_same_answer_and_another_may_have_another() -> None:
    first, again, *others = ask(chat_request("row 1"), chat_request("row 1"), *map(chat_request, "abcdef"))
    assert first == again
    assert len({completion.text for completion in others}) > 1


def test_a_made_up_judge_approves() -> None:
    for completion in ask(*(chat_request(f"row {number}", Verdict) for number in range(5))):
        verdict = Verdict.model_validate_json(completion.text)
        assert (verdict.verdict, verdict.score) == ("PASS", 100)


def test_tokens_are_estimated_by_length() -> None:
    short, long = ask(chat_request("x"), chat_request("x" * 4_000))
    assert short.usage.requests == 1
    assert short.usage.output_tokens > 0
    assert 990 <= long.usage.input_tokens - short.usage.input_tokens <= 1_010
