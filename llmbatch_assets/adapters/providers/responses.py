"""Chat-completion responses of all providers, translated to our completions and errors."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import openai

from llmbatch_assets.domain.outcome import Completion
from llmbatch_assets.domain.usage import TokenUsage
from llmbatch_assets.errors import (
    FailureCause,
    ItemPermanentError,
    ProviderError,
    RunPermanentError,
    StopCause,
    TransientError,
)

_TRANSIENT_STATUSES = {408, 409, 425, 429}
_TOO_LARGE = 413
_QUOTED_CHARS = 500
# More tokens than any model reads or writes in one call: a larger count is wrong.
_MAX_TOKENS = 10**9

STOPPING_STATUSES = {
    401: StopCause.KEY_REFUSED,
    402: StopCause.NO_QUOTA,
    403: StopCause.KEY_REFUSED,
    404: StopCause.UNKNOWN_MODEL,
    405: StopCause.UNKNOWN_MODEL,
    407: StopCause.PROXY_REFUSED,
    410: StopCause.UNKNOWN_MODEL,
}
# Exact codes and types only: messages that mention a quota often belong to a plain rate limit.
STOPPING_CODES = {
    "insufficient_quota": StopCause.NO_QUOTA,
    "billing_not_active": StopCause.NO_QUOTA,
    "billing_hard_limit_reached": StopCause.NO_QUOTA,
    "invalid_api_key": StopCause.KEY_REFUSED,
    "API_KEY_INVALID": StopCause.KEY_REFUSED,
    "model_not_found": StopCause.UNKNOWN_MODEL,
    "unsupported_parameter": StopCause.BAD_SETTING,
    "unsupported_value": StopCause.BAD_SETTING,
    "unknown_parameter": StopCause.BAD_SETTING,
}
# Parameters that are the same in every call of a run.
_SETTINGS = {"temperature", "top_p", "seed", "response_format", "model"}
_ADVICE = {
    StopCause.NO_QUOTA: "the provider reports that the quota is used up; raise it or use another key, then run again",
    StopCause.KEY_REFUSED: "the provider refused the key; correct the variable that holds it, then run again",
    StopCause.UNKNOWN_MODEL: "no such model or path; correct llm.model_name or llm.base_url",
    StopCause.PROXY_REFUSED: "the proxy requires a login; correct the proxy's environment variables",
    StopCause.BAD_SETTING: "the provider does not accept a setting of every call; correct it in the configuration's llm block",
    StopCause.REDIRECTED: "the server redirects calls; correct llm.base_url",
}

# Other servers' names for the two reasons that matter.
_FINISH_REASONS = {
    "max_tokens": "length",
    "model_length": "length",
    "safety": "content_filter",
    "recitation": "content_filter",
    "blocklist": "content_filter",
    "prohibited_content": "content_filter",
}
# Names of the structured-output setting at OpenAI, Gemini, llama.cpp and vLLM.
_FORMAT_WORDS = ("response_format", "response_schema", "json schema", "json_schema", "grammar error", "parse grammar")
# Groq's code for a model answer that is not JSON; another attempt may succeed.
_NOT_JSON_CODE = "json_validate_failed"
_TOO_LONG_WORDS = ("context length", "prompt is too long", "maximum number of tokens")


def error_of_status(response_error: openai.APIStatusError) -> ProviderError:
    """Return the error for an HTTP status other than 200."""
    details = _error_object(response_error.body)
    message = str(details.get("message") or response_error.response.text or "no message")
    error = _error(response_error.status_code, details, f"HTTP {response_error.status_code}: {_quoted(message)}")
    if isinstance(error, TransientError):
        error.retry_after = _retry_after(response_error.response.headers)
    error.request_id = _request_id(response_error.request_id)
    error.status = response_error.status_code
    return error


def refuses_format(response_error: openai.APIStatusError) -> bool:
    """Return whether a server refuses the way of asking for JSON, and not the content of the request."""
    text = response_error.response.text.lower()
    return response_error.status_code in (400, 422) and any(words in text for words in _FORMAT_WORDS)


def _quoted(message: str) -> str:
    """Return the start of a provider's message, with invisible characters escaped for terminals and files."""
    return "".join(
        one if one.isprintable() or one == "\n" else one.encode("unicode_escape").decode()
        for one in message[:_QUOTED_CHARS]
    )


def _error_object(body: Any) -> dict[str, Any]:
    """Return the error in a body: an object, a string, under ``error``, or, as Gemini sends it, in a list."""
    first = body[0] if isinstance(body, list) and body else body
    error = first.get("error", first) if isinstance(first, dict) else first
    return error if isinstance(error, dict) else {"message": error if isinstance(error, str) else None}


def _error(status: int, details: Mapping[str, Any], message: str) -> ProviderError:
    codes = _codes(details)
    metadata = details.get("metadata")
    if isinstance(metadata, dict) and "flagged_input" in metadata:
        # OpenRouter's moderation stopped this text; its status is 403.
        return ItemPermanentError(FailureCause.CONTENT_FILTER, message)
    cause = next((cause for code, cause in STOPPING_CODES.items() if code in codes), STOPPING_STATUSES.get(status))
    if cause:
        return _run_error(cause, message)
    if status in _TRANSIENT_STATUSES or not 300 <= status < 500:
        return TransientError(FailureCause.RATE_LIMITED if status == 429 else FailureCause.SERVER_ERROR, message)
    if status < 400:
        return _run_error(StopCause.REDIRECTED, message)
    return _bad_request(status, details, codes, message)


