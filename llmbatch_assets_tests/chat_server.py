"""A local HTTP server that speaks the OpenAI chat API, for tests that want a real connection.

`with ChatServer() as server:` gives a `base_url` for clients and subprocesses, `server.script("row 7", status(429))`
tells it what to answer, and `server.calls` tells what it was asked.
"""

import asyncio
import json
import math
import socket
import struct
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import reduce
from hashlib import blake2b
from typing import Any, Literal, Self

from aiohttp import web

Json = Mapping[str, Any]
Purpose = Literal["generate", "judge"]
FORMATS = {"date": "2026-01-15", "date-time": "2026-01-15T12:00:00Z", "uri": "https://example.com/"}
TOO_MANY = 429
APPROVAL = {"reasons": ["ok"], "verdict": "PASS", "score": 90}


@dataclass(frozen=True)
class Answer:
    """What a call gets. Without a `text` it is the default one, which a recorded call then holds."""

    kind: str
    text: str | None = None
    finish_reason: str = "stop"
    usage: Json | None = None
    body: bytes | None = None
    code: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    wait: float = 0.0


@dataclass(frozen=True)
class ChatCall:
    """One request and its answer. Numbers start at 1, `at` is monotonic time, `text` is that of all messages."""

    number: int
    body: Json
    headers: Mapping[str, str]
    purpose: Purpose
    at: float
    text: str
    answered_with: Answer
    url: str = ""

    @property
    def messages(self) -> list[dict[str, Any]]:
        return list(self.body["messages"])

    @property
    def model(self) -> str:
        return str(self.body.get("model", ""))


Matcher = str | Callable[[ChatCall], bool]
ScriptedAnswer = Answer | Callable[[ChatCall], Answer]


def says(content: str | Json | None = None, finish_reason: str = "stop", usage: Json | None = None) -> Answer:
    """A complete answer; without content the default one, without usage an estimate."""
    return Answer("says", _as_text(content), finish_reason, usage)


def refuses(text: str = "I can't help with that.") -> Answer:
    """A message that has a `refusal` in place of content."""
    return Answer("refuses", text)


def cut_off(text: str) -> Answer:
    """An answer that ran into the token limit: its finish reason is `length`."""
    return Answer("cut_off", text, "length")


def status(code: int, body: str | Json | None = None, headers: Mapping[str, str] | None = None) -> Answer:
    """An HTTP error of kind `status <code>`; its body is OpenAI-like unless given."""
    text = _as_text(error_body(f"scripted status {code}") if body is None else body) or ""
    return Answer(f"status {code}", text, body=text.encode(), code=code, headers=headers or {})


def raw_body(body: bytes, content_type: str = "application/json", headers: Mapping[str, str] | None = None) -> Answer:
    """Status 200 with exactly these bytes."""
    all_headers = {"Content-Type": content_type, **(headers or {})}
    return Answer("raw_body", body.decode(errors="replace"), body=body, headers=all_headers)


def completes(message: Json, choice: Json | None = None, **body: Any) -> Answer:
    """A completion whose message has exactly these fields; further ones for its choice and for the body around it."""
    told = {"index": 0, "finish_reason": "stop", "message": message, **(choice or {})}
    return raw_body(json.dumps({"id": "chatcmpl-odd", "choices": [told], **body}).encode())


def wire(data: bytes, wait: float = 0.0) -> Answer:
    """Exactly these bytes in place of an HTTP response, this silence, and the end of the connection."""
    return Answer("wire", data.decode(errors="replace"), body=data, wait=wait)


def hangs(seconds: float) -> Answer:
    """The default answer, after this silence."""
    return Answer("hangs", wait=seconds)


def drips(interval: float, text: str | None = None) -> Answer:
    """A complete answer, `interval` seconds before each byte: a read timeout never sees it, a clock does."""
    return Answer("drips", text, wait=interval)


def resets(after: bytes = b"") -> Answer:
    """A connection that is reset before any header, or after these bytes of the response."""
    return Answer("resets", after.decode(), body=after)


def half_body(text: str | None = None) -> Answer:
    """Status 200 and half of the promised bytes, then the end of the connection."""
    return Answer("half_body", text)


