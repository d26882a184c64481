"""Servers that misbehave, over a real connection: each way ends in the error that says who can help, in time."""

import asyncio
import contextlib
import gzip
import json
import logging
import os
import socket
import sys
import time
import tracemalloc
import zlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field

from llmbatch_assets.adapters.providers import request_body
from llmbatch_assets.adapters.providers.openai_client import OpenAIClient
from llmbatch_assets.domain.configuration.model_blocks import GEMINI_BASE_URL, OPENAI_BASE_URL, Llm
from llmbatch_assets.domain.outcome import Completion
from llmbatch_assets.domain.prompt import Message
from llmbatch_assets.domain.request import ChatRequest
from llmbatch_assets.domain.schema.contract import Contract
from llmbatch_assets.domain.schema.json_schema import strict_form
from llmbatch_assets.engine.retry import RetryingCalls
from llmbatch_assets.errors import ItemPermanentError, ProviderError, RunPermanentError, StopCause, TransientError
from llmbatch_assets_tests.adapters.values import LLMOutput, chat_request
from llmbatch_assets_tests.chat_server import (
    Answer,
    ChatCall,
    ChatServer,
    cut_off,
    drips,
    error_body,
    half_body,
    hangs,
    raw_body,
    refuses,
    resets,
    says,
    status,
    wire,
)

KEY = "secret-key-of-the/test"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n"


class Loose(BaseModel):
    """An output of which a part may be left out."""

    answer: str
    note: str = ""


def llm(**settings: Any) -> Llm:
    return Llm.model_validate({"model_name": "m-1", "timeout_sec": 10, **settings})


def ask(
    base_url: str, *requests: ChatRequest, key: Callable[[], str] = lambda: KEY, together: bool = False, **settings: Any
) -> list[Completion | BaseException]:
    """What one client gets for the requests, errors included."""

    async def ask_all() -> list[Completion | BaseException]:
        client = OpenAIClient(llm(**settings), base_url, key)
        once = RetryingCalls(transport_retries=0, stopped=asyncio.Event())
        try:
            if together:
                calls = (once.ask(client, request) for request in requests)
                return list(await asyncio.gather(*calls, return_exceptions=True))
            return [(await asyncio.gather(once.ask(client, one), return_exceptions=True))[0] for one in requests]
        finally:
            await client.aclose()

    return asyncio.run(ask_all())


def answer(server: ChatServer, **settings: Any) -> Completion:
    [got] = ask(server.base_url, chat_request(), **settings)
    assert isinstance(got, Completion), got
    return got


def fault(server: ChatServer, scripted: Answer, **settings: Any) -> ProviderError:
    """The error that the only call ends in. It asks for JSON in its prompt, so that there is no other way to try."""
    server.script("row 1", scripted)
    [got] = ask(server.base_url, chat_request(), **({"structured_output": "prompt"} | settings))
    assert isinstance(got, ProviderError), got
    assert KEY not in str(got)
    return got


# What goes wrong on the way.


