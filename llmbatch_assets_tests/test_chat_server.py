import asyncio
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import date
from typing import Annotated, Any, Literal

import openai
import pytest
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletion
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from llmbatch_assets_tests.chat_server import (
    Answer,
    ChatCall,
    ChatServer,
    completes,
    cut_off,
    drips,
    error_body,
    half_body,
    hangs,
    instance_of,
    raw_body,
    refuses,
    resets,
    says,
    status,
    text_of,
    wire,
)


class Step(BaseModel):
    model_config = ConfigDict(extra="forbid")
    title: Annotated[str, Field(min_length=30, max_length=31)]
    effort: Annotated[int, Field(gt=0, lt=3)]
    share: Annotated[float, Field(gt=0, lt=1)]
    then: "Step | None"


class Plan(BaseModel):
    model_config = ConfigDict(extra="forbid")
    kind: Literal["plan"]
    mood: Literal["calm", "brisk", "hasty"]
    steps: Annotated[list[Step], Field(min_length=2)]
    note: str | None
    urgent: bool
    due: date
    choice: Step | int
    left_out: str = "by default"


class JudgeResult(BaseModel):
    reasons: list[str]
    verdict: Literal["PASS", "FAIL"]
    score: Annotated[int, Field(ge=0, le=100)]


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer() as running:
        yield running


async def ask(client: AsyncOpenAI, text: str, model: type[BaseModel] | None = None) -> ChatCompletion:
    schema = {"name": "answer", "schema": (model or Plan).model_json_schema()}
    wanted: Any = {"type": "json_schema", "json_schema": schema} if model else {"type": "json_object"}
    messages: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}]
    return await client.chat.completions.create(model="m-1", messages=messages, response_format=wanted)


def completions(
    server: ChatServer, *texts: str, model: type[BaseModel] | None = None, timeout: float = 5, key: str = "k"
) -> list[ChatCompletion]:
    async def ask_all() -> list[ChatCompletion]:
        async with AsyncOpenAI(base_url=server.base_url, api_key=key, max_retries=0, timeout=timeout) as client:
            return [await ask(client, text, model) for text in texts]

    return asyncio.run(ask_all())


def fails(server: ChatServer, text: str) -> None:
    with pytest.raises(openai.APIError):
        completions(server, text)


def answers(server: ChatServer, *texts: str, model: type[BaseModel] | None = None) -> list[str]:
    return [one.choices[0].message.content or "" for one in completions(server, *texts, model=model)]


def kinds(server: ChatServer) -> list[str]:
    return [call.answered_with.kind for call in server.calls]


def test_default_answer_is_an_instance_of_a_nested_schema(server: ChatServer) -> None:
    [answer] = answers(server, "row 1", model=Plan)
    plan = Plan.model_validate_json(answer)
    assert len(plan.steps) == 2
    assert "left_out" not in json.loads(answer)


def test_default_answer_depends_on_the_messages_alone(server: ChatServer) -> None:
    first, second, again = answers(server, "row 1", "row 2", "row 1", model=Plan)
    assert first == again != second


@pytest.mark.parametrize(
    "kind",
    [
        # Bounds, open and closed, on one side and on both.
        Annotated[int, Field(ge=7, le=7)],
        Annotated[int, Field(gt=1_000)],
        Annotated[int, Field(lt=-5)],
        Annotated[int, Field(ge=1, lt=3)],
        Annotated[float, Field(lt=-5)],
        Annotated[float, Field(gt=1)],
        Annotated[float, Field(ge=3, le=3)],
        Annotated[str, Field(max_length=1)],
        Annotated[str, Field(min_length=100)],
        # Collections, of which some must not repeat a value.
        Annotated[set[str], Field(min_length=5)],
        Annotated[set[int], Field(min_length=5)],
        Annotated[set[Literal["a", "b", "c"]], Field(min_length=3)],
        tuple[int, str],
        dict[str, int],
        # What holds nothing, and what says nothing.
        None,
        Any,
        # What refers to itself.
        Step,
        list[Step],
    ],
)
def test_instances_satisfy_what_pydantic_asks_for(kind: Any) -> None:
    adapter = TypeAdapter(kind)
    schema = adapter.json_schema()
    instances = [instance_of(schema, str(number)) for number in range(50)]
    assert [one for one in instances if not adapter.validator.isinstance_python(one, strict=False)] == []


