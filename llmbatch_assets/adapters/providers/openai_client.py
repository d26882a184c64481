"""Client of any server with OpenAI's chat-completions API."""

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

from llmbatch_assets.adapters.providers.responses import error_of_status, read_completion, refuses_format
from llmbatch_assets.domain.configuration.model_blocks import OPENAI_BASE_URL, Llm
from llmbatch_assets.domain.outcome import Completion
from llmbatch_assets.domain.prompt import Message
from llmbatch_assets.domain.request import ChatRequest
from llmbatch_assets.errors import (
    FailureCause,
    FormatRefusedError,
    ProviderError,
    RunPermanentError,
    StopCause,
    TransientError,
)

log = logging.getLogger(__name__)

CONNECT_SEC = 10.0
# Bytes after decompression. No model writes that much in one answer.
MAX_BODY_BYTES = 10_000_000
# Shorter keys are placeholders such as "none", and not secret.
SHORTEST_SECRET = 8
_THIS_MACHINE = {"127.0.0.1", "localhost", "::1"}

# The ways of asking for JSON, strictest first.
_FORMATS = ("json_schema", "json_object", "prompt")


class OpenAIClient:
    """One server and model. Asks for JSON in the strictest way that the server accepts."""

    def __init__(self, llm: Llm, base_url: str, get_key: Callable[[], str]) -> None:
        self._llm = llm
        self._base_url = base_url
        self._url = f"{base_url.rstrip('/')}/chat/completions"
        self._sdk = _open_sdk(llm, base_url, get_key)
        # httpx2 logs the server's own words, which may contain the key.
        for name in ("httpx2", "openai") if llm.silence_client_lv_logs else ("httpx2",):
            logging.getLogger(name).setLevel(logging.WARNING)
        self._formats = list(_FORMATS if llm.structured_output == "auto" else (llm.structured_output,))
        self._was_reached = False

    async def aclose(self) -> None:
        await self._sdk.close()

    @property
    def structured_output(self) -> str:
        """The way of asking for JSON that is used now."""
        return self._formats[0]

    async def complete(self, request: ChatRequest) -> Completion:
        """Answer one call. Raises a ``ProviderError``."""
        started, used_format = time.perf_counter(), self._formats[0]
        try:
            response = await self._post(_encoded(_body(self._llm, self._base_url, request, used_format)))
        except openai.APIStatusError as status_error:
            self._was_reached = True
            error = error_of_status(status_error)
            can_retry = refuses_format(status_error) and self._relax_format(used_format)
            raise (_format_refused(error) if can_retry else error) from None
        self._was_reached = True
        return read_completion(
            response.content, time.perf_counter() - started, response.headers.get("x-request-id", "")
        )

    async def _post(self, body: bytes) -> httpx2.Response:
        try:
            async with asyncio.timeout(self._llm.timeout_sec):
                # chat.completions.create would walk through every value of the body, including the schema, in each call.
                return await self._sdk.post(self._url, cast_to=httpx2.Response, content=body)
        except TimeoutError:
            raise self._timeout() from None
        except (openai.APIConnectionError, aiohttp.ClientError, UnicodeError) as error:
            # The SDK does not translate aiohttp's errors about responses that are not HTTP, and fails on a reason phrase
            # ("Nicht verf\xfcgbar") that is not UTF-8.
            raise self._connection_error(error) from None

    def _timeout(self) -> TransientError:
        return TransientError(FailureCause.TIMEOUT, f"no answer within {self._llm.timeout_sec:g} s")

    def _connection_error(self, error: Exception) -> TransientError | RunPermanentError:
        # Only the chain of causes has the reason: the SDK calls a refused connection a timeout.
        causes = list(_causes(error))
        reason = _reason(causes)
        unconnected = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
        if not self._was_reached and any(isinstance(one, unconnected) for one in causes):
            return RunPermanentError(
                StopCause.NOTHING_LISTENING,
                f"no connection to {self._base_url} ({reason}); start the server or correct llm.base_url",
            )
        if any(isinstance(one, TimeoutError) for one in causes):
            return self._timeout()
        return TransientError(FailureCause.CONNECTION, f"connection to {self._base_url} failed: {reason}")

    def _relax_format(self, refused: str) -> bool:
        """Change to the next way of asking for JSON. Returns True if there is another one than the refused."""
        if self._formats[0] == refused and len(self._formats) > 1:
            del self._formats[0]
            log.warning("%s does not take structured_output %s; using %s", self._base_url, refused, self._formats[0])
        return self._formats[0] != refused


def _format_refused(error: ProviderError) -> FormatRefusedError:
    format_refused = FormatRefusedError(FailureCause.STRUCTURED_OUTPUT, str(error))
    format_refused.request_id, format_refused.status = error.request_id, error.status
    return format_refused


def _reason(causes: list[BaseException]) -> str:
    if any(isinstance(one, aiohttp.ClientPayloadError | aiohttp.ClientResponseError | UnicodeError) for one in causes):
        # aiohttp quotes what it could not read, which may contain the key.
        return "the answer breaks off or is not HTTP"
    return str(causes[-1]) or type(causes[-1]).__name__


