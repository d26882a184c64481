"""The meaning of response bodies: the kind of error, and the usage."""

import json
from typing import Any

import httpx2
import openai
import pytest

from llmbatch_assets.adapters.providers.responses import error_of_status, read_completion
from llmbatch_assets.domain.usage import TokenUsage
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
        (refusal(425, error()), TransientError, "server_error"),
        (refusal(101, b""), TransientError, "server_error"),
        # The code is that of the body, whatever the shape around it.
        (refusal(500, {"error": "a text"}), TransientError, "server_error"),
        (refusal(500, b'{"error": null}'), TransientError, "server_error"),
        (refusal(500, [1, 2]), TransientError, "server_error"),
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
        (refusal(429, error(code="billing_not_active")), RunPermanentError, "no_quota"),
        (refusal(400, error(code="invalid_api_key")), RunPermanentError, "key_refused"),
        # Gemini wraps its errors in a list, and refuses a key with a 400.
        (refusal(400, [error(details=[{"reason": "API_KEY_INVALID"}])]), RunPermanentError, "key_refused"),
        (refusal(404, {"error": "model 'm-1' not found"}), RunPermanentError, "unknown_model"),
        (refusal(404, {"detail": "Not Found"}), RunPermanentError, "unknown_model"),
        (refusal(405, error()), RunPermanentError, "unknown_model"),
        (refusal(410, error()), RunPermanentError, "unknown_model"),
        (refusal(407, b""), RunPermanentError, "proxy_refused"),
        # What is wrong with this call is wrong with all of them.
        (refusal(400, error(code="unsupported_parameter", param="max_tokens")), RunPermanentError, "bad_setting"),
        (refusal(400, error(code="unsupported_value", param="temperature")), RunPermanentError, "bad_setting"),
        (refusal(422, error(param="top_p")), RunPermanentError, "bad_setting"),
        # The item is what is refused.
        (refusal(400, error(code="context_length_exceeded")), ItemPermanentError, "context_too_long"),
        (refusal(400, error(type="exceed_context_size_error")), ItemPermanentError, "context_too_long"),
        (refusal(400, error(code="content_filter")), ItemPermanentError, "content_filter"),
        (refusal(400, error(code="content_policy_violation")), ItemPermanentError, "content_filter"),
        (refusal(400, error(code=400)), ItemPermanentError, "bad_request"),
        (refusal(400, error(code=400, param="messages")), ItemPermanentError, "bad_request"),
        (refusal(400, error(param=["temperature"])), ItemPermanentError, "bad_request"),
        (refusal(413, b"too large"), ItemPermanentError, "context_too_long"),
        # Servers without a code for it say it in words.
        (
            refusal(400, error("This model's maximum context length is 4096 tokens.")),
            ItemPermanentError,
            "context_too_long",
        ),
        (refusal(400, error("prompt is too long: 9 tokens > 8 maximum")), ItemPermanentError, "context_too_long"),
        (refusal(400, error("exceeds the maximum number of tokens allowed")), ItemPermanentError, "context_too_long"),
        # A moderation in front of the model speaks of one text, not of the key.
        (refusal(403, error(metadata={"flagged_input": "..."})), ItemPermanentError, "content_filter"),
        (refusal(422, error()), ItemPermanentError, "bad_request"),
        (refusal(400, [error("of Gemini")]), ItemPermanentError, "bad_request"),
    ],
)
def test_a_refusal_says_who_can_help(refused: openai.APIStatusError, kind: type[ProviderError], cause: str) -> None:
    fault = error_of_status(refused)
    assert (type(fault), fault.cause) == (kind, cause)


def test_the_provider_is_quoted_and_cut() -> None:
    assert "HTTP 400: no such thing" in str(error_of_status(refusal(400, error("no such thing"))))
    assert "<html>" in str(error_of_status(refusal(502, b"<html>Bad Gateway</html>")))
    assert "no message" in str(error_of_status(refusal(500, b"")))
    assert len(str(error_of_status(refusal(400, error("x" * 100_000))))) < 1_000


def test_what_no_terminal_and_no_file_should_be_handed_is_written_out() -> None:
    told, shown = "no\ud800 \x1b[31mway\x00\u202e\nthere", "no\\ud800 \\x1b[31mway\\x00\\u202e\nthere"
    assert shown in str(error_of_status(refusal(400, error(told))))
    for body in (choice(refusal=told), {"error": {"message": told}}, choice(content=[told])):
        with pytest.raises(ProviderError) as caught:
            read(body)
        str(caught.value).encode()
        assert "\x1b" not in str(caught.value)
    assert error_of_status(refusal(500, error(), **{"x-request-id": "r\x7f"})).request_id == "r\\x7f"


