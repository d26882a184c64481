"""Any server that speaks OpenAI's chat-completions API."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import httpx2
import openai
import orjson

from llmbatch_assets.adapters.providers.faults import fault_of_status, is_about_format, read_completion
from llmbatch_assets.domain.outcome import Completion
from llmbatch_assets.domain.parameters import OPENAI_BASE_URL, Llm
from llmbatch_assets.domain.prompt import Message
from llmbatch_assets.domain.request import ChatRequest
from llmbatch_assets.errors import (
    AskOtherwiseError,
    FailureCause,
    ProviderError,
    RunPermanentError,
    StopCause,
    TransientError,
)

log = logging.getLogger(__name__)

CONNECT_SEC = 10.0
# No model writes so much in one answer. Bytes after decompression.
LONGEST_BODY = 10_000_000
# A placeholder such as "none" is no secret.
SHORTEST_KEY = 7
_THIS_MACHINE = {"127.0.0.1", "localhost", "::1"}

# What a server may be asked for, strictest first.
_STEPS = ("json_schema", "json_object", "prompt")


class OpenAIClient:
    """One server and model. Asks for JSON in the strictest way that the server takes."""

    def __init__(self, llm: Llm, base_url: str, read_key: Callable[[], str]) -> None:
        self._llm = llm
        self._base_url = base_url
        self._url = f"{base_url.rstrip('/')}/chat/completions"
        self._sdk = _open_sdk(llm, base_url, read_key)
        # The lines of httpx2 quote the server's own words, in which the key may be.
        for name in ("httpx2", "openai") if llm.silence_client_lv_logs else ("httpx2",):
            logging.getLogger(name).setLevel(logging.WARNING)
        self._steps = list(_STEPS if llm.structured_output == "auto" else (llm.structured_output,))
        self._reached = False

    async def close(self) -> None:
        """Close the connections."""
        await self._sdk.close()

    @property
    def structured_output(self) -> str:
        """How JSON is asked for at present."""
        return self._steps[0]

    async def complete(self, request: ChatRequest) -> Completion:
        """Answer one call. Raises a ``ProviderError``."""
        started = time.perf_counter()
        answer = await self._send(request)
        self._reached = True
        return read_completion(answer.content, time.perf_counter() - started, answer.headers.get("x-request-id", ""))

    async def _send(self, request: ChatRequest) -> httpx2.Response:
        step = self._steps[0]
        try:
            return await self._post(_encoded(_body(self._llm, self._base_url, request, step)))
        except openai.APIStatusError as refused:
            self._reached = True
            fault = fault_of_status(refused)
            raise (_otherwise(fault) if self._steps_down(refused, step) else fault) from None

    async def _post(self, body: bytes) -> httpx2.Response:
        try:
            async with asyncio.timeout(self._llm.timeout_sec):
                # Not by chat.completions.create: that takes every value of the body apart, the schema's too, for each call.
                answer = await self._sdk.post(self._url, cast_to=httpx2.Response, content=body)
        except TimeoutError:
            raise self._timeout() from None
        except (openai.APIConnectionError, aiohttp.ClientError, UnicodeError) as fault:
            # The SDK lets pass what its aiohttp transport says of an answer that is not HTTP, or stumbles over a reason
            # phrase ("Nicht verf\xfcgbar") that is not UTF-8.
            raise self._connection_fault(fault) from None
        return answer

    def _timeout(self) -> TransientError:
        return TransientError(FailureCause.TIMEOUT, f"no answer within {self._llm.timeout_sec:g} s")

    def _connection_fault(self, fault: Exception) -> TransientError | RunPermanentError:
        causes = list(_causes(fault))
        reason = _reason(causes)
        # What it was stands in the chain: the SDK calls a refused connection a timeout.
        unconnected = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
        if not self._reached and any(isinstance(one, unconnected) for one in causes):
            return RunPermanentError(
                StopCause.NOTHING_LISTENING,
                f"no connection to {self._base_url} ({reason}); start the server or correct llm.base_url",
            )
        if any(isinstance(one, TimeoutError) for one in causes):
            return self._timeout()
        return TransientError(FailureCause.CONNECTION, f"connection to {self._base_url} failed: {reason}")

    def _steps_down(self, refused: openai.APIStatusError, step: str) -> bool:
        """Whether the server refused the way of asking, and there is another one left."""
        if not is_about_format(refused):
            return False
        if self._steps[0] == step and len(self._steps) > 1:
            del self._steps[0]
            log.warning("%s does not take structured_output %s; using %s", self._base_url, step, self._steps[0])
        return self._steps[0] != step


def _otherwise(refusal: ProviderError) -> AskOtherwiseError:
    again = AskOtherwiseError(FailureCause.STRUCTURED_OUTPUT, str(refusal))
    again.request_id, again.status = refusal.request_id, refusal.status
    return again


def _reason(causes: list[BaseException]) -> str:
    if any(isinstance(one, aiohttp.ClientPayloadError | aiohttp.ClientResponseError | UnicodeError) for one in causes):
        # aiohttp quotes what it could not read, in which the key may be.
        return "the answer breaks off or is not HTTP"
    return str(causes[-1]) or type(causes[-1]).__name__


def _causes(fault: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = fault
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__


def _open_sdk(llm: Llm, base_url: str, read_key: Callable[[], str]) -> openai.AsyncOpenAI:
    async def key() -> str:
        found = read_key()
        if not (found.isascii() and found.isprintable()):
            raise RunPermanentError(
                StopCause.BAD_KEY, "the key holds a line break or another character that no key has; copy it again"
            )
        return found

    # Redirects are not followed: the key must reach no other host.
    timeout = openai.Timeout(llm.timeout_sec, connect=min(llm.timeout_sec, CONNECT_SEC))
    # A proxy is for what lies beyond this machine.
    http = openai.DefaultAioHttpClient(
        timeout=timeout,
        follow_redirects=False,
        trust_env=urlsplit(base_url).hostname not in _THIS_MACHINE,
        event_hooks={"response": [_take_in]},
    )
    sdk = openai.AsyncOpenAI(api_key=key, base_url=base_url, max_retries=0, http_client=http, timeout=timeout)
    if not _is_openai(base_url):
        # The SDK takes both from the environment and would tell them to any server.
        sdk.organization = sdk.project = None
    return sdk


async def _take_in(response: httpx2.Response) -> None:
    """Read an answer to its end, but for what is too long, and leave nothing in it that is the key.

    The SDK would read on for ever, and inflate what is compressed without end.
    """
    packed = "content-encoding" in response.headers
    body = bytearray()
    try:
        async with contextlib.aclosing(_pieces(response, packed=packed)) as pieces:
            async for piece in pieces:
                body += piece
                if len(body) > LONGEST_BODY:
                    raise TransientError(
                        FailureCause.TOO_LARGE, f"the answer is larger than {LONGEST_BODY // 1_000_000} MB"
                    )
    except httpx2.DecodingError:
        raise TransientError(FailureCause.BROKEN_BODY, "the answer cannot be decompressed") from None
    key = response.request.headers.get("authorization", "").removeprefix("Bearer ")
    # Not everything that a server puts into a header is ASCII.
    told = [(name, _without(key, value.decode("latin-1")).encode("latin-1")) for name, value in response.headers.raw]
    if packed or told != response.headers.raw:
        response.headers = httpx2.Headers([one for one in told if one[0].lower() != b"content-encoding"])
    response.stream = httpx2.ByteStream(_without(key, body.decode("latin-1")).encode("latin-1"))


async def _pieces(response: httpx2.Response, *, packed: bool) -> AsyncGenerator[bytes, None]:
    if packed:
        # Another one, since the SDK is still to read this one.
        unread = httpx2.Response(response.status_code, headers=response.headers, stream=response.stream)
        async for piece in unread.aiter_bytes():
            yield piece
        return
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    try:
        async for piece in response.stream:
            yield piece
    finally:
        await response.stream.aclose()


def _without(key: str, told: str) -> str:
    """What a server said without the key, which some repeat, be it as it is or escaped as in JSON."""
    if len(key) <= SHORTEST_KEY or not _may_hold(key, told):
        return told
    return _pattern(key).sub("[key]", told)


def _may_hold(key: str, told: str) -> bool:
    # Going through all that is said with the pattern takes longer than sending and reading it.
    return "u00" in told or key.replace("\\", "") in told.replace("\\", "")


@cache
def _pattern(key: str) -> re.Pattern[str]:
    signs = (rf"\\{{0,8}}(?:{re.escape(sign)}|u00{ord(sign):02x}|u00{ord(sign):02X})" for sign in key)
    return re.compile("".join(signs))


def _is_openai(base_url: str) -> bool:
    return base_url.rstrip("/") == OPENAI_BASE_URL


def _body(llm: Llm, base_url: str, request: ChatRequest, step: str) -> dict[str, Any]:
    messages = request.messages if step == "json_schema" else request.with_schema_in_prompt()
    # OpenAI's newer models know only the second name, most other servers only the first.
    longest = "max_completion_tokens" if _is_openai(base_url) else "max_tokens"
    settings = {
        "temperature": llm.temperature,
        "top_p": llm.top_p,
        "seed": llm.seed,
        longest: llm.max_output_tokens,
        "response_format": _response_format(base_url, request, step),
    }
    sent = {name: value for name, value in settings.items() if value is not None}
    return {"model": llm.model_name, "messages": [_turn(message) for message in messages], **sent} | llm.extra_body


def _turn(message: Message) -> dict[str, str]:
    # A model can say half of a surrogate pair, which no request can hold when it is shown to it again.
    return {"role": message.role, "content": message.content.encode(errors="backslashreplace").decode()}


def _response_format(base_url: str, request: ChatRequest, step: str) -> dict[str, Any] | None:
    if step == "prompt" or request.contract is None:
        return None
    if step == "json_object":
        return {"type": "json_object"}
    contract = request.contract
    strict = contract.strict_form if _is_openai(base_url) else None
    if strict is None:
        named = {"name": contract.name, "schema": contract.json_schema, "strict": contract.requires_all}
    else:
        named = {"name": contract.name, "schema": strict, "strict": True}
    return {"type": "json_schema", "json_schema": named}


def _encoded(body: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(body)
    except TypeError:
        # An integer beyond 64 bits, of extra_body.
        return json.dumps(body).encode()
