"""Refused calls: the meaning of HTTP statuses other than 200, and of error objects in any response."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from llmbatch_assets.adapters.providers.responses.http_response import HttpResponse
from llmbatch_assets.adapters.providers.responses.stop_words import (
    ADVICE,
    DAY_ADVICE,
    DAY_QUOTA,
    STOPPING_CODES,
    STOPPING_STATUSES,
    STOPPING_WORDS,
)
from llmbatch_assets.errors import (
    FailureCause,
    ItemPermanentError,
    ProviderError,
    RunPermanentError,
    StopCause,
    TransientError,
)

REQUEST_ID = "x-request-id"
# The units in which these headers name the time to wait, in seconds. The first is OpenAI's and Azure's.
_RETRY_HEADERS = {"retry-after-ms": 0.001, "retry-after": 1.0}
# All headers that are read, in lower case.
READ_HEADERS = (REQUEST_ID, *_RETRY_HEADERS)

_TRANSIENT_STATUSES = {408, 409, 425, 429}
_TOO_LARGE = 413
_QUOTED_CHARS = 500
# A quota that resets sooner than this is a rate limit, whatever the server calls it.
_SHORT_WAIT_SEC = 120.0

# Parameters that are the same in every call of a run.
_SETTINGS = {"temperature", "top_p", "seed", "response_format", "model"}
# Groq's code for a model answer that is not JSON; another attempt may succeed.
_NOT_JSON_CODE = "json_validate_failed"
_TOO_LONG_WORDS = ("context length", "prompt is too long", "maximum number of tokens")
# Codes of Alibaba, Zhipu and MiniMax, and DeepSeek's message, for a text that they refuse to process.
_CONTENT_CODES = {"data_inspection_failed", "datainspectionfailed", "1301", "1026", "1027"}
_CONTENT_WORDS = ("content exists risk", "inappropriate content", "content management policy")

# Names of the structured-output setting at OpenAI, Gemini, llama.cpp and vLLM.
_FORMAT_WORDS = ("response_format", "response_schema", "json schema", "json_schema", "grammar error", "parse grammar")
# Statuses of servers that do not support a JSON mode.
_FORMAT_STATUSES = {400, 404, 415, 422, 500, 501}
_UNCLEAR_STATUSES = {400, 404, 422}
# Causes that may really mean an unsupported JSON mode.
_UNCLEAR_CAUSES = {FailureCause.BAD_REQUEST, StopCause.BAD_SETTING, StopCause.UNKNOWN_MODEL}

_WAIT = re.compile(r"(?:try again|retry)\s+(?:in|after)\s+((?:[\d.]+\s*(?:ms|h|m|s)[a-z]*\s*)+)", re.IGNORECASE)
_TIME_PART = re.compile(r"([\d.]+)\s*(ms|h|m|s)", re.IGNORECASE)
_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def error_of_status(response: HttpResponse, sent: bytes = b"") -> ProviderError:
    """Return the error for an HTTP status that is no success. ``sent`` is the body of the request."""
    details = error_object(response.content)
    message = str(details.get("message") or response.text or "no message")
    shown = f"HTTP {response.status}: {quoted(message)}"
    error = refusal(response.status, details, shown, response.headers, sent.decode(errors="replace").lower())
    error.request_id = request_id(response.headers.get(REQUEST_ID))
    error.status = response.status
    return error


def refuses_format(response: HttpResponse) -> bool:
    """Return whether a server says that it does not support the JSON mode."""
    if response.status not in _FORMAT_STATUSES:
        return False
    text = response.text.lower()
    return any(words in text for words in _FORMAT_WORDS)


def may_refuse_format(response: HttpResponse, error: ProviderError) -> bool:
    """Return whether the JSON mode may be what the server refuses, as far as we can tell."""
    if error.cause not in _UNCLEAR_CAUSES:
        return False
    if response.is_success:
        # The error is in the body.
        return True
    details = error_object(response.content)
    parameter = str(details.get("param") or "format")
    if _code_cause(codes_of(details)) or not any(word in parameter for word in ("format", "schema")):
        return False
    return response.status in _UNCLEAR_STATUSES


def refusal(
    status: int, details: Mapping[str, Any], shown: str, headers: Mapping[str, str], sent: str = ""
) -> ProviderError:
    """Return the error of a call that was refused with this status. ``shown`` is its message.

    ``sent`` is the text of the request: words that the server quotes from it are ignored.
    """
    wait = _retry_after(headers, details)
    cause = _stop_cause(status, details, wait, sent)
    if cause:
        return cause_error(cause, shown, is_of_day=_is_day_quota(details))
    error = _error(status, details, shown)
    if isinstance(error, TransientError):
        error.retry_after = wait
    return error


def cause_error(cause: StopCause, shown: str, *, is_of_day: bool = False) -> RunPermanentError:
    """Return the error that stops a run, with advice."""
    advice = DAY_ADVICE if is_of_day and cause == StopCause.NO_QUOTA else ADVICE[cause]
    return RunPermanentError(cause, f"{advice} ({shown})")


def quoted(message: str) -> str:
    """Return the start of a provider's message, with invisible characters escaped for terminals and files."""
    return "".join(
        one if one.isprintable() or one == "\n" else one.encode("unicode_escape").decode()
        for one in message[:_QUOTED_CHARS]
    )


def request_id(*candidates: Any) -> str:
    """Return the first of these values that is an id of the provider's."""
    return next((quoted(one) for one in candidates if isinstance(one, str) and one), "")