@pytest.mark.parametrize(
    ("scripted", "kind", "cause"),
    [
        # Refusals.
        (status(401), RunPermanentError, "key_refused"),
        (status(403), RunPermanentError, "key_refused"),
        (status(404), RunPermanentError, "unknown_model"),
        (status(429, error_body("over", "insufficient_quota")), RunPermanentError, "no_quota"),
        (status(429), TransientError, "rate_limited"),
        (status(500), TransientError, "server_error"),
        (status(503, "<html>busy</html>"), TransientError, "server_error"),
        (status(400), ItemPermanentError, "bad_request"),
        (status(400, error_body("too long", "context_length_exceeded")), ItemPermanentError, "context_too_long"),
        (status(422), ItemPermanentError, "bad_request"),
        # Connections that break, on the first call too.
        (resets(), TransientError, "connection"),
        (resets(HEAD[:-9]), TransientError, "connection"),
        (resets(HEAD + b"\r\n"), TransientError, "connection"),
        (resets(HEAD + b"\r\n{"), TransientError, "connection"),
        (half_body(), TransientError, "connection"),
        (wire(b""), TransientError, "connection"),
        # What is not HTTP, or breaks its rules.
        (wire(b"SSH-2.0-OpenSSH_9.6\r\n"), TransientError, "connection"),
        (wire(b"\x15\x03\x01\x00\x02\x02\x16"), TransientError, "connection"),
        (wire(HEAD + b"X-Long: " + b"x" * 100_000 + b"\r\n\r\n"), TransientError, "connection"),
        (wire(b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n{}"), TransientError, "connection"),
        (wire(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}"), TransientError, "connection"),
        # Answers that are none.
        (raw_body(b"<html>login</html>", "text/html"), TransientError, "broken_body"),
        (raw_body(b""), TransientError, "broken_body"),
        (raw_body(b'{"choices": []}'), TransientError, "broken_body"),
        (raw_body(b"\xff\xfe"), TransientError, "broken_body"),
        (raw_body(b"data: {}\n\n", "text/event-stream"), TransientError, "broken_body"),
        (raw_body(b"{}", headers={"Content-Encoding": "gzip"}), TransientError, "broken_body"),
        (raw_body(b'{"error": {"message": "busy", "code": 429}}'), TransientError, "rate_limited"),
        # Answers that will not come.
        (refuses(), ItemPermanentError, "refused"),
        (says("", finish_reason="content_filter"), ItemPermanentError, "content_filter"),
    ],
    ids=lambda value: value.kind if isinstance(value, Answer) else None,
)
def test_each_fault_is_told_for_what_it_is(
    server: ChatServer, scripted: Answer, kind: type[ProviderError], cause: str
) -> None:
    got = fault(server, scripted)
    assert (type(got), got.cause) == (kind, cause)
    assert server.count() == 1


@pytest.mark.parametrize(
    "stuck",
    [
        hangs(60),
        drips(0.05),
        wire(HEAD + b"\r\n{", wait=60),
        wire(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n", wait=60),
    ],
    ids=["hangs", "drips", "half", "chunk"],
)
def test_a_call_ends_by_the_clock_whatever_the_server_does(server: ChatServer, stuck: Answer) -> None:
    # Bytes that keep dripping in renew a read timeout for ever.
    began = time.monotonic()
    got = fault(server, stuck, timeout_sec=0.3)
    assert (type(got), got.cause) == (TransientError, "timeout")
    assert "0.3 s" in str(got)
    assert time.monotonic() - began < 2


def test_a_client_goes_on_after_each_fault(server: ChatServer) -> None:
    for bad in (resets(), half_body(), hangs(60), status(503), raw_body(b"")):
        server.script("row 1", bad)
    got = ask(server.base_url, *(chat_request() for _ in range(6)), timeout_sec=0.3)
    assert [type(one).__name__ for one in got] == ["TransientError"] * 5 + ["Completion"]


def test_nothing_listening_stops_the_run_and_says_what_to_do() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        [got] = ask(url, chat_request())
    assert isinstance(got, RunPermanentError)
    assert got.cause == "nothing_listening"
    assert url in str(got)
    assert "start the server or correct llm.base_url" in str(got)


def test_tls_to_a_server_without_it_stops_the_run(server: ChatServer) -> None:
    [got] = ask(server.base_url.replace("http:", "https:"), chat_request())
    assert isinstance(got, RunPermanentError)
    assert "llm.base_url" in str(got)


def bomb(megabytes: int) -> bytes:
    """So many megabytes as a thousandth of them."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join(packer.compress(b" " * 1_000_000) for _ in range(megabytes)) + packer.flush()


@pytest.mark.parametrize(
    "endless",
    [
        raw_body(b" " * 20_000_000),
        status(500, " " * 20_000_000),
        raw_body(bomb(300), headers={"Content-Encoding": "gzip"}),
        Answer("bomb", "", body=bomb(300), code=401, headers={"Content-Encoding": "gzip"}),
    ],
    ids=["plain", "refusal", "gzip", "gzip refusal"],
)
def test_an_answer_that_is_too_large_is_not_taken_into_memory(server: ChatServer, endless: Answer) -> None:
    tracemalloc.start()
    try:
        got = fault(server, endless)
        # The server's copy of what it sends is in this process, too.
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()
    assert (type(got), got.cause) == (TransientError, "too_large")
    assert "10 MB" in str(got)


def test_a_large_answer_in_a_small_packing_is_read(server: ChatServer) -> None:
    body = b'{"choices": [{"message": {"content": "' + b"x" * 5_000_000 + b'"}}]}'
    server.script("row 1", raw_body(gzip.compress(body), headers={"Content-Encoding": "gzip"}))
    assert answer(server).text == "x" * 5_000_000


@pytest.mark.parametrize(
    "before",
    [
        says(),
        status(503),
    ],
    ids=lambda value: value.kind,
)
def test_a_server_that_goes_away_may_come_back(before: Answer) -> None:
    async def ask_on() -> list[BaseException | Completion]:
        with ChatServer() as server:
            server.script("row 1", before)
            client = OpenAIClient(llm(), server.base_url, lambda: KEY)
            await asyncio.gather(client.complete(chat_request()), return_exceptions=True)
        # The first call may still find the old connection, the second makes one of its own.
        got = [(await asyncio.gather(client.complete(chat_request()), return_exceptions=True))[0] for _ in range(2)]
        await client.aclose()
        return got

    for got in asyncio.run(ask_on()):
        assert isinstance(got, TransientError), got
        assert got.cause == "connection"


def test_the_client_itself_never_tries_again(server: ChatServer) -> None:
    server.script("row 1", status(500), status(500), status(500))
    ask(server.base_url, chat_request())
    assert server.count() == 1


def test_the_wait_that_a_server_asks_for_is_passed_on(server: ChatServer) -> None:
    got = fault(server, status(429, headers={"Retry-After": "7"}))
    assert isinstance(got, TransientError)
    assert got.retry_after == 7


def test_the_wait_may_be_told_as_a_date(server: ChatServer) -> None:
    # RFC 9110 allows both.
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=4), usegmt=True)
    got = fault(server, status(503, headers={"Retry-After": later}))
    assert isinstance(got, TransientError)
    assert got.retry_after is not None
    assert 1 < got.retry_after <= 5


def test_a_call_that_is_cancelled_ends_at_once(server: ChatServer) -> None:
    server.script("row 1", hangs(60))

    async def cancelled() -> float:
        client = OpenAIClient(llm(), server.base_url, lambda: KEY)
        call = asyncio.create_task(client.complete(chat_request()))
        while not server.count():  # noqa: ASYNC110  # the server is in another thread
            await asyncio.sleep(0.01)
        began = time.monotonic()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await client.aclose()
        return time.monotonic() - began

    assert asyncio.run(cancelled()) < 1


# The key.


def test_the_key_is_read_at_each_call(server: ChatServer) -> None:
    keys = iter(["first", "second"])
    ask(server.base_url, chat_request(), chat_request(), key=lambda: next(keys))
    assert [call.headers["Authorization"] for call in server.calls] == ["Bearer first", "Bearer second"]


def test_a_key_that_has_gone_stops_the_run_before_the_call(server: ChatServer) -> None:
    def gone() -> str:
        raise RunPermanentError(StopCause.NO_KEY, "the environment variable TEST_KEY is not set")

    [got] = ask(server.base_url, chat_request(), key=gone)
    assert isinstance(got, RunPermanentError)
    assert got.cause == "no_key"
    assert server.count() == 0


@pytest.mark.parametrize("code", [401, 403, 400, 500])
@pytest.mark.parametrize("shape", ["message", "body"])
def test_a_server_that_repeats_the_key_does_not_get_it_into_a_message(
    server: ChatServer, code: int, shape: str
) -> None:
    told = f"Incorrect API key provided: {KEY}."
    got = fault(server, status(code, error_body(told) if shape == "message" else told))
    assert "Incorrect API key" in str(got)


@pytest.mark.parametrize("bad", [f"{KEY}\n", f"{KEY}\r\nX-Other: 1", f"{KEY}é", f"{KEY}\x00"])
def test_a_key_that_no_header_can_hold_stops_the_run_unseen(server: ChatServer, bad: str) -> None:
    # A copied key often ends in a line break.
    [got] = ask(server.base_url, chat_request(), key=lambda: bad)
    assert isinstance(got, RunPermanentError), repr(got)
    assert KEY not in str(got)


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_and_the_key_reaches_no_other_host(server: ChatServer, code: int) -> None:
    with ChatServer() as other:
        got = fault(server, status(code, headers={"Location": f"{other.base_url}/chat/completions"}))
        assert (type(got), got.cause) == (RunPermanentError, "redirected")
        assert "llm.base_url" in str(got)
        assert other.count() == 0


@pytest.mark.parametrize(
    "repeats",
    [
        says(f'{{"answer": "{KEY}", "certain": true}}'),
        says(json.dumps({"answer": KEY.replace("/", "\\/")})),
        says("".join(f"\\u{ord(sign):04x}" for sign in KEY)),
        raw_body(b'{"choices": [{"message": {"content": "{}"}}]}', headers={"x-request-id": KEY}),
        status(500, "".join(f"\\u{ord(sign):04X}" for sign in KEY)),
        status(500, f"<html>{KEY}</html>", headers={"x-request-id": f"req-{KEY}", "Content-Type": "text/html"}),
        status(429, error_body("busy", code=KEY), headers={"Retry-After": KEY}),
        refuses(f"I will not say {KEY}."),
        wire(f"{KEY}\r\n\r\n".encode()),
        wire(f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{KEY}\r\n".encode()),
        wire(f"HTTP/1.1 401 {KEY}\r\nContent-Length: 0\r\n\r\n".encode()),
        # Partial headers.
        wire(f"HTTP/1.1 200 OK\r\nX-Echo: {KEY}\r\n".encode()),
        wire(f"HTTP/1.1 200 OK\r\nX-Echo: Bearer {KEY}\r\nX-Other: {KEY}".encode()),
        wire(f"HTTP/1.1 200 {KEY}\r\n".encode()),
        wire(f"HTTP/1.1 2{KEY}".encode()),
        resets(f"HTTP/1.1 200 OK\r\nX-Echo: {KEY}\r\n".encode()),
        # Partial bodies, and headers that cannot be read.
        wire(f"HTTP/1.1 200 OK\r\nX-Echo: {KEY}\r\nContent-Length: 99\r\n\r\n{KEY}".encode()),
        wire(f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n20\r\n{KEY}".encode()),
        wire(f"HTTP/1.1 200 OK\r\n{KEY}\r\n\r\n".encode()),
        wire(f"HTTP/1.1 200 OK\r\nContent-Length: {KEY}\r\n\r\n".encode()),
        wire(f"HTTP/1.1 200 OK\r\nX-Echo: {KEY}{'x' * 100_000}\r\n\r\n".encode()),
        status(500, headers={"Set-Cookie": f"{KEY}=1; Path=/"}),
        raw_body(b"{}", headers={"Content-Encoding": KEY}),
    ],
    ids=lambda value: value.kind,
)
def test_nothing_that_a_server_says_brings_the_key_back(
    server: ChatServer, caplog: pytest.LogCaptureFixture, repeats: Answer
) -> None:
    for name in ("", "aiohttp"):
        caplog.set_level(logging.DEBUG, logger=name)
    server.script("row 1", repeats)
    [got] = ask(server.base_url, chat_request(), silence_client_lv_logs=False)
    told = json.dumps([repr(got), str(got), getattr(got, "request_id", ""), caplog.text])
    for form in (KEY, json.dumps(KEY)[1:-1], KEY.replace("/", "\\\\/"), f"u{ord(KEY[0]):04x}"):
        assert form not in told
    assert not isinstance(got, Completion) or "[key]" in got.text + got.request_id


def test_a_short_placeholder_is_no_key_to_be_hidden(server: ChatServer) -> None:
    server.script("row 1", says('{"answer": "none", "certain": true}'))
    [got] = ask(server.base_url, chat_request(), key=lambda: "none")
    assert isinstance(got, Completion)
    assert "none" in got.text


@pytest.mark.parametrize("silent", [True, False])
def test_the_log_has_a_line_of_each_call_unless_it_is_silenced(
    server: ChatServer, caplog: pytest.LogCaptureFixture, silent: bool
) -> None:
    caplog.set_level(logging.DEBUG, logger="llmbatch_assets.adapters.providers.openai_client")
    server.script("row 1", says(), status(503), resets())
    ask(server.base_url, *[chat_request()] * 3, silence_client_lv_logs=silent)
    told = [record.getMessage() for record in caplog.records if record.name != "asyncio"]
    assert [line.partition("HTTP ")[2][:4] for line in told] == ([] if silent else ["200,", "503,", ""])
    assert all(line.startswith(f"POST {server.base_url}/chat/completions: ") for line in told)
    assert KEY not in caplog.text


# What is sent.


def test_the_contract_is_sent_as_a_json_schema(server: ChatServer) -> None:
    completion = answer(server)
    [call] = server.calls
    assert call.body["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "LLMOutput", "schema": LLMOutput.model_json_schema(), "strict": True},
    }
    assert call.messages == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "row 1"}]
    assert LLMOutput.model_validate_json(completion.text)
    assert completion.latency_sec > 0


def test_a_schema_with_optional_parts_is_not_called_strict(server: ChatServer) -> None:
    ask(server.base_url, chat_request(model=Loose))
    assert server.calls[0].body["response_format"]["json_schema"]["strict"] is False


class Limited(BaseModel):
    """An output with what OpenAI's strict form says in other words."""

    model_config = ConfigDict(extra="forbid")

    answer: str = Field(max_length=9, description="The answer.")
    note: str | None = None


class Open(BaseModel):
    """An output that the strict form cannot say."""

    model_config = ConfigDict(extra="forbid")

    counts: dict[str, int]


@pytest.mark.parametrize("slash", ["", "/"])
def test_openai_is_handed_the_strict_form(server: ChatServer, monkeypatch: pytest.MonkeyPatch, slash: str) -> None:
    monkeypatch.setattr(request_body, "OPENAI_BASE_URL", server.base_url)
    ask(server.base_url + slash, chat_request(model=Limited))

    [call] = server.calls
    handed = call.body["response_format"]["json_schema"]
    assert (handed["name"], handed["strict"]) == ("Limited", True)
    assert handed["schema"] == strict_form(Contract.of(Limited).json_schema)
    assert handed["schema"]["required"] == ["answer", "note"]
    assert handed["schema"]["properties"]["answer"] == {
        "type": "string",
        "description": "The answer. (at most 9 characters)",
    }
    # What the provider's form leaves out is still demanded.
    assert Contract.of(Limited).json_schema["properties"]["answer"]["maxLength"] == 9


def test_openai_is_handed_a_schema_without_strict_form_as_it_is(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_body, "OPENAI_BASE_URL", server.base_url)
    ask(server.base_url, chat_request(model=Open))
    handed = server.calls[0].body["response_format"]["json_schema"]
    assert handed["schema"] == Contract.of(Open).json_schema


@pytest.mark.parametrize("model", [Limited, Open, Loose])
def test_any_other_server_is_handed_the_whole_schema(server: ChatServer, model: type[BaseModel]) -> None:
    ask(server.base_url, chat_request(model=model))
    assert server.calls[0].body["response_format"]["json_schema"]["schema"] == Contract.of(model).json_schema


@pytest.mark.parametrize("way", ["auto", "json_schema", "json_object", "prompt"])
def test_a_request_for_code_has_no_response_format_and_its_messages_are_left_alone(
    server: ChatServer, way: str
) -> None:
    messages = (Message("system", "Write models."), Message("user", "row 1"))
    [got] = ask(server.base_url, ChatRequest("schema", messages, None), structured_output=way)
    assert isinstance(got, Completion)
    [call] = server.calls
    assert "response_format" not in call.body
    assert call.messages == [{"role": role, "content": content} for role, content in messages]


def test_settings_are_sent_where_they_are_set_and_only_there(server: ChatServer) -> None:
    answer(server, temperature=None)
    answer(server, temperature=0.25, top_p=0.5, seed=7, max_output_tokens=100, extra_body={"top_k": 3})
    bare, full = (dict(call.body) for call in server.calls)
    assert set(bare) == {"model", "messages", "response_format"}
    assert (full["temperature"], full["top_p"], full["seed"], full["top_k"]) == (0.25, 0.5, 7, 3)


def test_most_servers_are_told_the_longest_answer_by_its_old_name(server: ChatServer) -> None:
    answer(server, max_output_tokens=100)
    assert server.calls[0].body["max_tokens"] == 100
    assert "max_completion_tokens" not in server.calls[0].body


@pytest.mark.parametrize("slash", ["", "/"])
def test_openai_is_told_the_longest_answer_by_its_new_name(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch, slash: str
) -> None:
    monkeypatch.setattr(request_body, "OPENAI_BASE_URL", server.base_url)
    [got] = ask(server.base_url + slash, chat_request(), max_output_tokens=100)
    assert isinstance(got, Completion)
    assert server.calls[0].body["max_completion_tokens"] == 100
    assert "max_tokens" not in server.calls[0].body


def test_half_a_surrogate_pair_can_be_shown_to_the_model_again(server: ChatServer) -> None:
    completion = answer(server)
    request = ChatRequest("generate", (Message("assistant", "a\ud800b"), Message("user", "row 1")), None)
    [got] = ask(server.base_url, request)
    assert isinstance(got, Completion), got
    assert server.calls[-1].messages[0]["content"] == "a\\ud800b"
    assert completion.request_id == "req-1"


def test_usage_is_counted_and_its_absence_is_not_a_fault(server: ChatServer) -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}}
    server.script("row 1", says("{}", usage=usage), raw_body(b'{"choices": [{"message": {"content": "{}"}}]}'))
    told, untold = ask(server.base_url, chat_request(), chat_request())
    assert isinstance(told, Completion)
    assert isinstance(untold, Completion)
    assert (told.usage.input_tokens, told.usage.cached_input_tokens, told.usage.output_tokens) == (9, 4, 2)
    assert (untold.usage.requests, untold.usage.input_tokens, untold.finish_reason) == (1, 0, "stop")


def test_a_cut_answer_arrives_as_far_as_it_came(server: ChatServer) -> None:
    server.script("row 1", cut_off('{"answer": "ye'))
    completion = answer(server)
    assert (completion.text, completion.finish_reason) == ('{"answer": "ye', "length")


# How JSON is asked for.


def formats(server: ChatServer) -> list[str]:
    return [(call.body.get("response_format") or {"type": "prompt"})["type"] for call in server.calls]


@pytest.mark.parametrize("code", [400, 422])
@pytest.mark.parametrize(
    ("unknown", "asked"),
    [
        ((), ["json_schema"] * 2),
        (("json_schema",), ["json_schema", "json_object", "json_object"]),
        (("json_schema", "json_object"), ["json_schema", "json_object", "prompt", "prompt"]),
    ],
)
def test_a_way_of_asking_that_a_server_does_not_take_is_given_up_once(
    server: ChatServer, caplog: pytest.LogCaptureFixture, code: int, unknown: tuple[str, ...], asked: list[str]
) -> None:
    def says_unknown(call: ChatCall) -> Answer:
        return status(code, error_body(f"response_format {call.body['response_format']['type']} is not supported"))

    def is_unknown(call: ChatCall) -> bool:
        return call.body.get("response_format", {}).get("type") in unknown

    server.script(is_unknown, says_unknown, repeat_last=True)
    got = ask(server.base_url, chat_request("row 1"), chat_request("row 2"))
    assert [type(one) for one in got] == [Completion, Completion]
    assert formats(server) == asked
    assert len([record for record in caplog.records if "does not support" in record.getMessage()]) == bool(unknown)


@pytest.mark.parametrize(
    "told",
    [
        "JSON schema conversion failed: Unrecognized schema",
        "Failed to parse grammar",
        "Grammar error: Unknown format: uri",
        "The provided JSON schema contains features not supported by xgrammar.",
        "Unknown name \"additionalProperties\" at 'generation_config.response_schema'",
    ],
)
def test_servers_have_many_words_for_a_schema_that_they_do_not_take(server: ChatServer, told: str) -> None:
    server.script(lambda call: "response_format" in call.body, status(400, error_body(told)))
    [got] = ask(server.base_url, chat_request())
    assert isinstance(got, Completion)
    assert formats(server) == ["json_schema", "json_object"]


def test_calls_in_flight_step_down_together(server: ChatServer, caplog: pytest.LogCaptureFixture) -> None:
    server.refuse_response_format = {"json_schema"}
    server.delay = 0.1
    got = ask(server.base_url, *(chat_request(f"row {number}") for number in range(5)), together=True)
    assert [type(one) for one in got] == [Completion] * 5
    assert sorted(formats(server)) == ["json_object"] * 5 + ["json_schema"] * 5
    assert caplog.text.count("does not support") == 1


def test_without_a_schema_on_the_wire_it_stands_in_the_prompt(server: ChatServer) -> None:
    ask(server.base_url, chat_request(), structured_output="json_object")
    ask(server.base_url, chat_request(), structured_output="prompt")
    for call in server.calls:
        assert '"certain"' in call.messages[0]["content"]
        assert [message["role"] for message in call.messages] == ["system", "user"]
    assert formats(server) == ["json_object", "prompt"]


def test_a_way_of_asking_that_is_demanded_is_not_given_up(server: ChatServer) -> None:
    server.refuse_response_format = {"json_schema"}
    [got] = ask(server.base_url, chat_request(), structured_output="json_schema")
    assert isinstance(got, RunPermanentError)
    assert got.cause == "bad_setting"
    assert "response_format" in str(got)
    assert formats(server) == ["json_schema"]


@pytest.mark.parametrize(
    "refused",
    [
        # Gemini, Groq, OpenRouter; words that say nothing.
        status(
            400, '[{"error": {"code": 400, "message": "The schema has too many states for serving.", "status": "X"}}]'
        ),
        status(400, error_body("The model only supports response formats: [json text].")),
        status(404, '{"error": {"message": "No endpoints found that can handle the parameters.", "code": 404}}'),
        status(422, ""),
        status(400, "<html>Bad Request</html>"),
        raw_body(b'{"error": {"code": 400, "message": "Provider returned error"}}'),
    ],
    ids=["states", "formats", "endpoints", "empty", "html", "in a 200"],
)
def test_a_refusal_in_any_words_is_taken_for_one_of_the_schema_until_a_schema_was_accepted(
    server: ChatServer, caplog: pytest.LogCaptureFixture, refused: Answer
) -> None:
    server.script(lambda call: "response_format" in call.body, refused, repeat_last=True)
    got = ask(server.base_url, *(chat_request(f"row {number}") for number in range(3)))
    assert [type(one) for one in got] == [Completion] * 3
    assert formats(server) == ["json_schema", "json_object", "prompt", "prompt", "prompt"]
    assert caplog.text.count("does not support") == 1


def test_an_item_that_is_refused_in_every_way_changes_nothing_for_the_others(
    server: ChatServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.script("row 1", status(400, error_body("no")), repeat_last=True)
    first, second, third = ask(server.base_url, *map(chat_request, ("row 1", "row 2", "row 1")))
    assert isinstance(first, ItemPermanentError)
    assert isinstance(second, Completion)
    assert isinstance(third, ItemPermanentError)
    # Once a schema was accepted, a refusal is the item's own.
    assert formats(server) == ["json_schema", "json_object", "prompt", "json_schema", "json_schema"]
    assert "does not support" not in caplog.text


def test_an_item_that_only_passes_without_the_schema_changes_nothing_where_others_pass_with_it(
    server: ChatServer, caplog: pytest.LogCaptureFixture
) -> None:
    # The schema is accepted while the item that was refused is tried without it.
    server.script(
        lambda call: "row 1" in call.text and call.body["response_format"]["type"] == "json_schema", status(400)
    )
    server.script(
        lambda call: "row 1" in call.text and call.body["response_format"]["type"] == "json_object", hangs(0.5)
    )
    server.script("row 2", hangs(0.2))
    got = ask(server.base_url, chat_request("row 1"), chat_request("row 2"), together=True)
    assert [type(one) for one in got] == [Completion] * 2
    ask(server.base_url, chat_request("row 3"))
    assert formats(server)[-1] == "json_schema"
    assert "does not support" not in caplog.text


def test_a_model_that_is_unknown_in_every_way_stops_the_run(server: ChatServer) -> None:
    server.script(lambda _: True, status(404, error_body("not here")), repeat_last=True)
    [got] = ask(server.base_url, chat_request())
    assert isinstance(got, RunPermanentError)
    assert (got.cause, server.count()) == ("unknown_model", 3)


@pytest.mark.parametrize(
    "clear",
    [
        status(404, error_body("no such model", "model_not_found")),
        status(400, error_body("too long", "context_length_exceeded")),
        status(400, error_body("flagged", "content_filter")),
        status(400, error_body("out of range", "unsupported_value", "temperature")),
        status(400, error_body("out of range", None, "temperature")),
        status(400, error_body("Your credit balance is too low")),
        status(401),
        status(403),
        status(429),
        status(500),
    ],
    ids=lambda answer: answer.text[:60],
)
def test_a_refusal_that_says_what_it_is_about_costs_one_call(server: ChatServer, clear: Answer) -> None:
    server.script(lambda _: True, clear, repeat_last=True)
    [got] = ask(server.base_url, chat_request())
    assert isinstance(got, ProviderError)
    assert server.count() == 1


# Where it is sent.


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, (OPENAI_BASE_URL, "OPENAI_API_KEY")),
        ({"api_key_env": "MINE"}, (OPENAI_BASE_URL, "MINE")),
        ({"model_name": "gemini-2.5-flash"}, (GEMINI_BASE_URL, "GEMINI_API_KEY")),
        ({"model_name": "gemini-2.5-flash", "api_key_env": "MINE"}, (GEMINI_BASE_URL, "MINE")),
        # Also where the address of either is written out.
        ({"base_url": "https://API.openai.com/v1/"}, (OPENAI_BASE_URL, "OPENAI_API_KEY")),
        ({"base_url": GEMINI_BASE_URL, "model_name": "gemma-3"}, (GEMINI_BASE_URL.rstrip("/"), "GEMINI_API_KEY")),
        # A server of one's own gets no key that was not meant for it.
        ({"base_url": "http://h/v1"}, ("http://h/v1", "")),
        ({"base_url": "http://h/v1", "model_name": "gemini-2.5-flash"}, ("http://h/v1", "")),
        ({"base_url": "http://h/v1", "api_key_env": "MINE"}, ("http://h/v1", "MINE")),
    ],
)
def test_model_and_url_decide_where_calls_go_and_with_which_key(
    settings: dict[str, Any], expected: tuple[str, str]
) -> None:
    asked = llm(**settings)
    assert (asked.endpoint, asked.key_name) == expected