def _run_error(cause: StopCause, message: str) -> RunPermanentError:
    return RunPermanentError(cause, f"{_ADVICE[cause]} ({message})")


def _codes(details: Mapping[str, Any]) -> set[str]:
    parts = details.get("details")
    reasons = [part.get("reason") for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
    return {str(code) for code in (details.get("code"), details.get("type"), *reasons) if code}


def _bad_request(status: int, details: Mapping[str, Any], codes: set[str], message: str) -> ProviderError:
    if status == _TOO_LARGE or any("context" in code for code in codes):
        return ItemPermanentError(FailureCause.CONTEXT_TOO_LONG, message)
    if _NOT_JSON_CODE in codes:
        return TransientError(FailureCause.NOT_JSON, message)
    if any("content" in code for code in codes):
        return ItemPermanentError(FailureCause.CONTENT_FILTER, message)
    if any(words in message.lower() for words in _TOO_LONG_WORDS):
        return ItemPermanentError(FailureCause.CONTEXT_TOO_LONG, message)
    if str(details.get("param")) in _SETTINGS:
        return _run_error(StopCause.BAD_SETTING, message)
    return ItemPermanentError(FailureCause.BAD_REQUEST, message)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        seconds = _seconds(headers.get(name, "")) * unit
        if math.isfinite(seconds):
            return max(seconds, 0.0)
    return None


def _seconds(value: str) -> float:
    """Return a number of seconds, or the seconds until an HTTP date; NaN for anything else."""
    with contextlib.suppress(ValueError):
        return float(value)
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        return (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
    return math.nan


def _request_id(*candidates: Any) -> str:
    return next((_quoted(one) for one in candidates if isinstance(one, str) and one), "")


def read_completion(content: bytes, latency: float, request_id: str = "") -> Completion:
    """Return the completion in the body of a 200. Raises a ``ProviderError`` for a refusal or an invalid body."""
    try:
        return _completion(content, latency, request_id)
    except ProviderError as error:
        error.request_id, error.status, error.usage = _request_id(request_id), 200, _billed_usage(content)
        raise


def _billed_usage(content: bytes) -> TokenUsage | None:
    """Return the reported usage of a response without an answer. Refusals are billed, too."""
    try:
        usage = _usage(json.loads(content)["usage"])
    except (ValueError, RecursionError, TypeError, KeyError):
        return None
    return usage if usage.total_tokens else None


def _completion(content: bytes, latency: float, request_id: str) -> Completion:
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        raise _invalid_body(content) from None
    choice, message = _first_choice(body, content)
    refusal = message.get("refusal")
    if refusal:
        raise ItemPermanentError(FailureCause.REFUSED, f"the model refused: {_quoted(str(refusal))}")
    reason = str(choice.get("finish_reason") or "stop")
    finish_reason = _FINISH_REASONS.get(reason.lower(), reason)
    if finish_reason == "content_filter":
        raise ItemPermanentError(FailureCause.CONTENT_FILTER, "the provider's content filter stopped the answer")
    return Completion(
        text=_text(message.get("content")),
        finish_reason=finish_reason,
        usage=_usage(body.get("usage")),
        latency_sec=latency,
        request_id=_request_id(request_id, body.get("id")),
    )


def _invalid_body(content: bytes) -> TransientError:
    return TransientError(FailureCause.BROKEN_BODY, f"not a chat completion: {content[:200]!r}")


def _first_choice(body: Any, content: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        choice = body["choices"][0]
        error, message = choice.get("error"), choice.get("message")
    except (KeyError, IndexError, TypeError, AttributeError):
        error, message = body.get("error") if isinstance(body, dict) else None, None
    if error:
        raise _error_in_200(error)
    if not isinstance(message, dict):
        raise _invalid_body(content)
    return choice, message


def _error_in_200(value: Any) -> ProviderError:
    """Return the error that a gateway passes on in the body of a 200, as if it had come with the status it names."""
    details = _error_object(value)
    code = details.get("code")
    status = code if isinstance(code, int) and 400 <= code < 600 else 500
    return _error(status, details, f"HTTP 200 with an error: {_quoted(str(details.get('message') or value))}")


def _text(content: Any) -> str:
    """Return the text of an answer; empty if the model only called a tool or only thought."""
    if content is None or isinstance(content, str):
        return content or ""
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        texts = [part.get("text") for part in content]
        if all(isinstance(text, str) for text in texts):
            return "".join(texts)
    raise TransientError(FailureCause.BROKEN_BODY, f"the content of the answer is not text: {_quoted(str(content))}")


def _usage(value: Any) -> TokenUsage:
    usage = value if isinstance(value, dict) else {}
    input_tokens, answered = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
    # Gemini's compatible endpoint counts reasoning in the total only; it is billed as output.
    output = max(answered, _count(usage.get("total_tokens")) - input_tokens) if input_tokens else answered
    reasoning = _detail(usage, "completion_tokens_details", "reasoning_tokens")
    return TokenUsage(
        requests=1,
        input_tokens=input_tokens,
        cached_input_tokens=min(_detail(usage, "prompt_tokens_details", "cached_tokens"), input_tokens),
        output_tokens=output,
        reasoning_tokens=min(max(reasoning, output - answered), output),
    )


def _detail(usage: Mapping[str, Any], block: str, name: str) -> int:
    details = usage.get(block)
    return _count(details.get(name)) if isinstance(details, dict) else 0


def _count(number: Any) -> int:
    return number if type(number) is int and 0 < number <= _MAX_TOKENS else 0
