"""Read the body of a response with status 200: an answer, or an error."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from llmbatch_assets.adapters.providers.responses.event_stream import is_event_stream, joined_events
from llmbatch_assets.adapters.providers.responses.refusals import codes_of, error_object, quoted, refusal, request_id
from llmbatch_assets.adapters.providers.responses.reported_usage import ReportedUsage, read_usage
from llmbatch_assets.domain.outcome import Completion
from llmbatch_assets.errors import FailureCause, ItemPermanentError, ProviderError, TransientError

# Finish reasons of an answer that reached a length limit.
_LENGTH_REASONS = {
    "length",
    "max_tokens",
    "max_output_tokens",
    "max_length",
    "model_length",
    "token_limit",
    "model_context_window_exceeded",
}
# Finish reasons of a content filter, and of an interruption by the server.
_CONTENT_REASON = re.compile(
    r"content|safety|sensitive|recitation|blocklist|prohibited|spii|guardrail|moderat|toxic|violat|refus|flagged|language",
    re.IGNORECASE,
)
_SERVER_REASON = re.compile(
    r"error|abort|cancel|time_?out|resource|unavailable|overload|interrupt|fail|network|malformed", re.IGNORECASE
)

# The status that an error in the body of a 200 stands for, by its code or type.
_STATUS_OF_CODE = {
    "rate_limit_exceeded": 429,
    "rate_limit_error": 429,
    "too_many_requests": 429,
    "resource_exhausted": 429,
    "invalid_request_error": 400,
    "invalid_argument": 400,
    "context_length_exceeded": 400,
    "content_filter": 400,
    "content_policy_violation": 400,
    "authentication_error": 401,
    "permission_error": 403,
    "permission_denied": 403,
    "not_found_error": 404,
    # MiniMax.
    "1002": 429,
    "1039": 429,
    "1004": 401,
    "1026": 400,
    "1027": 400,
}

_TEXT_PARTS = {"text", "output_text"}
_THOUGHT_PARTS = {"thinking", "redacted_thinking", "reasoning", "reasoning_text", "thought", "summary"}
# Fields in which servers put a model's reasoning.
REASONING_FIELDS = ("reasoning_content", "reasoning")


class ReadAnswer(NamedTuple):
    """The completion in the body of a 200, and details for the client.

    ``reasoning`` is the text that the server returned as reasoning, from the field ``reasoning_field``.
    """

    completion: Completion
    reported: ReportedUsage
    reasoning: str = ""
    reasoning_field: str = ""


def read_answer(
    content: bytes, latency: float, header_id: str = "", headers: Mapping[str, str] | None = None, sent_bytes: int = 0
) -> ReadAnswer:
    """Return the answer in the body of a 200.

    Raises a ``ProviderError`` for a refusal, an error in the body or an invalid body. The error has the usage that the
    body reports, since the call was billed.
    """
    body, ended = _parsed(content)
    fields = body if isinstance(body, dict) else {}
    reported = read_usage(fields.get("usage"), sent_bytes)
    try:
        if body is None or not ended:
            raise _invalid_body(content)
        choice, message = _first_choice(body, content, headers or {})
        finish_reason = _finish_reason(choice)
        refused = message.get("refusal")
        if refused:
            raise ItemPermanentError(FailureCause.REFUSED, f"the model refused: {quoted(str(refused))}")
        text = _text(message.get("content"))
        text = text if text.strip() else _call_arguments(message) or text
    except ProviderError as error:
        error.request_id, error.status = request_id(header_id, fields.get("id")), 200
        error.usage = reported.usage if reported.usage.total_tokens or not _may_be_billed(fields) else None
        raise
    completion = Completion(
        text=text,
        finish_reason=finish_reason,
        usage=reported.usage,
        latency_sec=latency,
        request_id=request_id(header_id, fields.get("id")),
    )
    return ReadAnswer(completion, reported, *_reasoning(message))


def _may_be_billed(fields: Mapping[str, Any]) -> bool:
    """Return whether a response that reports no tokens may have used some. One with an error instead of an answer has not."""
    choices = fields.get("choices") or [{}]
    message = choices[0].get("message") if isinstance(choices, list) and isinstance(choices[0], dict) else None
    return not fields.get("error") or bool(isinstance(message, dict) and message.get("content"))


def _parsed(content: bytes) -> tuple[Any, bool]:
    """Return the body (None if it is not JSON), and whether it is complete."""
    try:
        return joined_events(content) if is_event_stream(content) else (json.loads(content), True)
    except (ValueError, RecursionError):
        return None, False


def _invalid_body(content: bytes) -> TransientError:
    return TransientError(FailureCause.BROKEN_BODY, f"not a chat completion: {content[:200]!r}")


def _first_choice(body: Any, content: bytes, headers: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, Any]]:
    fields = body if isinstance(body, dict) else {}
    try:
        choice = fields["choices"][0]
        error, message = choice.get("error"), choice.get("message")
    except (KeyError, IndexError, TypeError, AttributeError):
        choice, error, message = {}, None, None
    error = fields.get("error") or error or _other_error(fields)
    if error:
        raise _error_in_body(error, headers)
    if not isinstance(message, dict):
        raise _invalid_body(content)
    return choice, message


def _other_error(fields: Mapping[str, Any]) -> Any:
    """Return the error in a body that is itself an error (vLLM), or that has MiniMax's own status."""
    if fields.get("object") == "error":
        return fields
    status = fields.get("base_resp")
    if isinstance(status, dict) and status.get("status_code"):
        return {"code": status["status_code"], "message": status.get("status_msg")}
    return None


