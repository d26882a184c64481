"""What a provider's answers and refusals mean."""

from __future__ import annotations

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

_TRANSIENT = {408, 409, 425, 429}
_TOO_LARGE = 413
_MOST_TOLD = 500
# More than any model reads or writes in one call: such a count is junk.
_MOST_TOKENS = 10**9

STOPPING_STATUSES = {
    401: StopCause.KEY_REFUSED,
    402: StopCause.NO_QUOTA,
    403: StopCause.KEY_REFUSED,
    404: StopCause.UNKNOWN_MODEL,
    405: StopCause.UNKNOWN_MODEL,
    407: StopCause.PROXY_REFUSED,
    410: StopCause.UNKNOWN_MODEL,
}
# Exact codes and types. A text that speaks of a quota is often that of a plain rate limit.
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
# What a refusal can name that is the same in every call of a run.
_SETTINGS = {"temperature", "top_p", "seed", "response_format", "model"}
_ADVICE = {
    StopCause.NO_QUOTA: "the provider says that the quota is used up; raise it or use another key, then run again",
    StopCause.KEY_REFUSED: "the provider refused the key; correct the variable that holds it, then run again",
    StopCause.UNKNOWN_MODEL: "no such model or path; correct llm.model_name or llm.base_url",
    StopCause.PROXY_REFUSED: "the proxy wants a login; correct the proxy's environment variables",
    StopCause.BAD_SETTING: "the provider does not take a setting that every call has; correct it in the configuration's llm block",
    StopCause.REDIRECTED: "the server sends calls elsewhere; correct llm.base_url",
}

# Other servers' words for the two reasons that matter.
_FINISH_REASONS = {
    "max_tokens": "length",
    "model_length": "length",
    "safety": "content_filter",
    "recitation": "content_filter",
    "blocklist": "content_filter",
    "prohibited_content": "content_filter",
}
# Servers' words for the way in which JSON was asked for: OpenAI's, Gemini's, llama.cpp's, vLLM's.
_FORMAT_WORDS = ("response_format", "response_schema", "json schema", "json_schema", "grammar error", "parse grammar")
# Groq's word for an answer of the model that it found to be no JSON: another one may be.
_NOT_JSON_CODE = "json_validate_failed"
_LONG_WORDS = ("context length", "prompt is too long", "maximum number of tokens")


def fault_of_status(refused: openai.APIStatusError) -> ProviderError:
    """The error for an HTTP status that is not 200."""
    error = _error_object(refused.body)
    told = str(error.get("message") or refused.response.text or "no message")
    fault = _fault(refused.status_code, error, f"HTTP {refused.status_code}: {_quoted(told)}")
    if isinstance(fault, TransientError):
        fault.retry_after = _retry_after(refused.response.headers)
    fault.request_id = _request_id(refused.request_id)
    fault.status = refused.status_code
    return fault


def is_about_format(refused: openai.APIStatusError) -> bool:
    """Whether a server refuses the way in which JSON was asked for, and not what was asked."""
    told = refused.response.text.lower()
    return refused.status_code in (400, 422) and any(words in told for words in _FORMAT_WORDS)


def _quoted(told: str) -> str:
    """The beginning of what a provider says, fit for every terminal and file: what cannot be seen is written out."""
    signs = (
        one if one.isprintable() or one == "\n" else one.encode("unicode_escape").decode() for one in told[:_MOST_TOLD]
    )
    return "".join(signs)


def _error_object(body: Any) -> dict[str, Any]:
    """The error in a body: an object, a text, inside of ``error``, or, as Gemini has it, in a list."""
    first = body[0] if isinstance(body, list) and body else body
    error = first.get("error", first) if isinstance(first, dict) else first
    return error if isinstance(error, dict) else {"message": error if isinstance(error, str) else None}


def _fault(status: int, error: Mapping[str, Any], told: str) -> ProviderError:
    codes = _codes(error)
    stopping = next((cause for code, cause in STOPPING_CODES.items() if code in codes), None)
    if _is_flagged(error):
        return ItemPermanentError(FailureCause.CONTENT_FILTER, told)
    if stopping or status in STOPPING_STATUSES:
        return _stop(stopping or STOPPING_STATUSES[status], told)
    if status in _TRANSIENT or not 300 <= status < 500:
        return TransientError(FailureCause.RATE_LIMITED if status == 429 else FailureCause.SERVER_ERROR, told)
    if status < 400:
        return _stop(StopCause.REDIRECTED, told)
    return _bad_request(status, error, codes, told)


def _stop(cause: StopCause, told: str) -> RunPermanentError:
    return RunPermanentError(cause, f"{_ADVICE[cause]} ({told})")


def _codes(error: Mapping[str, Any]) -> set[str]:
    details = error.get("details")
    reasons = [part.get("reason") for part in details if isinstance(part, dict)] if isinstance(details, list) else []
    return {str(code) for code in (error.get("code"), error.get("type"), *reasons) if code}


def _is_flagged(error: Mapping[str, Any]) -> bool:
    """Whether a moderation in front of the model stopped this one text, which OpenRouter tells with a 403."""
    metadata = error.get("metadata")
    return isinstance(metadata, dict) and "flagged_input" in metadata