@dataclass
class RateLimit:
    """So many calls in any so many seconds. A call too many is told exactly when there will be room for one."""

    calls: int
    seconds: float
    refused: int = 0
    _taken: deque[float] = field(default_factory=deque)

    def turn_away(self, at: float) -> Answer | None:
        """The refusal of a call at this time, where there is no room for it."""
        while self._taken and self._taken[0] <= at - self.seconds:
            self._taken.popleft()
        if len(self._taken) < self.calls:
            self._taken.append(at)
            return None
        self.refused += 1
        wait = self._taken[0] + self.seconds - at
        return status(429, error_body("Too many requests", "rate_limit_exceeded"), {"Retry-After": f"{wait:.3f}"})


def error_body(message: str, code: str | None = None, param: str | None = None) -> Json:
    """An error as OpenAI words it, for example with the code `insufficient_quota`."""
    return {"error": {"message": message, "type": code or "invalid_request_error", "param": param, "code": code}}


class ChatServer:
    """Serves from its own thread from `with` to its end; the public attributes may be changed meanwhile.

    It also has Azure's address, and takes the key in `key_header`. An unscripted call gets an instance of the JSON schema it asks for, the same for the same messages, or without a
    schema `fallback_answer`. One that `is_judge` recognises gets a PASS. `port` 0 is any free one.
    """

    def __init__(self, keep_calls: bool = True, port: int = 0) -> None:
        self.port = port
        self.base_url = ""
        self.delay = 0.0
        self.models = ["test-model"]
        self.require_key: str | None = None
        self.key_header = "Authorization"
        self.refuse_response_format: Collection[str] = frozenset()
        self.rate_limit: RateLimit | None = None
        self.fallback_answer: Json | Callable[[ChatCall], str] = {"text": "ok"}
        self.is_judge: Callable[[Json], bool] = asks_for_verdict
        self.max_in_flight = 0
        self._in_flight = 0
        self._keep_calls = keep_calls
        self._calls: list[ChatCall] = []
        self._counts: Counter[Purpose] = Counter()
        self._scripts: list[_Script] = []
        self._lock = threading.RLock()

    def __enter__(self) -> Self:
        started: Future[tuple[int, Callable[[], object]]] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(started)), daemon=True)
        self._thread.start()
        self.port, self._stop = started.result(timeout=30)
        self.base_url = f"http://127.0.0.1:{self.port}/v1"
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        self._thread.join()

    @property
    def calls(self) -> list[ChatCall]:
        """A copy of the calls so far, in order of arrival; a call is here before its answer leaves."""
        with self._lock:
            return list(self._calls)

    def count(self, purpose: Purpose | None = None) -> int:
        """How many calls came, whether they are kept or not."""
        with self._lock:
            return self._counts[purpose] if purpose else self._counts.total()

    def script(
        self,
        matcher: Matcher,
        first: ScriptedAnswer,
        *more: ScriptedAnswer,
        purpose: Purpose | None = None,
        repeat_last: bool = False,
    ) -> None:
        """Give each matching call the next answer. The first script that matches wins; a used-up one is forgotten.

        Each live script is tried on each call: a rule for thousands of items is one predicate and a function as answer.
        """
        with self._lock:
            self._scripts.append(_Script(matcher, purpose, deque([first, *more]), repeat_last))

    async def _serve(self, started: "Future[tuple[int, Callable[[], object]]]") -> None:
        loop, stopped = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application(client_max_size=64 * 1024**2)
        azure = "/openai/deployments/{deployment}/chat/completions"
        app.add_routes([web.post(path, self._chat) for path in ("/v1/chat/completions", azure)])
        app.add_routes([web.get("/v1/models", self._list_models)])
        # Cancelling keeps `max_in_flight` true when clients hang up. A shutdown timeout of 0 would wait for ever.
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.01)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port, backlog=1024).start()
        started.set_result((runner.addresses[0][1], lambda: loop.call_soon_threadsafe(stopped.set)))
        await stopped.wait()
        await runner.cleanup()

    async def _list_models(self, request: web.Request) -> web.Response:
        if not self._has_key(request.headers):
            return web.json_response(error_body("Incorrect API key provided", "invalid_api_key"), status=401)
        models = [{"id": name, "object": "model", "created": 0, "owned_by": "test"} for name in self.models]
        return web.json_response({"object": "list", "data": models})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        try:
            body = json.loads(await request.read())
            text = text_of(body)
        except (ValueError, LookupError, TypeError, AttributeError):
            return web.json_response(error_body("a JSON object with messages is required"), status=400)
        self._in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self._in_flight)
        try:
            call = self._record(body, text, request)
            # Being refused for too many calls takes no time.
            await asyncio.sleep(0 if call.answered_with.code == TOO_MANY else self.delay)
            return await _deliver(request, call)
        finally:
            self._in_flight -= 1

    def _record(self, body: Json, text: str, request: web.Request) -> ChatCall:
        purpose: Purpose = "judge" if self.is_judge(body) else "generate"
        with self._lock:
            self._counts[purpose] += 1
            number, url = self._counts.total(), str(request.rel_url)
            asked = ChatCall(number, body, request.headers, purpose, time.monotonic(), text, says(), url)
            call = replace(asked, answered_with=self._answer(asked))
            if self._keep_calls:
                self._calls.append(call)
        return call

    def _answer(self, call: ChatCall) -> Answer:
        answer = self._turned_away(call) or self._scripted(call) or says()
        return answer if answer.text is not None else replace(answer, text=self._default_text(call))

    def _turned_away(self, call: ChatCall) -> Answer | None:
        if not self._has_key(call.headers):
            return status(401, error_body("Incorrect API key provided", "invalid_api_key"))
        too_fast = self.rate_limit.turn_away(call.at) if self.rate_limit else None
        if too_fast is not None:
            return too_fast
        wanted = (call.body.get("response_format") or {}).get("type")
        if wanted in self.refuse_response_format:
            message = f"Invalid parameter: 'response_format' of type '{wanted}' is not supported with this model."
            return status(400, error_body(message, param="response_format"))
        return None

    def _has_key(self, headers: Mapping[str, str]) -> bool:
        if self.require_key is None or self.key_header == "Authorization":
            return self.require_key is None or headers.get("Authorization") == f"Bearer {self.require_key}"
        return headers.get(self.key_header) == self.require_key and "Authorization" not in headers

    def _scripted(self, call: ChatCall) -> Answer | None:
        script = next((script for script in self._scripts if script.matches(call)), None)
        if script is None:
            return None
        lasts = script.repeat_last and len(script.answers) == 1
        answer = script.answers[0] if lasts else script.answers.popleft()
        if not script.answers:
            self._scripts.remove(script)
        return answer if isinstance(answer, Answer) else answer(call)

    def _default_text(self, call: ChatCall) -> str:
        schema = _schema_of(call.body)
        made_up = None if schema is None else instance_of(schema, call.text)
        if call.purpose == "judge":
            return json.dumps({name: APPROVAL.get(name, value) for name, value in (made_up or APPROVAL).items()})
        if schema is None and callable(self.fallback_answer):
            return self.fallback_answer(call)
        return json.dumps(self.fallback_answer if schema is None else made_up)


