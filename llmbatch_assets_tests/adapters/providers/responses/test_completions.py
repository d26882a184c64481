"""Bodies of a 200: the answer in all its forms, and errors that the server reports."""

import json
from typing import Any

import pytest

from llmbatch_assets.adapters.providers.responses.completions import read_answer
from llmbatch_assets.domain.outcome import Completion
from llmbatch_assets.domain.usage import TokenUsage
from llmbatch_assets.errors import ItemPermanentError, ProviderError, RunPermanentError, TransientError


def completion(**changes: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": "{}"}
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 5}}
    return {"id": "c-1", "choices": [{"message": message, "finish_reason": "stop"}], "usage": usage} | changes


def choice(finish_reason: str | None = "stop", **message: Any) -> dict[str, Any]:
    return completion(choices=[{"message": message, "finish_reason": finish_reason}])


def read(body: Any, header_id: str = "") -> Completion:
    return read_answer(body if isinstance(body, bytes) else json.dumps(body).encode(), 0.5, header_id).completion


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
        {"prompt_tokens": None, "completion_tokens": "many", "prompt_tokens_details": None},
        {"prompt_tokens": -1, "completion_tokens": [1], "prompt_tokens_details": {"cached_tokens": None}},
        {"prompt_tokens": 10**30, "completion_tokens": True, "prompt_tokens_details": [1]},
        {"prompt_tokens": float("nan"), "completion_tokens": float("inf"), "total_tokens": "-12"},
        # More was cached than was asked: of nothing, nothing.
        {"prompt_tokens": 0, "prompt_tokens_details": {"cached_tokens": 5}},
    ],
)
def test_unreported_usage_counts_only_the_request(usage: Any) -> None:
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
        # A code may be a text, and the status may be in the type.
        ({"error": {"message": "told", "code": "429"}}, TransientError, "rate_limited"),
        ({"error": {"message": "told", "code": "rate_limit_exceeded"}}, TransientError, "rate_limited"),
        ({"error": {"message": "told", "type": "rate_limit_error"}}, TransientError, "rate_limited"),
        ({"error": {"message": "told", "code": 429, "status": "RESOURCE_EXHAUSTED"}}, TransientError, "rate_limited"),
        ({"error": {"message": "told", "type": "invalid_request_error"}}, ItemPermanentError, "bad_request"),
        ({"error": {"message": "told", "code": "context_length_exceeded"}}, ItemPermanentError, "context_too_long"),
        ({"error": {"message": "told: credit balance is too low", "code": 400}}, RunPermanentError, "no_quota"),
        # An error next to an answer still counts as an error.
        (choice(content=None) | {"error": {"message": "told", "code": 429}}, TransientError, "rate_limited"),
        (choice(content="{}") | {"error": {"message": "told", "code": 502}}, TransientError, "server_error"),
        # vLLM, MiniMax.
        ({"object": "error", "message": "told", "code": 400}, ItemPermanentError, "bad_request"),
        (
            {"choices": None, "base_resp": {"status_code": 1008, "status_msg": "told: insufficient balance"}},
            RunPermanentError,
            "no_quota",
        ),
        ({"base_resp": {"status_code": 1002, "status_msg": "told"}}, TransientError, "rate_limited"),
        ({"base_resp": {"status_code": 1027, "status_msg": "told"}}, ItemPermanentError, "content_filter"),
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
        read(body, "req-7")
    assert (type(fault.value), fault.value.cause, fault.value.request_id) == (kind, cause, "req-7")


@pytest.mark.parametrize("none", [{"error": None}, {"base_resp": {"status_code": 0, "status_msg": "success"}}])
def test_an_error_that_is_none_does_not_hide_the_answer(none: dict[str, Any]) -> None:
    assert read(completion(**none)).text == "{}"


def test_a_wait_next_to_an_error_in_a_200_is_passed_on() -> None:
    with pytest.raises(TransientError) as fault:
        read({"error": {"message": "Please try again in 7s.", "code": 429}})
    assert fault.value.retry_after == 7


@pytest.mark.parametrize(
    ("body", "billed"),
    [
        (completion(choices=[]), True),
        (choice(content=[{"type": "image_url"}]), True),
        (choice("network_error", content="{"), True),
        (choice("sensitive", content=""), True),
        (completion(choices=[], usage={"prompt_tokens": 0}), None),
        # Nobody is billed for an error in place of an answer.
        (completion(choices=[], usage=None, error={"message": "busy", "code": 429}), False),
        (choice(content=None) | {"usage": {"prompt_tokens": 0}, "error": {"message": "busy", "code": 429}}, False),
        (choice(content="{") | {"usage": None, "error": {"message": "lost", "code": 502}}, None),
    ],
)
def test_the_usage_of_a_failed_answer_is_known_as_far_as_it_is_reported(body: Any, billed: bool | None) -> None:
    with pytest.raises(ProviderError) as fault:
        read(body)
    usage = fault.value.usage
    assert fault.value.status == 200
    assert billed == (bool(usage.total_tokens) if isinstance(usage, TokenUsage) else None)


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


@pytest.mark.parametrize(
    "thought",
    [
        # Mistral, Anthropic, Databricks, OpenAI's newer API.
        {"type": "thinking", "thinking": [{"type": "text", "text": '{"a": 0}'}]},
        {"type": "thinking", "thinking": '{"a": 0}', "signature": "x"},
        {"type": "redacted_thinking", "data": "x"},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": '{"a": 0}'}]},
    ],
)
def test_thoughts_in_a_part_of_their_own_are_left_out(thought: Any) -> None:
    assert read(choice(content=[thought, {"type": "text", "text": '{"a": 1}'}])).text == '{"a": 1}'
    assert read(choice(content=[thought, {"type": "output_text", "text": '{"a": 1}'}])).text == '{"a": 1}'
    assert read(choice(content=[thought])).text == ""


