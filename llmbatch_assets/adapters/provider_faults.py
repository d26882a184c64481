"""What a provider's answers and refusals mean."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import openai

from llmbatch_assets.domain.outcome import Completion, TokenUsage
from llmbatch_assets.errors import ItemPermanentError, ProviderError, RunPermanentError, TransientError

_TRANSIENT = {408, 409, 425, 429, 500, 502, 503, 504, 529}
# A placeholder such as "none" is no secret.
SHORTEST_KEY = 7
_KEY = {401, 403}
_PAYMENT = 402


def fault_of_status(refused: openai.APIStatusError) -> ProviderError:
    """The error for an HTTP status that is not 200."""
    status, told = refused.status_code, _told(refused)
    if status == _PAYMENT or refused.code == "insufficient_quota" or refused.type == "insufficient_quota":
        return RunPermanentError("no_quota", f"the provider says that the quota is used up: {told}")
    if status in _TRANSIENT or status >= 500:
        cause = "rate_limited" if status == 429 else "server_error"
        return TransientError(cause, f"HTTP {status}: {told}", _retry_after(refused))
    if status in _KEY:
        return RunPermanentError("key_refused", f"HTTP {status}: the provider refused the key: {told}")
    if status == 404:
        return RunPermanentError("unknown_model", f"HTTP 404: no such model or path: {told}")
    if 300 <= status < 400:
        return RunPermanentError("redirected", f"HTTP {status}: the server sends calls elsewhere; correct llm.base_url")
    return ItemPermanentError(_cause_of_bad_request(refused), f"HTTP {status}: {told}")


def _cause_of_bad_request(refused: openai.APIStatusError) -> str:
    code = str(refused.code or refused.type or "")
    if "context_length" in code or "context" in code:
        return "context_too_long"
    if "content" in code:
        return "content_filter"
    return "bad_request"


def _told(refused: openai.APIStatusError) -> str:
    body = refused.body
    message = body.get("message") if isinstance(body, dict) else None
    # Some servers repeat the key that they refuse.
    key = refused.request.headers.get("authorization", "").removeprefix("Bearer ")
    told = str(message or refused.response.text or "no message")
    return (told.replace(key, "[key]") if len(key) > SHORTEST_KEY else told)[:500]


def _retry_after(refused: openai.APIStatusError) -> float | None:
    told = refused.response.headers.get("retry-after", "")
    try:
        seconds = float(told)
    except ValueError:
        seconds = _until(told)
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def _until(date: str) -> float:
    try:
        return (parsedate_to_datetime(date) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError):
        return math.nan


def read_completion(content: bytes, latency: float) -> Completion:
    """The completion in the body of a 200. Raises ``TransientError`` for a body that is none, or a refusal."""
    try:
        body = json.loads(content)
        choice = body["choices"][0]
        message = dict(choice["message"])
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        raise TransientError("broken_body", f"not a chat completion: {content[:200]!r}") from None
    if message.get("refusal"):
        raise ItemPermanentError("refused", f"the model refused: {message['refusal']}")
    finish_reason = str(choice.get("finish_reason") or "stop")
    if finish_reason == "content_filter":
        raise ItemPermanentError("content_filter", "the provider's content filter stopped the answer")
    text = message.get("content")
    if text is None and finish_reason == "length":
        text = ""
    if not isinstance(text, str):
        raise TransientError("empty_answer", "the answer has no content")
    return Completion(
        text=text,
        finish_reason=finish_reason,
        usage=_usage(body.get("usage")),
        latency_sec=latency,
    )


def _usage(told: Any) -> TokenUsage:
    usage = told if isinstance(told, dict) else {}
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else 0
    return TokenUsage(
        requests=1,
        input_tokens=_count(usage.get("prompt_tokens")),
        cached_input_tokens=_count(cached),
        output_tokens=_count(usage.get("completion_tokens")),
    )


def _count(number: Any) -> int:
    return number if isinstance(number, int) and number > 0 else 0