def test_variables_of_the_sdk_itself_change_nothing(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with ChatServer() as other:
        monkeypatch.setenv("OPENAI_BASE_URL", other.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "not-meant-for-this-server")
        answer(server)
        assert other.count() == 0
    assert "not-meant-for-this-server" not in str(dict(server.calls[0].headers))


def test_an_organisation_at_openai_is_not_told_to_other_servers(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-the-user")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project-of-the-user")
    answer(server)
    assert "of-the-user" not in str(dict(server.calls[0].headers))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_a_process_that_may_open_no_more_files_is_not_a_server_that_cannot_be_reached(server: ChatServer) -> None:
    import resource

    limits, opened = resource.getrlimit(resource.RLIMIT_NOFILE), list[int]()

    def exhausting() -> str:
        # The key is read just before the connection is made.
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
        with contextlib.suppress(OSError):
            while True:
                opened.append(os.open(os.devnull, os.O_RDONLY))
        return KEY

    try:
        [got] = ask(server.base_url, chat_request(), key=exhausting)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for handle in opened:
            os.close(handle)
    assert isinstance(got, RunPermanentError)
    assert (got.cause, server.count()) == ("open_files", 0)
    assert "llm.max_workers" in str(got)


def test_a_slow_answer_raises_the_limit_for_the_calls_after_it(
    server: ChatServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.delay = 0.5
    request = replace(chat_request(), timeout_factor=4)
    outcomes = ask(server.base_url, chat_request(), request, chat_request(), timeout_sec=0.3)
    assert [type(one) for one in outcomes] == [TransientError, Completion, Completion]
    assert str(outcomes[0]) == "no answer within 0.3 s"
    said = [record.getMessage() for record in caplog.records if "llm.timeout_sec" in record.getMessage()]
    assert len(said) == 1
    assert "repeated calls get up to 1.2 s" in said[0]


def test_no_call_gets_more_than_four_times_the_limit(server: ChatServer) -> None:
    server.delay = 5.0
    [got] = ask(server.base_url, replace(chat_request(), timeout_factor=16), timeout_sec=0.1)
    assert str(got) == "no answer within 0.4 s"