def _error_in_body(value: Any, headers: Mapping[str, str]) -> ProviderError:
    """Return the error that a gateway passes on in the body of a 200, as if it had come with the status it names."""
    details = error_object({"error": value})
    shown = f"HTTP 200 with an error: {quoted(str(details.get('message') or value))}"
    return refusal(_status_named(details), details, shown, headers)


def _status_named(details: Mapping[str, Any]) -> int:
    codes = [str(code).lower() for code in (details.get("code"), details.get("status"), *sorted(codes_of(details)))]
    numbers = (int(code) for code in codes if re.fullmatch(r"[45]\d\d", code))
    return next(numbers, None) or next((_STATUS_OF_CODE[code] for code in codes if code in _STATUS_OF_CODE), 500)


def _finish_reason(choice: Mapping[str, Any]) -> str:
    """Return the finish reason of an answer. Raises a ``ProviderError`` if the server cut it short."""
    reason = str(choice.get("finish_reason") or "stop")
    if reason.lower() in _LENGTH_REASONS:
        return "length"
    # OpenRouter's own reason can be "error" where the provider's is a filter.
    native = str(choice.get("native_finish_reason") or "")
    for name in (reason, native if _SERVER_REASON.search(reason) else ""):
        if _CONTENT_REASON.search(name):
            raise ItemPermanentError(
                FailureCause.CONTENT_FILTER,
                f"the provider's content filter stopped the answer (finish_reason: {quoted(name)})",
            )
    if _SERVER_REASON.search(reason):
        raise TransientError(
            FailureCause.SERVER_ERROR, f"the server did not finish the answer (finish_reason: {quoted(reason)})"
        )
    return reason


def _text(content: Any) -> str:
    """Return the text of an answer without reasoning; empty if there is no content or only reasoning."""
    if content is None or isinstance(content, str):
        return content or ""
    parts = content if isinstance(content, list) else [content]
    texts = [_part_text(part) for part in parts]
    if any(text is None for text in texts):
        raise TransientError(FailureCause.BROKEN_BODY, f"the content of the answer is not text: {quoted(str(content))}")
    return "".join(text for text in texts if text)


def _part_text(part: Any) -> str | None:
    """Return the text of one part of the content, empty for reasoning; None for anything else."""
    if isinstance(part, str):
        return part
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in _THOUGHT_PARTS:
        return ""
    text = part.get("text") if kind in _TEXT_PARTS else None
    return text if isinstance(text, str) else None


def _call_arguments(message: Mapping[str, Any]) -> str:
    """Return the arguments of the only tool call. Some servers return JSON that fits a schema as a call."""
    calls = message.get("tool_calls") or [{"function": message.get("function_call")}]
    only = calls[0] if isinstance(calls, list) and len(calls) == 1 else None
    function = only.get("function") if isinstance(only, dict) else None
    arguments = function.get("arguments") if isinstance(function, dict) else None
    return arguments if isinstance(arguments, str) else ""


def _reasoning(message: Mapping[str, Any]) -> tuple[str, str]:
    """Return the text that the server returned as reasoning, and the name of its field."""
    return next(
        ((text, name) for name in REASONING_FIELDS if isinstance(text := message.get(name), str) and text.strip()),
        ("", ""),
    )