@dataclass(eq=False)
class _Script:
    matcher: Matcher
    purpose: Purpose | None
    answers: deque[ScriptedAnswer]
    repeat_last: bool

    def matches(self, call: ChatCall) -> bool:
        if self.purpose not in (None, call.purpose):
            return False
        return self.matcher in call.text if isinstance(self.matcher, str) else self.matcher(call)


def text_of(body: Json) -> str:
    """The text of all messages of a request, one after another."""
    contents = [message.get("content") or "" for message in body["messages"]]
    return "\n".join(one if isinstance(one, str) else "".join(part.get("text", "") for part in one) for one in contents)


def asks_for_verdict(body: Json) -> bool:
    """Whether a request is a judge's, told by its schema: it has a property `verdict`."""
    return "verdict" in (_schema_of(body) or {}).get("properties", {})


def _schema_of(body: Json) -> Json | None:
    schema: Json | None = ((body.get("response_format") or {}).get("json_schema") or {}).get("schema")
    return schema


def _as_text(content: str | Json | None) -> str | None:
    return content if content is None or isinstance(content, str) else json.dumps(content, ensure_ascii=False)


async def _deliver(request: web.Request, call: ChatCall) -> web.StreamResponse:
    answer = call.answered_with
    body = _completion(call) if answer.body is None else answer.body
    headers = {"x-request-id": f"req-{call.number}", "Content-Type": "application/json", **answer.headers}
    if answer.kind in ("resets", "wire"):
        return await _on_the_wire(request, answer)
    if answer.kind in ("drips", "half_body"):
        return await _in_pieces(request, body, headers, answer)
    await asyncio.sleep(answer.wait)
    return web.Response(body=body, status=answer.code, headers=headers)