def test_without_a_schema_the_fallback_answers(server: ChatServer) -> None:
    server.fallback_answer = {"answer": "né"}
    assert [json.loads(answer) for answer in answers(server, "row 1")] == [{"answer": "né"}]
    server.fallback_answer = lambda call: call.messages[-1]["content"].upper()
    assert answers(server, "row 1") == ["ROW 1"]


def test_judge_approves_by_default(server: ChatServer) -> None:
    [answer] = answers(server, "row 1", model=JudgeResult)
    assert JudgeResult.model_validate_json(answer) == JudgeResult(reasons=["ok"], verdict="PASS", score=90)
    assert [call.purpose for call in server.calls] == ["judge"]


def test_judge_without_a_schema_is_told_by_the_predicate(server: ChatServer) -> None:
    server.is_judge = lambda body: "judge this" in text_of(body)
    assert json.loads(answers(server, "judge this")[0]) == {"reasons": ["ok"], "verdict": "PASS", "score": 90}
    assert (server.count("judge"), server.count("generate")) == (1, 0)


def test_scripted_answers_come_once_each_and_the_default_resumes(server: ChatServer) -> None:
    server.script("row 7", says("one"), says({"two": 2}))
    server.fallback_answer = {}
    assert answers(server, "row 7", "row 8", "row 7", "row 7") == ["one", "{}", '{"two": 2}', "{}"]


def test_the_last_scripted_answer_repeats_on_request(server: ChatServer) -> None:
    server.script("row 7", says("one"), says("two"), repeat_last=True)
    assert answers(server, "row 7", "row 7", "row 7") == ["one", "two", "two"]


def test_earlier_scripts_win(server: ChatServer) -> None:
    server.script("row", says("first"))
    server.script("row 7", says("second"))
    assert answers(server, "row 7", "row 7") == ["first", "second"]


def test_a_script_can_be_for_the_judge_only(server: ChatServer) -> None:
    server.script("row 7", says("a word from the judge"), purpose="judge")
    assert answers(server, "row 7") == ['{"text": "ok"}']
    assert answers(server, "row 7", model=JudgeResult) == ["a word from the judge"]


def test_a_script_can_be_two_functions_of_the_call(server: ChatServer) -> None:
    def echo(call: ChatCall) -> Answer:
        return says(f"{call.number}: {call.messages[-1]['content']}")

    server.script(lambda call: call.model == "m-1", echo, repeat_last=True)
    assert answers(server, "row 7", "row 8") == ["1: row 7", "2: row 8"]


def test_a_status_carries_its_headers_and_an_error_body(server: ChatServer) -> None:
    quota = error_body("You exceeded your quota.", "insufficient_quota")
    server.script("row", status(429, quota, headers={"Retry-After": "3"}), status(503))
    with pytest.raises(openai.RateLimitError) as limited:
        completions(server, "row 7")
    assert (limited.value.code, limited.value.response.headers["retry-after"]) == ("insufficient_quota", "3")
    with pytest.raises(openai.InternalServerError, match="scripted status 503"):
        completions(server, "row 7")
    assert kinds(server) == ["status 429", "status 503"]


def test_refusals_and_cut_off_answers_say_so(server: ChatServer) -> None:
    server.script("row", refuses(), cut_off('{"a": '), says("", finish_reason="content_filter"))
    refused, cut, filtered = (one.choices[0] for one in completions(server, "row", "row", "row"))
    assert (refused.message.content, bool(refused.message.refusal)) == (None, True)
    assert (cut.message.content, cut.finish_reason) == ('{"a": ', "length")
    assert filtered.finish_reason == "content_filter"


