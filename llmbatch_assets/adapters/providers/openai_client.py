"""Client of any server with OpenAI's chat-completions API."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

import aiohttp

from llmbatch_assets.adapters.providers.connection import Connection
from llmbatch_assets.adapters.providers.connection_errors import Route, connection_error
from llmbatch_assets.adapters.providers.reasoning_only import completed
from llmbatch_assets.adapters.providers.request_body import request_body
from llmbatch_assets.adapters.providers.responses.completions import read_answer
from llmbatch_assets.adapters.providers.responses.http_response import HttpResponse
from llmbatch_assets.adapters.providers.responses.refusals import (
    REQUEST_ID,
    error_of_status,
    may_refuse_format,
    refuses_format,
)
from llmbatch_assets.adapters.providers.responses.reported_usage import MOST_TOKENS, ReportedUsage
from llmbatch_assets.adapters.providers.structured_output import FORMATS, FormatChoice
from llmbatch_assets.domain.configuration.model_blocks import Llm
from llmbatch_assets.domain.outcome import Completion
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

# Timed-out calls are retried with at most this many times llm.timeout_sec.
MAX_TIMEOUT_FACTOR = 4


class OpenAIClient:
    """One server and model. Asks for JSON in the strictest way that the server accepts."""

    def __init__(self, llm: Llm, base_url: str, get_key: Callable[[], str]) -> None:
        self._llm = llm
        self._base_url = base_url
        self._get_key = get_key
        self._connection = Connection(llm, base_url)
        # aiohttp logs parts of responses that it cannot read, which may contain the key.
        logging.getLogger("aiohttp").setLevel(logging.CRITICAL)
        ways = FORMATS if llm.structured_output == "auto" else (llm.structured_output,)
        self._formats = FormatChoice(base_url, list(ways))
        self._was_reached = False
        self._warned_of_usage = False
        # Raised once an answer has taken longer.
        self._limit_sec = llm.timeout_sec
        self._warned_of_timeout = False

    async def aclose(self) -> None:
        await self._connection.aclose()

    @property
    def structured_output(self) -> str:
        """The way of asking for JSON that is used now."""
        return self._formats.current

    async def complete(self, request: ChatRequest) -> Completion:
        """Answer one call. Raises a ``ProviderError``."""
        used_format = self._formats.for_request(request)
        body = request_body(self._llm, self._base_url, request, used_format)
        limit, started, response = self._limit_for(request), time.perf_counter(), None
        try:
            response = await self._post(body, limit)
            latency = time.perf_counter() - started
            if not response.is_success:
                raise self._naming_key(error_of_status(response, body))
            if latency > self._limit_sec:
                self._limit_sec = limit
            request_id = response.headers.get(REQUEST_ID, "")
            answer = read_answer(response.body, latency, request_id, response.headers, len(body))
        except ProviderError as error:
            raise self._error(request, used_format, error, response) from None
        self._formats.record_success(request, used_format)
        self._check_usage(answer.reported)
        return completed(request, answer)

    def _naming_key(self, error: ProviderError) -> ProviderError:
        """Name the variable of a refused key in the error."""
        if error.cause is not StopCause.KEY_REFUSED:
            return error
        name = self._llm.key_name
        remedy = (
            f"the key is in the environment variable {name}"
            if name
            else "no key was sent; if the server needs one, put it in an environment variable and set llm.api_key_env to its name"
        )
        named = RunPermanentError(StopCause.KEY_REFUSED, f"{error} ({remedy})")
        named.request_id, named.status, named.usage = error.request_id, error.status, error.usage
        return named

    def _error(
        self, request: ChatRequest, used_format: str, error: ProviderError, response: HttpResponse | None
    ) -> ProviderError:
        """Return the error of a call, or the error that says that its next try uses the next JSON mode."""
        may_be_format = response is not None and (
            refuses_format(response)
            or (may_refuse_format(response, error) and self._formats.is_doubtful(used_format, request))
        )
        if may_be_format and self._formats.try_next(request, used_format):
            return _format_refused(error)
        if not isinstance(error, TransientError):
            self._formats.forget(request)
        return error

    def _limit_for(self, request: ChatRequest) -> float:
        """Return the seconds that a call may take: more if it has timed out before, or if others took longer."""
        most = self._llm.timeout_sec * MAX_TIMEOUT_FACTOR
        if request.timeout_factor > 1 and not self._warned_of_timeout:
            self._warned_of_timeout = True
            log.warning(
                "%s gave no answer within %g s; repeated calls get up to %g s. If answers often take that long, raise "
                "llm.timeout_sec or lower llm.max_workers: calls that time out may be billed",
                self._base_url,
                self._limit_sec,
                most,
            )
        return min(self._limit_sec * request.timeout_factor, most)

    async def _post(self, body: bytes, limit: float) -> HttpResponse:
        key, route = self._get_key(), Route(self._base_url, self._connection.proxy)
        try:
            async with asyncio.timeout(limit):
                response = await self._connection.post(body, key)
        except (aiohttp.ClientError, OSError) as error:
            failure = connection_error(error, route, key, limit, was_reached=self._was_reached)
            self._log_call(str(failure))
            raise failure from None
        self._was_reached = True
        self._log_call(f"HTTP {response.status}, {len(response.body):,} bytes")
        return response

    def _log_call(self, outcome: str) -> None:
        if not self._llm.silence_client_lv_logs:
            log.debug("POST %s: %s", self._connection.url, outcome)

    def _check_usage(self, reported: ReportedUsage) -> None:
        """Warn once about a server that reports no tokens, or an impossible number of them."""
        if self._warned_of_usage or reported.is_complete:
            return
        self._warned_of_usage = True
        what = (
            f"reported {reported.absurd_count:,} tokens for one call, which no model can read or write (the limit is "
            f"{MOST_TOKENS:,}); such counts are ignored"
            if reported.absurd_count
            else "did not report the tokens of a call"
        )
        log.warning(
            "%s %s: the cost of such calls is unknown, and budget.max_cost_usd counts an estimate", self._base_url, what
        )


def _format_refused(error: ProviderError) -> FormatRefusedError:
    format_refused = FormatRefusedError(FailureCause.STRUCTURED_OUTPUT, str(error))
    format_refused.request_id, format_refused.status, format_refused.usage = error.request_id, error.status, error.usage
    return format_refused