def _bad_request(status: int, error: Mapping[str, Any], codes: set[str], told: str) -> ProviderError:
    if status == _TOO_LARGE or any("context" in code for code in codes):
        return ItemPermanentError(FailureCause.CONTEXT_TOO_LONG, told)
    if _NOT_JSON_CODE in codes:
        return TransientError(FailureCause.NOT_JSON, told)
    if any("content" in code for code in codes):
        return ItemPermanentError(FailureCause.CONTENT_FILTER, told)
    if any(words in told.lower() for words in _LONG_WORDS):
        return ItemPermanentError(FailureCause.CONTEXT_TOO_LONG, told)
    if str(error.get("param")) in _SETTINGS:
        return _stop(StopCause.BAD_SETTING, told)
    return ItemPermanentError(FailureCause.BAD_REQUEST, told)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        seconds = _seconds(headers.get(name, "")) * unit
        if math.isfinite(seconds):
            return max(seconds, 0.0)
    return None


def _seconds(told: str) -> float:
    try:
        return float(told)
    except ValueError:
        return _until(told)


def _until(date: str) -> float:
    try:
        return (parsedate_to_datetime(date) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return math.nan


def _request_id(*told: Any) -> str:
    return next((_quoted(one) for one in told if isinstance(one, str) and one), "")


def read_completion(content: bytes, latency: float, request_id: str = "") -> Completion:
    """The completion in the body of a 200. Raises a ``ProviderError`` for a body that is none, and for a refusal."""
    try:
        return _completion(content, latency, request_id)
    except ProviderError as fault:
        fault.request_id, fault.status, fault.usage = _request_id(request_id), 200, _usage_in(content)
        raise


def _usage_in(content: bytes) -> TokenUsage | None:
    """What an answer that gave nothing is billed for: a model writes a refusal, too."""
    try:
        usage = _usage(json.loads(content)["usage"])
    except (ValueError, RecursionError, TypeError, KeyError):
        return None
    return usage if usage.total_tokens else None


def _completion(content: bytes, latency: float, request_id: str) -> Completion:
    body = _parsed(content)
    choice, message = _first_choice(body, content)
    refusal = message.get("refusal")
    if refusal:
        raise ItemPermanentError(FailureCause.REFUSED, f"the model refused: {_quoted(str(refusal))}")
    said = str(choice.get("finish_reason") or "stop")
    finish_reason = _FINISH_REASONS.get(said.lower(), said)
    if finish_reason == "content_filter":
        raise ItemPermanentError(FailureCause.CONTENT_FILTER, "the provider's content filter stopped the answer")
    return Completion(
        text=_text(message.get("content")),
        finish_reason=finish_reason,
        usage=_usage(body.get("usage")),
        latency_sec=latency,
        request_id=_request_id(request_id, body.get("id")),
    )


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise _broken(content) from None


def _broken(content: bytes) -> TransientError:
    return TransientError(FailureCause.BROKEN_BODY, f"not a chat completion: {content[:200]!r}")


def _first_choice(body: Any, content: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        choice = body["choices"][0]
        error, message = choice.get("error"), choice.get("message")
    except (KeyError, IndexError, TypeError, AttributeError):
        error, message = body.get("error") if isinstance(body, dict) else None, None
    if error:
        raise _fault_in_200(error)
    if not isinstance(message, dict):
        raise _broken(content)
    return choice, message


def _fault_in_200(told: Any) -> ProviderError:
    """The error that a gateway passes on in the body of a 200, as if it had come with the status that it names."""
    error = _error_object(told)
    code = error.get("code")
    status = code if isinstance(code, int) and 400 <= code < 600 else 500
    return _fault(status, error, f"HTTP 200 with an error: {_quoted(str(error.get('message') or told))}")


def _text(content: Any) -> str:
    """The text of an answer, of which there may be none: a model can call a tool or only think."""
    if content is None or isinstance(content, str):
        return content or ""
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        texts = [part.get("text") for part in content]
        if all(isinstance(text, str) for text in texts):
            return "".join(texts)
    raise TransientError(FailureCause.BROKEN_BODY, f"the answer's content is no text: {_quoted(str(content))}")


def _usage(told: Any) -> TokenUsage:
    usage = told if isinstance(told, dict) else {}
    asked, answered = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
    # Gemini's compatible endpoint counts thoughts in the total alone; they are billed as output.
    output = max(answered, _count(usage.get("total_tokens")) - asked) if asked else answered
    thought = _detail(usage, "completion_tokens_details", "reasoning_tokens")
    return TokenUsage(
        requests=1,
        input_tokens=asked,
        cached_input_tokens=min(_detail(usage, "prompt_tokens_details", "cached_tokens"), asked),
        output_tokens=output,
        reasoning_tokens=min(max(thought, output - answered), output),
    )


def _detail(usage: Mapping[str, Any], block: str, name: str) -> int:
    details = usage.get(block)
    return _count(details.get(name)) if isinstance(details, dict) else 0


def _count(number: Any) -> int:
    return number if type(number) is int and 0 < number <= _MOST_TOKENS else 0
