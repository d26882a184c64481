"""Every provider opens a client and closes it; none takes the place of another."""

import asyncio
from pathlib import Path
from typing import Annotated, Literal, get_args

import pytest
from pydantic import BaseModel, ConfigDict, Field

from llmbatch_assets.adapters.providers.registry import PROVIDERS, OfflineClient
from llmbatch_assets.domain.answer import read_object
from llmbatch_assets.domain.configuration.model_blocks import Llm
from llmbatch_assets.domain.outcome import Completion
from llmbatch_assets.domain.request import ChatRequest
from llmbatch_assets.errors import RunPermanentError
from llmbatch_assets_tests.adapters.values import LLMOutput, chat_request
from llmbatch_assets_tests.chat_server import ChatServer, hangs


def ask(llm: Llm, root: Path) -> Completion:
    async def once() -> Completion:
        async with PROVIDERS[llm.provider](llm, root) as client:
            return await client.complete(chat_request())

    return asyncio.run(once())


def at(server: ChatServer, **settings: object) -> Llm:
    return Llm.model_validate({"base_url": server.base_url, "model_name": "m-1", **settings})


def test_every_provider_that_a_configuration_can_name_can_be_opened() -> None:
    assert set(PROVIDERS) == set(get_args(Llm.model_fields["provider"].annotation))


def test_offline_answers_without_a_call(server: ChatServer, tmp_path: Path) -> None:
    completion = ask(at(server, provider="offline"), tmp_path)
    contract = chat_request().contract
    assert contract is not None
    contract.validate(read_object(completion.text))
    assert server.count() == 0


def test_a_server_of_ones_own_needs_no_key(server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "not-meant-for-this-server")
    ask(at(server), tmp_path)
    assert server.calls[0].headers["Authorization"] == "Bearer none"


def test_the_key_comes_from_the_named_variable(
    server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "mine")
    server.require_key = "mine"
    ask(at(server, api_key_env="MY_KEY"), tmp_path)
    assert server.count() == 1


def test_the_key_may_come_from_the_projects_file(server: ChatServer, tmp_path: Path) -> None:
    (tmp_path / "credentials.yaml").write_text("MY_KEY_IN_FILE: filed\n")
    server.require_key = "filed"
    ask(at(server, api_key_env="MY_KEY_IN_FILE"), tmp_path)
    assert server.count() == 1


@pytest.mark.parametrize(
    ("settings", "variable"),
    [
        ({}, "OPENAI_API_KEY"),
        ({"model_name": "gemini-2.5-flash"}, "GEMINI_API_KEY"),
        ({"api_key_env": "NOT_SET_ANYWHERE"}, "NOT_SET_ANYWHERE"),
    ],
)
def test_without_its_key_a_provider_is_not_opened_and_no_other_steps_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], variable: str
) -> None:
    monkeypatch.delenv(variable, raising=False)
    with pytest.raises(RunPermanentError, match=variable) as refusal:
        ask(Llm.model_validate(settings), tmp_path)
    assert refusal.value.cause == "no_key"


def test_a_key_that_changes_while_open_is_used_changed(
    server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def twice() -> None:
        llm = at(server, api_key_env="MY_KEY")
        async with PROVIDERS["openai"](llm, tmp_path) as client:
            await client.complete(chat_request())
            monkeypatch.setenv("MY_KEY", "new")
            await client.complete(chat_request())
            monkeypatch.delenv("MY_KEY")
            with pytest.raises(RunPermanentError, match="MY_KEY is not set"):
                await client.complete(chat_request())

    monkeypatch.setenv("MY_KEY", "old")
    asyncio.run(twice())
    assert [call.headers["Authorization"] for call in server.calls] == ["Bearer old", "Bearer new"]


def test_closing_in_the_middle_of_a_call_leaves_nothing_open(server: ChatServer, tmp_path: Path) -> None:
    # Warnings are errors: a connection left open would be one.
    server.script("row 1", hangs(60))

    async def interrupted() -> None:
        async with PROVIDERS["openai"](at(server), tmp_path) as client:
            async with asyncio.timeout(0.2):
                await client.complete(chat_request())

    with pytest.raises(TimeoutError):
        asyncio.run(interrupted())
    assert server.count() == 1


# The offline client: answers satisfy the contract, and equal requests get equal answers.


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


def ask_offline(*requests: ChatRequest) -> list[Completion]:
    client = OfflineClient()

    async def all_of_them() -> list[Completion]:
        return [await client.complete(request) for request in requests]

    return asyncio.run(all_of_them())


@pytest.mark.parametrize("model", [LLMOutput, Rich, Verdict])
def test_answers_keep_their_contract(model: type[BaseModel]) -> None:
    requests = [chat_request(f"row {number}", model) for number in range(25)]
    for request, completion in zip(requests, ask_offline(*requests), strict=True):
        assert request.contract is not None
        request.contract.validate(read_object(completion.text))
        assert completion.finish_reason == "stop"


def test_the_same_question_has_the_same_answer_and_another_may_have_another() -> None:
    first, again, *others = ask_offline(chat_request("row 1"), chat_request("row 1"), *map(chat_request, "abcdef"))
    assert first == again
    assert len({completion.text for completion in others}) > 1


def test_a_made_up_judge_approves() -> None:
    for completion in ask_offline(*(chat_request(f"row {number}", Verdict) for number in range(5))):
        verdict = Verdict.model_validate_json(completion.text)
        assert (verdict.verdict, verdict.score) == ("PASS", 100)


def test_tokens_are_estimated_by_length() -> None:
    short, long = ask_offline(chat_request("x"), chat_request("x" * 4_000))
    assert short.usage.requests == 1
    assert short.usage.output_tokens > 0
    assert 990 <= long.usage.input_tokens - short.usage.input_tokens <= 1_010
