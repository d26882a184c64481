"""The meaning of refusals: who can help, and when."""

import json
from typing import Any

import pytest

from llmbatch_assets.adapters.providers.responses.http_response import HttpResponse
from llmbatch_assets.adapters.providers.responses.refusals import error_of_status
from llmbatch_assets.errors import ItemPermanentError, ProviderError, RunPermanentError, TransientError


def refusal(status: int, body: Any = None, **headers: str) -> HttpResponse:
    return HttpResponse(status, headers, body if isinstance(body, bytes) else json.dumps(body).encode())


def error(message: str = "told", **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, **more}}


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
def test_a_refusal_says_who_can_help(refused: HttpResponse, kind: type[ProviderError], cause: str) -> None:
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


# Refusals that every call of a run would get, in the words of many providers.

GEMINI_DAY = {
    "message": "You exceeded your current quota, please check your plan and billing details.\nPlease retry in 34.07s.",
    "status": "RESOURCE_EXHAUSTED",
    "code": 429,
    "details": [
        {"@type": "QuotaFailure", "violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}]},
        {"@type": "RetryInfo", "retryDelay": "34s"},
    ],
}
GROQ_DAY = (
    "Rate limit reached for model `m` on tokens per day (TPD): Limit 100000, Used 97050. Please try again in 9m38.016s."
)


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (
            400,
            {"message": "Your credit balance is too low to access the Anthropic API.", "type": "invalid_request_error"},
        ),
        (400, {"message": "Budget has been exceeded! Current cost: 14.2, Max budget: 10.0", "code": "400"}),
        (400, {"message": "ExceededBudget: User=default over budget. Spend=3, Budget=2", "type": "auth_error"}),
        (429, {"message": "Your usage allowance has been reached.", "type": "budget_exceeded", "code": "429"}),
        (429, {"message": "No deployments available - crossed budget: Exceeded budget for deployment m"}),
        (400, {"message": "Insufficient Balance", "type": "unknown_error", "code": "invalid_request_error"}),
        (401, {"message": "Insufficient balance. Manage your billing here: https://example.com/"}),
        (403, {"message": "Your team t has either used all available credits or reached its monthly spending limit."}),
        (429, {"message": "Your team t has either used all available credits or reached its monthly spending limit."}),
        (403, {"message": "You have run out of credits or need a subscription."}),
        (402, {"message": "This request requires more credits, or fewer max_tokens."}),
        (402, {"message": "You have exceeded your monthly included credits for Inference Providers."}),
        (400, {"message": "Access denied, please make sure your account is in good standing.", "code": "Arrearage"}),
        (403, {"message": "Access denied due to overdue account", "code": "AccountOverdueError"}),
        (429, {"message": "\u8d26\u6237\u5df2\u6b20\u8d39", "code": "1113"}),
        (403, {"message": "token quota is not enough", "code": "insufficient_user_quota"}),
        (429, {"message": "Your account is suspended", "type": "exceeded_current_quota_error"}),
        (400, {"message": "not enough", "type": "billing_error"}),
    ],
)
def test_a_used_up_quota_stops_the_run_however_it_is_reported(status: int, told: dict[str, Any]) -> None:
    fault = error_of_status(refusal(status, {"error": told}))
    assert isinstance(fault, RunPermanentError)
    assert fault.cause == "no_quota"
    assert "raise it or use another key" in str(fault)


@pytest.mark.parametrize(
    "told",
    [
        GEMINI_DAY,
        {"message": GROQ_DAY, "type": "tokens", "code": "rate_limit_exceeded"},
        {"message": "Rate limit exceeded: free-models-per-day. Add 10 credits to unlock 1000", "code": 429},
        # A gateway that passes Gemini's words on.
        {"message": json.dumps(GEMINI_DAY["details"]), "code": 429},
    ],
    ids=["gemini", "groq", "openrouter", "gateway"],
)
@pytest.mark.parametrize("wrap", [lambda told: {"error": told}, lambda told: [{"error": told}]])
def test_a_quota_of_a_day_stops_the_run_and_says_so(told: dict[str, Any], wrap: Any) -> None:
    fault = error_of_status(refusal(429, wrap(told)))
    assert isinstance(fault, RunPermanentError)
    assert fault.cause == "no_quota"
    assert "the daily quota is used up" in str(fault)


