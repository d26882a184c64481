"""Any server that speaks OpenAI's chat-completions API."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import aiohttp
import orjson

from llmbatch_assets.adapters.http_session import HTTP_OK, HttpAnswer, HttpSession
from llmbatch_assets.adapters.provider_faults import fault_of_status, read_completion
from llmbatch_assets.domain.json_schema import strict_form
from llmbatch_assets.domain.outcome import Completion
from llmbatch_assets.domain.parameters import GEMINI_BASE_URL, OPENAI_BASE_URL, Llm
from llmbatch_assets.domain.request import ChatRequest
from llmbatch_assets.errors import RunPermanentError, TransientError

log = logging.getLogger(__name__)

CONNECT_SEC = 10.0

# What a server may be asked for, strictest first.
_STEPS = ("json_schema", "json_object", "prompt")


def endpoint(llm: Llm) -> tuple[str, str]:
    """Base URL and name of the key's environment variable; a server of one's own has no key unless one is named."""
    usual = {GEMINI_BASE_URL: "GEMINI_API_KEY", OPENAI_BASE_URL: "OPENAI_API_KEY"}
    return llm.endpoint, llm.api_key_env or ("" if llm.base_url else usual[llm.endpoint])


class OpenAIClient:
    """One server and model. Asks for JSON in the strictest way that the server takes."""

    def __init__(self, llm: Llm, base_url: str, read_key: Callable[[], str]) -> None:
        self._llm = llm
        self._base_url = base_url
        self._url = f"{base_url.rstrip('/')}/chat/completions"
        self._read_key = read_key
        self._log = logging.getLogger("openai")
        if llm.silence_client_lv_logs:
            self._log.setLevel(logging.WARNING)
        self._steps = list(_STEPS if llm.structured_output == "auto" else (llm.structured_output,))
        self._settings: dict[tuple[str, str], dict[str, Any]] = {}
        self._reached = False

    @cached_property
    def _http(self) -> HttpSession:
        return HttpSession(self._url, min(self._llm.timeout_sec, CONNECT_SEC), _own_headers(self._base_url))

    async def close(self) -> None:
        """Close the connections."""
        await self._http.close()

    @property
    def structured_output(self) -> str:
        """How JSON is asked for at present."""
        return self._steps[0]

    async def complete(self, request: ChatRequest) -> Completion:
        """Answer one call. Raises a ``ProviderError``."""
        started = time.perf_counter()
        answer = await self._send(request)
        latency = time.perf_counter() - started
        self._log.debug("POST %s: %d in %.3f s", self._url, answer.status, latency)
        return read_completion(answer.content, latency, answer.request_id)

    async def _send(self, request: ChatRequest) -> HttpAnswer:
        while True:
            step = self._steps[0]
            answer = await self._post(self._body(request, step))
            self._reached = True
            if answer.status == HTTP_OK:
                return answer
            if not self._steps_down(answer, step):
                raise fault_of_status(answer)

    async def _post(self, body: bytes) -> HttpAnswer:
        key = _checked(self._read_key())
        try:
            async with asyncio.timeout(self._llm.timeout_sec):
                return await self._http.post(body, key)
        except TimeoutError as fault:
            raise self._connection_fault(fault) from None
        except aiohttp.ClientError as fault:
            raise self._connection_fault(fault) from None

    def _connection_fault(self, fault: Exception) -> TransientError | RunPermanentError:
        causes = list(_causes(fault))
        reason = _reason(causes)
        unconnected = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
        if not self._reached and any(isinstance(one, unconnected) for one in causes):
            return RunPermanentError(
                "nothing_listening",
                f"no connection to {self._base_url} ({reason}); start the server or correct llm.base_url",
            )
        if any(isinstance(one, TimeoutError) for one in causes):
            return TransientError("timeout", f"no answer within {self._llm.timeout_sec:g} s")
        return TransientError("connection", f"connection to {self._base_url} failed: {reason}")

    def _steps_down(self, refused: HttpAnswer, step: str) -> bool:
        """Whether the server refused the way of asking, and there is another one left."""
        if refused.status not in (400, 422) or b"response_format" not in refused.content:
            return False
        if self._steps[0] == step and len(self._steps) > 1:
            del self._steps[0]
            log.warning("%s does not take structured_output %s; using %s", self._base_url, step, self._steps[0])
        return self._steps[0] != step

    def _body(self, request: ChatRequest, step: str) -> bytes:
        messages = request.messages if step == "json_schema" else request.with_schema_in_prompt()
        asked = self._shared(request, step) | {"messages": [message._asdict() for message in messages]}
        try:
            return orjson.dumps(asked)
        except TypeError:
            # Integers beyond 64 bits; and a model can say half of a surrogate pair, which no request can hold when it is
            # shown to it again.
            shown = [
                {"role": one.role, "content": one.content.encode(errors="backslashreplace").decode()}
                for one in messages
            ]
            return json.dumps(asked | {"messages": shown}).encode()

    def _shared(self, request: ChatRequest, step: str) -> dict[str, Any]:
        """What all requests of a kind have in common."""
        kind = (step, request.contract.sha if request.contract else "")
        if kind not in self._settings:
            self._settings[kind] = _settings(self._llm, self._base_url, request, step)
        return self._settings[kind]


def _checked(key: str) -> str:
    if not (key.isascii() and key.isprintable()):
        raise RunPermanentError(
            "bad_key", "the key holds a line break or another character that no key has; copy it again"
        )
    return key


def _own_headers(base_url: str) -> dict[str, str]:
    """What the environment says of the user at OpenAI, which is told to no other server."""
    told = (
        {"OpenAI-Organization": "OPENAI_ORG_ID", "OpenAI-Project": "OPENAI_PROJECT_ID"} if _is_openai(base_url) else {}
    )
    return {header: os.environ[name] for header, name in told.items() if os.environ.get(name)}


def _reason(causes: list[BaseException]) -> str:
    if any(isinstance(one, aiohttp.ClientPayloadError | aiohttp.ClientResponseError) for one in causes):
        # aiohttp quotes what it could not read, in which the key may be.
        return "the answer breaks off or is not HTTP"
    return str(causes[-1]) or type(causes[-1]).__name__


def _causes(fault: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = fault
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__


def _is_openai(base_url: str) -> bool:
    return base_url.rstrip("/") == OPENAI_BASE_URL


def _settings(llm: Llm, base_url: str, request: ChatRequest, step: str) -> dict[str, Any]:
    # OpenAI's newer models know only the second name, most other servers only the first.
    longest = "max_completion_tokens" if _is_openai(base_url) else "max_tokens"
    settings = {
        "model": llm.model_name,
        "temperature": llm.temperature,
        "top_p": llm.top_p,
        "seed": llm.seed,
        longest: llm.max_output_tokens,
        "response_format": _response_format(base_url, request, step),
    }
    return {name: value for name, value in settings.items() if value is not None} | llm.extra_body


def _response_format(base_url: str, request: ChatRequest, step: str) -> dict[str, Any] | None:
    if step == "prompt" or request.contract is None:
        return None
    if step == "json_object":
        return {"type": "json_object"}
    schema = request.contract.json_schema
    strict = strict_form(schema) if _is_openai(base_url) else None
    if strict is None:
        named = {"name": request.contract.name, "schema": schema, "strict": _all_required(schema)}
    else:
        named = {"name": request.contract.name, "schema": strict, "strict": True}
    return {"type": "json_schema", "json_schema": named}


def _all_required(schema: Any) -> bool:
    """Whether every object of the schema requires all its properties, as OpenAI's strict form demands."""
    if isinstance(schema, list):
        return all(_all_required(part) for part in schema)
    if not isinstance(schema, dict):
        return True
    whole = set(schema.get("required", [])) == set(schema.get("properties", {}))
    return whole and all(_all_required(part) for part in schema.values())
