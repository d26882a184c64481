"""What the bodies of answers and refusals mean: who can do something about it, and what it cost."""

import json
from typing import Any

import httpx2
import openai
import pytest

from llmbatch_assets.adapters.provider_faults import fault_of_status, read_completion
from llmbatch_assets.errors import ItemPermanentError, ProviderError, RunPermanentError, TransientError


def refusal(status: int, body: Any = None, **headers: str) -> openai.APIStatusError:
    """A refusal as the SDK raises it."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = httpx2.Request("POST", "http://127.0.0.1/v1/chat/completions")
    response = httpx2.Response(status, content=content, headers=headers, request=request)
    told = body.get("error", body) if isinstance(body, dict) else body
    return openai.APIStatusError("refused", response=response, body=told)


def error(message: str = "told", **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, **more}}


def completion(**changes: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": "{}"}
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 5}}
    return {"id": "c-1", "choices": [{"message": message, "finish_reason": "stop"}], "usage": usage} | changes


def choice(finish_reason: str | None = "stop", **message: Any) -> dict[str, Any]:
    return completion(choices=[{"message": message, "finish_reason": finish_reason}])


def read(body: Any) -> Any:
    return read_completion(body if isinstance(body, bytes) else json.dumps(body).encode(), 0.5)


# Refusals.


@pytest.mark.parametrize(
    ("refused", "kind", "cause"),
    [
        # Time helps.
        (refusal(408, error()), TransientError, "server_error"),
        (refusal(409, error()), TransientError, "server_error"),
        (refusal(429, error()), TransientError, "rate_limited"),
        (refusal(500, error()), TransientError, "server_error"),
        (refusal(502, b"<html>Bad Gateway</html>"), TransientError, "server_error"),
        (refusal(503, error()), TransientError, "server_error"),
        (refusal(529, error()), TransientError, "server_error"),
        (refusal(599, b""), TransientError, "server_error"),
        # Some hosts say "quota" of a plain rate limit: only the code counts.
        (refusal(429, error("You exceeded your current quota, retry in 3 s")), TransientError, "rate_limited"),
        (refusal(429, error(code=429, status="RESOURCE_EXHAUSTED")), TransientError, "rate_limited"),
        # Only the user of the run can help.
        (refusal(429, error(code="insufficient_quota")), RunPermanentError, "no_quota"),
        (refusal(429, error(type="insufficient_quota")), RunPermanentError, "no_quota"),
        (refusal(403, error(code="insufficient_quota")), RunPermanentError, "no_quota"),
        (refusal(401, error(code="invalid_api_key")), RunPermanentError, "key_refused"),
        (refusal(403, error()), RunPermanentError, "key_refused"),
        (refusal(404, error(code="model_not_found")), RunPermanentError, "unknown_model"),
        (refusal(307, b"", location="http://elsewhere/"), RunPermanentError, "redirected"),
        (refusal(402, error("Insufficient Balance")), RunPermanentError, "no_quota"),
        # The item is what is refused.
        (refusal(400, error(code="context_length_exceeded")), ItemPermanentError, "context_too_long"),
        (refusal(400, error(type="exceed_context_size_error")), ItemPermanentError, "context_too_long"),
        (refusal(400, error(code="content_filter")), ItemPermanentError, "content_filter"),
        (refusal(400, error(code="content_policy_violation")), ItemPermanentError, "content_filter"),
        (refusal(400, error(code=400)), ItemPermanentError, "bad_request"),
        (refusal(413, b"too large"), ItemPermanentError, "bad_request"),
        (refusal(422, error()), ItemPermanentError, "bad_request"),
        # Gemini wraps its errors in a list.
        (refusal(400, [error("API key not valid")]), ItemPermanentError, "bad_request"),
    ],
)
def test_a_refusal_says_who_can_help(refused: openai.APIStatusError, kind: type[ProviderError], cause: str) -> None:
    fault = fault_of_status(refused)
    assert (type(fault), fault.cause) == (kind, cause)


def test_the_provider_is_quoted_and_cut() -> None:
    assert "HTTP 400: no such thing" in str(fault_of_status(refusal(400, error("no such thing"))))
    assert "<html>" in str(fault_of_status(refusal(502, b"<html>Bad Gateway</html>")))
    assert "no message" in str(fault_of_status(refusal(500, b"")))
    assert len(str(fault_of_status(refusal(400, error("x" * 100_000))))) < 1_000


@pytest.mark.parametrize(
    ("told", "seconds"),
    [("3", 3.0), ("0", 0.0), ("0.5", 0.5), ("-5", 0.0), ("", None), ("soon", None), ("1e3", 1000.0)],
)
@pytest.mark.parametrize("status", [429, 503])
def test_the_time_that_a_server_names_is_passed_on(status: int, told: str, seconds: float | None) -> None:
    fault = fault_of_status(refusal(status, error(), **{"retry-after": told}))
    assert isinstance(fault, TransientError)
    assert fault.retry_after == seconds


def test_without_a_named_time_there_is_none() -> None:
    fault = fault_of_status(refusal(429, error()))
    assert isinstance(fault, TransientError)
    assert fault.retry_after is None


def test_a_time_that_is_no_number_is_none() -> None:
    fault = fault_of_status(refusal(429, error(), **{"retry-after": "nan"}))
    assert isinstance(fault, TransientError)
    assert fault.retry_after is None


# Completions.


def test_a_completion_holds_text_tokens_id_and_latency() -> None:
    read_one = read(completion())
    assert (read_one.text, read_one.finish_reason) == ("{}", "stop")
    assert read_one.usage.model_dump() == {
        "requests": 1,
        "input_tokens": 7,
        "cached_input_tokens": 5,
        "output_tokens": 3,
    }
    assert read_one.latency_sec == 0.5


@pytest.mark.parametrize(
    "usage",
    [
        None,
        {},
        [],
        "many",
        {"prompt_tokens": None, "completion_tokens": "3", "prompt_tokens_details": None},
        {"prompt_tokens": -1, "completion_tokens": 1.5, "prompt_tokens_details": {"cached_tokens": None}},
    ],
)
def test_what_is_not_told_of_the_usage_counts_as_nothing_but_the_request(usage: Any) -> None:
    told = read(completion(usage=usage)).usage
    assert (told.requests, told.input_tokens, told.cached_input_tokens, told.output_tokens) == (1, 0, 0, 0)


def test_missing_details_do_not_matter() -> None:
    body = completion(usage={"prompt_tokens": 7, "completion_tokens": 3})
    body.pop("id")
    assert read(body).usage.input_tokens == 7


@pytest.mark.parametrize(
    "body",
    [
        # Not JSON.
        b"",
        b"<html>busy</html>",
        b'{"choices": [{"mess',
        b"data: {}\n\n",
        b"\xff\xfe",
        pytest.param(b"[" * 100_000, id="deep"),
        # JSON of another shape.
        b"null",
        b"[]",
        b'"choices"',
        b"{}",
        b'{"choices": null}',
        b'{"choices": []}',
        b'{"choices": [{}]}',
        b'{"choices": [null]}',
        b'{"choices": [{"message": null}]}',
        b'{"choices": [{"message": "text"}]}',
        b'{"error": {"message": "said with 200"}}',
    ],
)
def test_a_body_that_is_no_completion_can_be_asked_for_again(body: bytes) -> None:
    with pytest.raises(TransientError) as fault:
        read(body)
    assert fault.value.cause == "broken_body"
    assert len(str(fault.value)) < 1_000


@pytest.mark.parametrize("content", [None, [{"type": "text", "text": "{}"}], 3, {}])
def test_an_answer_without_a_text_can_be_asked_for_again(content: Any) -> None:
    with pytest.raises(TransientError) as fault:
        read(choice(content=content))
    assert fault.value.cause == "empty_answer"


def test_an_empty_text_is_an_answer_to_be_corrected() -> None:
    assert read(choice(content="")).text == ""


def test_a_refusal_is_the_items() -> None:
    with pytest.raises(ItemPermanentError, match="I cannot help with that") as fault:
        read(choice(refusal="I cannot help with that", content=None))
    assert fault.value.cause == "refused"


@pytest.mark.parametrize("content", [None, "", "{}"])
def test_a_filtered_answer_is_the_items_whatever_is_left_of_it(content: str | None) -> None:
    with pytest.raises(ItemPermanentError) as fault:
        read(choice("content_filter", content=content))
    assert fault.value.cause == "content_filter"


def test_a_cut_answer_says_so() -> None:
    assert read(choice("length", content='{"a": ')).finish_reason == "length"


def test_an_answer_cut_before_its_first_word_is_cut_and_not_empty() -> None:
    # A reasoning model that spent all its tokens on thoughts will do so again: telling it helps, waiting does not.
    assert read(choice("length", content=None)).finish_reason == "length"


@pytest.mark.parametrize("finish_reason", [None, "", "stop", "eos"])
def test_servers_that_name_no_known_reason_are_taken_to_have_finished(finish_reason: str | None) -> None:
    assert read(choice(finish_reason, content="{}")).text == "{}"