@pytest.mark.parametrize(
    ("told", "seconds"),
    [("3", 3.0), ("0", 0.0), ("0.5", 0.5), ("-5", 0.0), ("", None), ("soon", None), ("1e3", 1000.0)],
)
@pytest.mark.parametrize("status", [429, 503])
def test_the_time_that_a_server_names_is_passed_on(status: int, told: str, seconds: float | None) -> None:
    fault = error_of_status(refusal(status, error(), **{"retry-after": told}))
    assert isinstance(fault, TransientError)
    assert fault.retry_after == seconds


@pytest.mark.parametrize(
    ("told", "seconds"),
    [("250", 0.25), ("0", 0.0), ("-1", 0.0), ("soon", 7.0), ("inf", 7.0), ("", 7.0)],
)
def test_a_time_in_milliseconds_comes_first_where_it_is_one(told: str, seconds: float) -> None:
    fault = error_of_status(refusal(429, error(), **{"retry-after-ms": told, "retry-after": "7"}))
    assert isinstance(fault, TransientError)
    assert fault.retry_after == seconds


@pytest.mark.parametrize(
    "told",
    [
        "Mon, 01 Jan 99999 00:00:00 GMT",
        "Mon, 01 Jan 99999999999999999999 00:00:00 GMT",
        # Without a time zone.
        "Mon, 01 Jan 2035 00:00:00 -0000",
        "Mon",
        "9" * 5_000,
        "3, 5",
    ],
)
def test_an_odd_time_breaks_nothing(told: str) -> None:
    fault = error_of_status(refusal(503, error(), **{"retry-after": told}))
    assert isinstance(fault, TransientError)
    assert fault.retry_after is None


@pytest.mark.parametrize("status", [500, 400, 401])
def test_a_fault_names_the_request_that_it_is_about(status: int) -> None:
    assert error_of_status(refusal(status, error(), **{"x-request-id": "req-7"})).request_id == "req-7"
    assert error_of_status(refusal(status, error())).request_id == ""


def test_what_stops_a_run_says_what_to_do() -> None:
    told = {
        401: "refused the key; correct the variable",
        402: "quota is used up; raise it",
        404: "correct llm.model_name or llm.base_url",
        307: "correct llm.base_url",
    }
    for status, advice in told.items():
        assert advice in str(error_of_status(refusal(status, error("told"))))


def test_without_a_named_time_there_is_none() -> None:
    fault = error_of_status(refusal(429, error()))
    assert isinstance(fault, TransientError)
    assert fault.retry_after is None


def test_a_time_that_is_no_number_is_none() -> None:
    fault = error_of_status(refusal(429, error(), **{"retry-after": "nan"}))
    assert isinstance(fault, TransientError)
    assert fault.retry_after is None


# Completions.


def test_a_completion_holds_text_tokens_id_and_latency() -> None:
    read_one = read(completion())
    assert (read_one.text, read_one.finish_reason) == ("{}", "stop")
    assert read_one.usage == TokenUsage(requests=1, input_tokens=7, cached_input_tokens=5, output_tokens=3)
    assert read_one.request_id == "c-1"
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
        {"prompt_tokens": 10**30, "completion_tokens": True, "prompt_tokens_details": [1]},
        {"prompt_tokens": float("nan"), "completion_tokens": float("inf"), "total_tokens": "12"},
        # More was cached than was asked: of nothing, nothing.
        {"prompt_tokens": 0, "prompt_tokens_details": {"cached_tokens": 5}},
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
        b'{"choices": [[]]}',
        b'{"choices": {"0": {}}}',
        b'{"choices": "text"}',
        b'{"choices": [{"text": "of the older kind"}]}',
        b'{"error": null}',
        b'{"choices": [{"message": {"content": "{}"}}]',
        b"5" * 5_000,
    ],
)
def test_a_body_that_is_no_completion_can_be_asked_for_again(body: bytes) -> None:
    with pytest.raises(TransientError) as fault:
        read(body)
    assert fault.value.cause == "broken_body"
    assert len(str(fault.value)) < 1_000