def test_a_raw_body_arrives_as_it_is(server: ChatServer) -> None:
    server.script("row", raw_body(b"<html>\xff</html>", "text/html"))
    asked = b'{"messages": [{"role": "user", "content": "row"}]}'
    with urllib.request.urlopen(f"{server.base_url}/chat/completions", data=asked, timeout=5) as response:
        assert (response.read(), response.headers["Content-Type"]) == (b"<html>\xff</html>", "text/html")


def test_a_reset_connection_is_an_error_and_the_next_call_works(server: ChatServer) -> None:
    server.script("row 7", resets())
    with pytest.raises(openai.APIConnectionError):
        completions(server, "row 7")
    assert answers(server, "row 7") == ['{"text": "ok"}']


def test_a_connection_can_be_reset_after_a_part_of_the_response(server: ChatServer) -> None:
    server.script("row 7", resets(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"))
    with pytest.raises(openai.APIConnectionError):
        completions(server, "row 7")
    assert answers(server, "row 7") == ['{"text": "ok"}']


def test_bytes_can_be_put_on_the_wire_as_they_are(server: ChatServer) -> None:
    server.script("row", wire(b"HTTP/1.1 203 Odd\r\nContent-Length: 5\r\n\r\nhello"), wire(b"", 60))
    asked = b'{"messages": [{"role": "user", "content": "row"}]}'
    with urllib.request.urlopen(f"{server.base_url}/chat/completions", data=asked, timeout=5) as response:
        assert (response.status, response.reason, response.read()) == (203, "Odd", b"hello")


def test_a_message_can_have_any_shape(server: ChatServer) -> None:
    server.script("row", completes({"content": None, "tool_calls": []}, {"finish_reason": "tool_calls"}, usage=None))
    [got] = completions(server, "row")
    assert (got.choices[0].message.content, got.choices[0].finish_reason, got.usage) == (None, "tool_calls", None)


def test_half_a_body_is_an_error(server: ChatServer) -> None:
    server.script("row 7", half_body())
    with pytest.raises(openai.APIConnectionError):
        completions(server, "row 7")
    assert kinds(server) == ["half_body"]


def test_a_hanging_answer_meets_the_clients_timeout(server: ChatServer) -> None:
    server.script("row 7", hangs(60))
    with pytest.raises(openai.APITimeoutError):
        completions(server, "row 7", timeout=0.1)
    assert kinds(server) == ["hangs"]


def test_a_hang_that_ends_is_an_answer(server: ChatServer) -> None:
    server.script("row 7", hangs(0.05))
    assert answers(server, "row 7") == ['{"text": "ok"}']


def test_a_dripping_answer_outlives_the_read_timeout(server: ChatServer) -> None:
    server.script("row 7", drips(0.002, text="drop by drop"))
    began = time.monotonic()
    [answer] = completions(server, "row 7", timeout=0.3)
    assert answer.choices[0].message.content == "drop by drop"
    assert time.monotonic() - began > 0.3


@pytest.mark.parametrize("stuck", [hangs(60), drips(60)])
def test_the_server_ends_while_an_answer_is_stuck(stuck: Answer) -> None:
    with ChatServer() as server:
        server.script("row 7", stuck)
        with pytest.raises(openai.APITimeoutError):
            completions(server, "row 7", timeout=0.1)
        server.script("row 8", stuck)
        asking = threading.Thread(target=fails, args=(server, "row 8"))
        asking.start()
        while server.count() < 2:
            time.sleep(0.01)
        began = time.monotonic()
    asking.join()
    assert time.monotonic() - began < 2


def test_every_call_is_recorded_with_its_answer(server: ChatServer) -> None:
    began = time.monotonic()
    server.script("row 8", says("eight"))
    completions(server, "row 7", "row 8", key="secret")
    first, second = server.calls
    assert first.messages == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "row 7"}]
    assert (first.text, first.model, first.purpose, first.number) == ("Be brief.\nrow 7", "m-1", "generate", 1)
    assert first.headers["authorization"] == "Bearer secret"
    assert first.body["response_format"] == {"type": "json_object"}
    assert began < first.at < second.at < time.monotonic()
    assert [call.answered_with for call in server.calls] == [says({"text": "ok"}), says("eight")]