def _causes(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__


def _open_sdk(llm: Llm, base_url: str, get_key: Callable[[], str]) -> openai.AsyncOpenAI:
    async def checked_key() -> str:
        key = get_key()
        if not (key.isascii() and key.isprintable()):
            raise RunPermanentError(
                StopCause.BAD_KEY, "the key holds a line break or another character that no key has; copy it again"
            )
        return key

    timeout = openai.Timeout(llm.timeout_sec, connect=min(llm.timeout_sec, CONNECT_SEC))
    http = openai.DefaultAioHttpClient(
        timeout=timeout,
        # The key must not reach another host.
        follow_redirects=False,
        # A proxy is for hosts other than this machine.
        trust_env=urlsplit(base_url).hostname not in _THIS_MACHINE,
        event_hooks={"response": [_receive]},
    )
    sdk = openai.AsyncOpenAI(api_key=checked_key, base_url=base_url, max_retries=0, http_client=http, timeout=timeout)
    if not _is_openai(base_url):
        # The SDK reads both from the environment and would send them to any server.
        sdk.organization = sdk.project = None
    return sdk


async def _receive(response: httpx2.Response) -> None:
    """Read a response up to the size limit and remove the key from it.

    The SDK itself would read, and decompress, without a limit.
    """
    is_compressed = "content-encoding" in response.headers
    body = bytearray()
    try:
        async with contextlib.aclosing(_chunks(response, is_compressed=is_compressed)) as chunks:
            async for chunk in chunks:
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    raise TransientError(
                        FailureCause.TOO_LARGE, f"the answer is larger than {MAX_BODY_BYTES // 1_000_000} MB"
                    )
    except httpx2.DecodingError:
        raise TransientError(FailureCause.BROKEN_BODY, "the answer cannot be decompressed") from None
    key = response.request.headers.get("authorization", "").removeprefix("Bearer ")
    headers = [(name, _without_key(key, value)) for name, value in response.headers.raw]
    if is_compressed or headers != response.headers.raw:
        response.headers = httpx2.Headers([one for one in headers if one[0].lower() != b"content-encoding"])
    response.stream = httpx2.ByteStream(_without_key(key, bytes(body)))


async def _chunks(response: httpx2.Response, *, is_compressed: bool) -> AsyncGenerator[bytes, None]:
    if is_compressed:
        # A second response, because the SDK must still read this one.
        unread = httpx2.Response(response.status_code, headers=response.headers, stream=response.stream)
        async for chunk in unread.aiter_bytes():
            yield chunk
        return
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    try:
        async for chunk in response.stream:
            yield chunk
    finally:
        await response.stream.aclose()


def _without_key(key: str, content: bytes) -> bytes:
    """Remove the key, which some servers repeat, in plain form or with JSON escapes."""
    # Headers need not be ASCII.
    text = content.decode("latin-1")
    # Searching all text with the pattern would take longer than the transfer.
    may_contain_key = "u00" in text or key.replace("\\", "") in text.replace("\\", "")
    if len(key) < SHORTEST_SECRET or not may_contain_key:
        return content
    return _key_pattern(key).sub("[key]", text).encode("latin-1")


@cache
def _key_pattern(key: str) -> re.Pattern[str]:
    characters = (rf"\\{{0,8}}(?:{re.escape(one)}|u00{ord(one):02x}|u00{ord(one):02X})" for one in key)
    return re.compile("".join(characters))


def _is_openai(base_url: str) -> bool:
    return base_url.rstrip("/") == OPENAI_BASE_URL


def _body(llm: Llm, base_url: str, request: ChatRequest, used_format: str) -> dict[str, Any]:
    messages = request.messages if used_format == "json_schema" else request.with_schema_in_prompt()
    # OpenAI's newer models accept only the first name, most other servers only the second.
    max_tokens = "max_completion_tokens" if _is_openai(base_url) else "max_tokens"
    settings = {
        "temperature": llm.temperature,
        "top_p": llm.top_p,
        "seed": llm.seed,
        max_tokens: llm.max_output_tokens,
        "response_format": _response_format(base_url, request, used_format),
    }
    present = {name: value for name, value in settings.items() if value is not None}
    return {"model": llm.model_name, "messages": [_turn(message) for message in messages], **present} | llm.extra_body


def _turn(message: Message) -> dict[str, str]:
    # A model can answer with a lone surrogate, which a request cannot hold when the answer is sent back.
    return {"role": message.role, "content": message.content.encode(errors="backslashreplace").decode()}


def _response_format(base_url: str, request: ChatRequest, used_format: str) -> dict[str, Any] | None:
    contract = request.contract
    if used_format == "prompt" or contract is None:
        return None
    if used_format == "json_object":
        return {"type": "json_object"}
    strict_schema = contract.strict_form if _is_openai(base_url) else None
    schema = strict_schema or contract.json_schema
    is_strict = strict_schema is not None or contract.requires_all
    return {"type": "json_schema", "json_schema": {"name": contract.name, "schema": schema, "strict": is_strict}}


def _encoded(body: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(body)
    except TypeError:
        # extra_body holds an integer beyond 64 bits.
        return json.dumps(body).encode()