def error_object(body: Any) -> dict[str, Any]:
    """Return the error in a body: an object, a string, under ``error``, or, as Gemini sends it, in a list."""
    first = body[0] if isinstance(body, list) and body else body
    if not isinstance(first, dict):
        return {"message": first if isinstance(first, str) else None}
    error = first.get("error", first)
    if isinstance(error, dict):
        detail = error.get("detail")
        return error if error.get("message") or not isinstance(detail, str) else {**error, "message": detail}
    # xAI sends the code next to the message.
    return {"message": error if isinstance(error, str) else None, "code": first.get("code"), "type": first.get("type")}


def codes_of(details: Mapping[str, Any]) -> set[str]:
    """Return the codes, types and reasons of an error."""
    named = [details.get("code"), details.get("type"), *(part.get("reason") for part in _parts(details))]
    return {str(code) for code in named if code}


def _parts(details: Mapping[str, Any]) -> list[dict[str, Any]]:
    parts = details.get("details")
    return [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []


def _stop_cause(status: int, details: Mapping[str, Any], wait: float | None, sent: str) -> StopCause | None:
    if _has_flagged_input(details):
        return None
    by_code = _code_cause(codes_of(details))
    if by_code or status < 400:
        return by_code
    if status == 429 and _is_day_quota(details) and (_quota_ids(details) or wait is None or wait > _SHORT_WAIT_SEC):
        return StopCause.NO_QUOTA
    by_words = _word_cause(str(details.get("message") or ""), sent)
    if by_words != StopCause.NO_QUOTA and (status in _TRANSIENT_STATUSES or status >= 500):
        # A busy server may say that its model is unavailable.
        return None
    return by_words or STOPPING_STATUSES.get(status)


def _code_cause(codes: set[str]) -> StopCause | None:
    return next((STOPPING_CODES[code.lower()] for code in sorted(codes) if code.lower() in STOPPING_CODES), None)


def _word_cause(message: str, sent: str) -> StopCause | None:
    for cause, words in STOPPING_WORDS.items():
        found = words.search(message)
        if found and found.group().lower() not in sent:
            return cause
    return None


def _quota_ids(details: Mapping[str, Any]) -> list[str]:
    """Return the ids of Gemini's daily quotas that are used up."""
    violations = [one for part in _parts(details) for one in part.get("violations") or () if isinstance(one, dict)]
    return [str(one["quotaId"]) for one in violations if "PerDay" in str(one.get("quotaId"))]


def _is_day_quota(details: Mapping[str, Any]) -> bool:
    return bool(_quota_ids(details) or DAY_QUOTA.search(str(details.get("message") or "")))


def _error(status: int, details: Mapping[str, Any], message: str) -> ProviderError:
    if status in _TRANSIENT_STATUSES or not 300 <= status < 500:
        return TransientError(FailureCause.RATE_LIMITED if status == 429 else FailureCause.SERVER_ERROR, message)
    if status < 400:
        return cause_error(StopCause.REDIRECTED, message)
    return _bad_request(status, details, message)


def _bad_request(status: int, details: Mapping[str, Any], message: str) -> ProviderError:
    codes, text = {code.lower() for code in codes_of(details)}, message.lower()
    if status == _TOO_LARGE or any("context" in code for code in codes):
        return ItemPermanentError(FailureCause.CONTEXT_TOO_LONG, message)
    if _NOT_JSON_CODE in codes:
        return TransientError(FailureCause.NOT_JSON, message)
    if codes & _CONTENT_CODES or any("content" in code for code in codes) or _has_flagged_input(details):
        return ItemPermanentError(FailureCause.CONTENT_FILTER, message)
    if any(words in text for words in _TOO_LONG_WORDS):
        return ItemPermanentError(FailureCause.CONTEXT_TOO_LONG, message)
    if any(words in text for words in _CONTENT_WORDS):
        return ItemPermanentError(FailureCause.CONTENT_FILTER, message)
    if str(details.get("param")) in _SETTINGS:
        return cause_error(StopCause.BAD_SETTING, message)
    return ItemPermanentError(FailureCause.BAD_REQUEST, message)


def _has_flagged_input(details: Mapping[str, Any]) -> bool:
    """Return whether OpenRouter's moderation stopped this text; its status is 403."""
    metadata = details.get("metadata")
    return isinstance(metadata, dict) and "flagged_input" in metadata


def _retry_after(headers: Mapping[str, str], details: Mapping[str, Any]) -> float | None:
    """Return the seconds to wait: from the headers, else from Gemini's ``RetryInfo``, else from the message."""
    for name, unit in _RETRY_HEADERS.items():
        seconds = _seconds(headers.get(name, "")) * unit
        if math.isfinite(seconds):
            return max(seconds, 0.0)
    delay = next((part["retryDelay"] for part in _parts(details) if "retryDelay" in part), "")
    told = _WAIT.search(str(details.get("message") or ""))
    return _duration(str(delay) or (told[1] if told else ""))


def _seconds(value: str) -> float:
    """Return a number of seconds, or the seconds until an HTTP date; NaN for anything else."""
    with contextlib.suppress(ValueError):
        return float(value)
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        return (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
    return math.nan


def _duration(text: str) -> float | None:
    """Return the seconds of a duration such as ``34.07s`` or ``9m38s``; None for anything else."""
    with contextlib.suppress(ValueError):
        parts = [float(number) * _UNIT_SECONDS[unit.lower()] for number, unit in _TIME_PART.findall(text)]
        return sum(parts) if parts else None
    return None