@pytest.mark.parametrize(
    ("body", "kind", "cause"),
    [
        # Gateways pass errors on in this way.
        ({"error": {"message": "told"}}, TransientError, "server_error"),
        ({"error": "told"}, TransientError, "server_error"),
        ({"error": {"message": "told", "code": 429}}, TransientError, "rate_limited"),
        ({"error": {"message": "told", "code": 502}}, TransientError, "server_error"),
        ({"error": {"message": "told", "code": 7}}, TransientError, "server_error"),
        ({"error": {"message": "told", "code": "insufficient_quota"}}, RunPermanentError, "no_quota"),
        ({"error": {"message": "told", "code": 401}}, RunPermanentError, "key_refused"),
        ({"error": {"message": "told", "code": 400}}, ItemPermanentError, "bad_request"),
        ({"choices": [], "error": {"message": "told"}}, TransientError, "server_error"),
        # Part of an answer, and then the error.
        (
            {"choices": [{"message": {"content": "{}"}, "error": {"message": "told", "code": 502}}]},
            TransientError,
            "server_error",
        ),
    ],
)
def test_an_error_in_the_body_of_a_200_is_what_it_would_be_with_its_status(
    body: Any, kind: type[ProviderError], cause: str
) -> None:
    with pytest.raises(ProviderError, match="told") as fault:
        read_completion(json.dumps(body).encode(), 0.5, "req-7")
    assert (type(fault.value), fault.value.cause, fault.value.request_id) == (kind, cause, "req-7")


def test_an_error_that_is_none_does_not_hide_the_answer() -> None:
    assert read(completion(error=None)).text == "{}"


@pytest.mark.parametrize(
    "content",
    [
        3,
        {},
        [1],
        [{"type": "text"}],
        [{"type": "text", "text": None}],
        # Half of it would be a part taken for the whole.
        [{"type": "text", "text": "{}"}, {"type": "image_url", "image_url": {}}],
    ],
)
def test_a_content_that_is_no_text_can_be_asked_for_again(content: Any) -> None:
    with pytest.raises(TransientError) as fault:
        read(choice(content=content))
    assert fault.value.cause == "broken_body"


def test_a_text_in_parts_is_joined() -> None:
    parts = [{"type": "text", "text": '{"a": '}, {"type": "text", "text": "1}"}]
    assert read(choice(content=parts)).text == '{"a": 1}'


@pytest.mark.parametrize("content", [None, "", []])
def test_an_answer_without_a_text_is_an_empty_one(content: Any) -> None:
    # Told or not, the model has to say it again: it is the answer that is tried again, and not the call.
    assert read(choice(content=content)).text == ""
    assert read(choice("tool_calls", content=content, tool_calls=[{"function": {}}])).text == ""


@pytest.mark.parametrize(
    ("header", "body", "kept"),
    [
        ("req-7", "c-1", "req-7"),
        ("", "c-1", "c-1"),
        ("", None, ""),
        ("", 7, ""),
        ("x" * 9_000, None, "x" * 500),
    ],
)
def test_the_request_is_named_by_the_header_else_by_the_body(header: str, body: Any, kept: str) -> None:
    assert read_completion(json.dumps(completion(id=body)).encode(), 0.5, header).request_id == kept


def test_a_refusal_is_the_items() -> None:
    with pytest.raises(ItemPermanentError, match="I cannot help with that") as fault:
        read(choice(refusal="I cannot help with that" + "!" * 10_000, content=None))
    assert fault.value.cause == "refused"
    assert len(str(fault.value)) < 1_000


@pytest.mark.parametrize("content", [None, "", "{}"])
def test_a_filtered_answer_is_the_items_whatever_is_left_of_it(content: str | None) -> None:
    with pytest.raises(ItemPermanentError) as fault:
        read(choice("content_filter", content=content))
    assert fault.value.cause == "content_filter"


@pytest.mark.parametrize("reason", ["safety", "SAFETY", "RECITATION", "prohibited_content"])
def test_a_filter_of_another_name_is_a_filter(reason: str) -> None:
    with pytest.raises(ItemPermanentError) as fault:
        read(choice(reason, content="{}"))
    assert fault.value.cause == "content_filter"


@pytest.mark.parametrize("reason", ["length", "max_tokens", "MAX_TOKENS", "model_length"])
def test_a_cut_answer_says_so(reason: str) -> None:
    assert read(choice(reason, content='{"a": ')).finish_reason == "length"


def test_an_answer_cut_before_its_first_word_is_cut_and_not_empty() -> None:
    # A reasoning model that spent all its tokens on thoughts will do so again: telling it helps, waiting does not.
    assert read(choice("length", content=None)).finish_reason == "length"


@pytest.mark.parametrize("finish_reason", [None, "", "stop", "eos", "tool_calls", 7, ["stop"]])
def test_servers_that_name_no_known_reason_are_taken_to_have_finished(finish_reason: str | None) -> None:
    assert read(choice(finish_reason, content="{}")).text == "{}"