def test_answers_have_an_id_and_a_usage_and_echo_the_model(server: ChatServer) -> None:
    server.script("row 8", says("eight", usage={"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}))
    estimated, given = completions(server, "row 7" * 100, "row 8")
    assert (estimated.id, given.id, given.model) == ("chatcmpl-1", "chatcmpl-2", "m-1")
    assert estimated.usage
    assert estimated.usage.prompt_tokens_details
    assert (estimated.usage.prompt_tokens, estimated.usage.completion_tokens) == (127, 3)
    assert estimated.usage.prompt_tokens_details.cached_tokens == 0
    assert given.usage
    assert given.usage.total_tokens == 3


def test_every_answer_has_a_request_id(server: ChatServer) -> None:
    server.script("row", says("good"), status(500))
    asked = b'{"messages": [{"role": "user", "content": "row"}]}'
    with urllib.request.urlopen(f"{server.base_url}/chat/completions", data=asked, timeout=5) as good:
        assert good.headers["x-request-id"] == "req-1"
    with pytest.raises(openai.InternalServerError) as bad:
        completions(server, "row")
    assert bad.value.request_id == "req-2"


def test_the_most_calls_in_flight_are_counted(server: ChatServer) -> None:
    server.delay = 0.1

    async def ask_together() -> None:
        async with AsyncOpenAI(base_url=server.base_url, api_key="k", max_retries=0) as client:
            await asyncio.gather(*(ask(client, f"row {number}") for number in range(7)))

    asyncio.run(ask_together())
    completions(server, "row 8")
    assert server.max_in_flight == 7


def test_calls_can_be_counted_without_keeping_them() -> None:
    with ChatServer(keep_calls=False) as server:
        completions(server, "row 7", "row 8")
        assert (server.count(), server.calls) == (2, [])


def test_a_wrong_key_is_refused_everywhere_and_spends_no_script(server: ChatServer) -> None:
    server.require_key = "right"
    server.script("row 7", says("in"))
    with pytest.raises(openai.AuthenticationError) as refused:
        completions(server, "row 7", key="wrong")
    assert refused.value.code == "invalid_api_key"
    with pytest.raises(urllib.error.HTTPError, match="401") as unlisted:
        urllib.request.urlopen(f"{server.base_url}/models", timeout=5)
    unlisted.value.close()
    assert completions(server, "row 7", key="right")[0].choices[0].message.content == "in"


def test_an_unsupported_response_format_is_named(server: ChatServer) -> None:
    server.refuse_response_format = {"json_schema"}
    with pytest.raises(openai.BadRequestError, match=r"response_format.*json_schema") as refused:
        completions(server, "row 7", model=Plan)
    assert refused.value.param == "response_format"
    assert answers(server, "row 7") == ['{"text": "ok"}']


@pytest.mark.parametrize("body", [b"no json", b"[]", b"{}", b'{"messages": 3}', b'{"messages": ["hello"]}'])
def test_what_is_no_chat_request_is_refused(server: ChatServer, body: bytes) -> None:
    with pytest.raises(urllib.error.HTTPError, match="400") as refused:
        urllib.request.urlopen(f"{server.base_url}/chat/completions", data=body, timeout=5)
    refused.value.close()
    assert server.count() == 0


def test_models_are_listed(server: ChatServer) -> None:
    server.models = ["m-1", "m-2"]

    async def listed() -> list[str]:
        async with AsyncOpenAI(base_url=server.base_url, api_key="k", max_retries=0) as client:
            return [model.id async for model in client.models.list()]

    assert asyncio.run(listed()) == ["m-1", "m-2"]


def test_two_servers_run_side_by_side(server: ChatServer) -> None:
    with ChatServer() as other:
        completions(other, "row 7")
        assert (server.count(), other.count()) == (0, 1)