@pytest.mark.parametrize(
    "told",
    [
        {"message": "The model `m` has been decommissioned.", "code": "model_decommissioned"},
        {"message": "The model `m` has been decommissioned and is no longer supported."},
        {"message": "The model m is no longer available to new users."},
        {"message": "Model Not Exist", "type": "invalid_request_error"},
        {"message": "Invalid model: m", "type": "invalid_model", "code": "1500"},
        {"message": "m is not a valid model ID", "code": 400},
        {"message": "Invalid model name passed in model=m"},
        {"message": "The API deployment for this resource does not exist.", "code": "DeploymentNotFound"},
    ],
)
def test_a_model_that_is_not_there_or_no_longer_stops_the_run(told: dict[str, Any]) -> None:
    fault = error_of_status(refusal(400, {"error": told}))
    assert isinstance(fault, RunPermanentError)
    assert fault.cause == "unknown_model"
    assert "llm.model_name" in str(fault)


@pytest.mark.parametrize(
    "told", ["Incorrect API key provided: sk-x", "API key not valid. Please pass a valid API key."]
)
def test_a_key_that_is_refused_with_a_400_stops_the_run(told: str) -> None:
    assert error_of_status(refusal(400, error(told))).cause == "key_refused"


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_is_busy_may_say_anything_of_its_model(status: int) -> None:
    fault = error_of_status(refusal(status, error("Model m is no longer available right now, try again in 5s.")))
    assert isinstance(fault, TransientError)
    assert fault.retry_after == 5


def test_words_that_the_server_repeats_from_the_request_say_nothing() -> None:
    # A table of complaints about a bank.
    body = json.dumps({"messages": [{"role": "user", "content": "My card was refused: insufficient balance"}]}).encode()
    fault = error_of_status(refusal(400, error("cannot parse: My card was refused: insufficient balance")), body)
    assert (type(fault), fault.cause) == (ItemPermanentError, "bad_request")


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        # Gemini, with a quota of a minute.
        ({"details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.5s"}]}, 34.5),
        # OpenAI, Groq, Azure.
        ({"message": "Rate limit reached for m. Please try again in 20s."}, 20.0),
        ({"message": "Rate limit reached for m. Please try again in 6ms."}, 0.006),
        ({"message": "on tokens per minute (TPM): Limit 6000. Please try again in 1m4.5s. Need more?"}, 64.5),
        ({"message": "Please retry after 26 seconds."}, 26.0),
        # A quota of a day that comes back bit by bit is a rate.
        ({"message": "on requests per day (RPD): Limit 10000. Please try again in 8.64s."}, 8.64),
        ({"details": [{"retryDelay": None}], "message": "Try again later."}, None),
        ({"details": "none", "message": "Please try again in a moment."}, None),
    ],
)
def test_a_wait_that_is_reported_in_the_body_is_passed_on(told: dict[str, Any], seconds: float | None) -> None:
    fault = error_of_status(refusal(429, [{"error": {"message": "busy", **told}}]))
    assert isinstance(fault, TransientError)
    assert fault.retry_after == (None if seconds is None else pytest.approx(seconds))


def test_the_wait_in_a_header_comes_before_that_in_the_body() -> None:
    fault = error_of_status(refusal(429, error("Please try again in 20s."), **{"retry-after": "3"}))
    assert isinstance(fault, TransientError)
    assert fault.retry_after == 3


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (400, {"code": "data_inspection_failed", "message": "Input data may contain inappropriate content."}),
        (400, {"code": "1301", "message": "unsafe"}),
        (400, {"message": "Content Exists Risk", "code": "invalid_request_error"}),
    ],
)
def test_a_text_that_a_provider_will_not_process_is_the_items(status: int, told: dict[str, Any]) -> None:
    fault = error_of_status(refusal(status, {"error": told}))
    assert (type(fault), fault.cause) == (ItemPermanentError, "content_filter")