def _completion(call: ChatCall) -> bytes:
    answer, text = call.answered_with, call.answered_with.text or ""
    said = {"refusal": text, "content": None} if answer.kind == "refuses" else {"content": text}
    choice = {"index": 0, "message": {"role": "assistant", **said}, "finish_reason": answer.finish_reason}
    whole = {"id": f"chatcmpl-{call.number}", "object": "chat.completion", "created": 0, "model": call.model}
    usage = _usage(len(call.text) // 4, len(text) // 4) if answer.usage is None else answer.usage
    return json.dumps({**whole, "choices": [choice], "usage": usage}).encode()


def _usage(asked: int, answered: int) -> Json:
    totals = {"prompt_tokens": asked, "completion_tokens": answered, "total_tokens": asked + answered}
    return {**totals, "prompt_tokens_details": {"cached_tokens": 0}}


async def _on_the_wire(request: web.Request, answer: Answer) -> web.StreamResponse:
    if request.transport is None:
        return web.Response()
    if answer.body:
        request.transport.write(answer.body)
        # What is sent arrives before the connection ends.
        await asyncio.sleep(max(answer.wait, 0.02))
    if answer.kind == "resets":
        # Lingering for zero seconds makes the kernel send RST, as for a peer that died, and no orderly end.
        connection = request.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()
    else:
        request.transport.close()
    return web.Response()


async def _in_pieces(
    request: web.Request, body: bytes, headers: Mapping[str, str], answer: Answer
) -> web.StreamResponse:
    response = web.StreamResponse(headers={**headers, "Content-Length": str(len(body))})
    await response.prepare(request)
    for byte in body if answer.kind == "drips" else b"":
        await asyncio.sleep(answer.wait)
        await response.write(bytes([byte]))
    if answer.kind == "half_body" and request.transport is not None:
        await response.write(body[: len(body) // 2])
        request.transport.close()
    return response


def instance_of(schema: Json, text: str) -> Any:
    """A small instance of a JSON schema, the same for the same text: its required fields, its least lengths.

    Knows what pydantic writes, but for `multipleOf` and `pattern`; a string's first example is taken.
    """
    return _value(schema, _seed(text), schema, 0)


def _seed(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(errors="replace"), digest_size=8).digest(), "big")


def _value(schema: Json, seed: int, root: Json, depth: int) -> Any:
    schema = _resolved(schema, root, depth)
    if "const" in schema or "enum" in schema:
        return schema["const"] if "const" in schema else schema["enum"][seed % len(schema["enum"])]
    kinds = schema.get("type", "string")
    kind = kinds if isinstance(kinds, str) else kinds[0]
    if kind == "object":
        fields = ((name, schema["properties"][name]) for name in schema.get("required", ()))
        return {name: _value(one, _seed(f"{seed} {name}"), root, depth + 1) for name, one in fields}
    if kind == "array":
        places = list(schema.get("prefixItems", ()))
        places += [schema.get("items", {})] * (schema.get("minItems", 0) - len(places))
        # Neighbouring seeds give different values, which `uniqueItems` needs.
        return [_value(one, seed + index, root, depth + 1) for index, one in enumerate(places)]
    if kind in ("integer", "number"):
        return _number({**schema, "type": kind}, seed)
    return {"null": None, "boolean": seed % 2 == 0}[kind] if kind in ("null", "boolean") else _string(schema, seed)


def _resolved(schema: Json, root: Json, depth: int) -> Json:
    if "$ref" in schema:
        return _resolved(reduce(lambda node, name: node[name], schema["$ref"].split("/")[1:], root), root, depth)
    branches = schema.get("anyOf") or schema.get("oneOf")
    if not branches:
        return schema
    # Deep down, a null or a plain value ends what refers to itself.
    plainest = min(branches, key=lambda one: (one.get("type") != "null", "$ref" in one))
    return _resolved(branches[0] if depth < 5 else plainest, root, depth)


def _string(schema: Json, seed: int) -> str:
    if "examples" in schema:
        return str(schema["examples"][0])
    made_up = FORMATS.get(schema.get("format", ""), f"t{seed:016x}")
    return made_up.ljust(schema.get("minLength", 0), ".")[: schema.get("maxLength")]


def _number(schema: Json, seed: int) -> float:
    nudge = 1 if schema["type"] == "integer" else 0
    low: float = schema.get("minimum", schema.get("exclusiveMinimum", -math.inf) + nudge)
    high: float = schema.get("maximum", schema.get("exclusiveMaximum", math.inf) - nudge)
    low = low if low > -math.inf else min(0, high - 100)
    high = min(high, low + 100)
    if nudge:
        return math.ceil(low) + seed % (math.floor(high) - math.ceil(low) + 1)
    return low + (high - low) * (1 + seed % 9) / 10