def test_a_single_part_needs_no_list() -> None:
    assert read(choice(content={"type": "text", "text": "{}"})).text == "{}"


def test_the_parts_may_be_plain_texts() -> None:
    assert read(choice(content=['{"a"', ": 1}"])).text == '{"a": 1}'


CALL = {"function": {"name": "f", "arguments": '{"a": 1}'}}


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": None, "tool_calls": [CALL]}, '{"a": 1}'),
        ({"content": " ", "function_call": CALL["function"]}, '{"a": 1}'),
        ({"content": "{}", "tool_calls": [CALL]}, "{}"),
        # Which one would be the answer?
        ({"content": "", "tool_calls": [CALL, CALL]}, ""),
        ({"content": "", "tool_calls": ["x"]}, ""),
        ({"content": "", "tool_calls": {"function": {}}}, ""),
        ({"content": "", "tool_calls": [{"function": {"arguments": {"a": 1}}}]}, ""),
        ({"content": "", "function_call": "f"}, ""),
    ],
)
def test_the_arguments_of_the_only_tool_call_are_the_answer_if_there_is_no_text(
    message: dict[str, Any], text: str
) -> None:
    assert read(choice("tool_calls", **message)).text == text


@pytest.mark.parametrize("content", [None, "", []])
def test_an_answer_without_a_text_is_an_empty_one(content: Any) -> None:
    # With or without usage, the answer is tried again, not the call.
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
    assert read(completion(id=body), header).request_id == kept


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


@pytest.mark.parametrize(
    "reason",
    [
        "safety",
        "SAFETY",
        "RECITATION",
        "prohibited_content",
        "sensitive",
        "SPII",
        "BLOCKLIST",
        "LANGUAGE",
        "content_filter: PROHIBITED_CONTENT",
        "guardrail_intervened",
        "refusal",
        "ERROR_TOXIC",
    ],
)
def test_a_filter_of_another_name_is_a_filter_and_named(reason: str) -> None:
    with pytest.raises(ItemPermanentError, match=rf"finish_reason: {reason}") as fault:
        read(choice(reason, content="{}"))
    assert fault.value.cause == "content_filter"


@pytest.mark.parametrize(
    "reason",
    [
        "network_error",
        "insufficient_system_resource",
        "error",
        "abort",
        "cancelled",
        "timeout",
        "MALFORMED_FUNCTION_CALL",
    ],
)
def test_an_end_that_the_server_is_to_blame_for_can_be_asked_for_again(reason: str) -> None:
    with pytest.raises(TransientError, match=rf"finish_reason: {reason}") as fault:
        read(choice(reason, content="{}"))
    assert fault.value.cause == "server_error"


def test_the_reason_of_the_provider_behind_a_gateway_is_the_better_one() -> None:
    body = completion(
        choices=[{"message": {"content": ""}, "finish_reason": "error", "native_finish_reason": "SAFETY"}]
    )
    with pytest.raises(ItemPermanentError, match="SAFETY"):
        read(body)


@pytest.mark.parametrize(
    "reason", ["length", "max_tokens", "MAX_TOKENS", "model_length", "model_context_window_exceeded"]
)
def test_a_cut_answer_says_so(reason: str) -> None:
    assert read(choice(reason, content='{"a": ')).finish_reason == "length"


def test_an_answer_cut_before_its_first_word_is_cut_and_not_empty() -> None:
    # A reasoning model that spent all its tokens on thoughts will do so again: telling it helps, waiting does not.
    assert read(choice("length", content=None)).finish_reason == "length"


@pytest.mark.parametrize("finish_reason", [None, "", "stop", "eos", "tool_calls", 7, ["stop"]])
def test_servers_that_name_no_known_reason_are_taken_to_have_finished(finish_reason: str | None) -> None:
    assert read(choice(finish_reason, content="{}")).text == "{}"


def test_an_unknown_reason_is_named_if_the_text_is_of_no_use() -> None:
    assert read(choice("eos_token", content="{}")).remark == "finish_reason: eos_token"
    assert read(choice("tool_calls", content=None)).remark == "finish_reason: tool_calls"
    assert read(choice("stop", content="")).remark == ""
    assert read(choice("length", content="")).remark == ""


def test_what_a_server_takes_for_thoughts_is_kept_apart() -> None:
    def reasoning(**message: Any) -> tuple[str, str]:
        answer = read_answer(json.dumps(choice(**message)).encode(), 0.5)
        return answer.reasoning, answer.reasoning_field

    assert reasoning(content="", reasoning_content="{}") == ("{}", "reasoning_content")
    assert reasoning(content="", reasoning="{}", reasoning_content=None) == ("{}", "reasoning")
    assert reasoning(content="{}", reasoning_content=" ") == ("", "")
    assert reasoning(content="{}", reasoning=[{"text": "x"}]) == ("", "")


def test_a_refusal_and_an_error_are_shown_without_what_breaks_a_terminal() -> None:
    told = "no\ud800 \x1b[31mway\x00"
    for body in (choice(refusal=told), {"error": {"message": told}}, choice(content=[[told]]), choice(f"error {told}")):
        with pytest.raises(ProviderError) as caught:
            read(body)
        str(caught.value).encode()
        assert "\x1b" not in str(caught.value)
