"""Streams that nobody asked for: read as the answer that they are parts of."""

import json
from typing import Any

import pytest

from llmbatch_assets.adapters.providers.responses.completions import read_answer
from llmbatch_assets.adapters.providers.responses.event_stream import is_event_stream
from llmbatch_assets.domain.outcome import Completion
from llmbatch_assets.errors import ItemPermanentError, ProviderError, TransientError


def event(delta: Any = None, finish_reason: str | None = None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta or {}, "finish_reason": finish_reason}
    return {"id": "c-1", "object": "chat.completion.chunk", "choices": [choice], **more}


def stream(*events: Any, end: str = "data: [DONE]\n\n", newline: str = "\n") -> bytes:
    lines = "".join(f"data: {json.dumps(one)}\n\n" for one in events) + end
    return lines.replace("\n", newline).encode()


TEXT = [event({"role": "assistant", "content": ""}), event({"content": '{"text": '}), event({"content": '"\u00e9"}'})]
END = event(finish_reason="stop")
USAGE = {"id": "c-1", "choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}


def read(content: bytes) -> Completion:
    return read_answer(content, 0.5).completion


@pytest.mark.parametrize(
    "content",
    [
        stream(*TEXT, END, USAGE),
        stream(*TEXT, END, USAGE, newline="\r\n"),
        # Either of the two marks the end.
        stream(*TEXT, END, USAGE, end=""),
        stream(*TEXT, USAGE),
        # The usage in the last event with a choice; comments, names and ids of events; a byte order mark.
        stream(*TEXT, END | {"usage": USAGE["usage"]}),
        b": keep-alive\n\n" + stream(*TEXT, END, USAGE),
        b"event: message\nid: 1\nretry: 5\n" + stream(*TEXT, END, USAGE),
        b"\xef\xbb\xbf\n" + stream(*TEXT, END, USAGE),
        # Azure begins with what it thinks of the prompt, and other servers end with the whole message.
        stream({"choices": [], "prompt_filter_results": []}, *TEXT, END, USAGE),
        stream(*TEXT, {"choices": [{"index": 0, "message": {"content": "x"}, "finish_reason": "stop"}]}, USAGE),
        stream(
            {"choices": [{"index": 0, "message": {"content": '{"text": "\u00e9"}'}, "finish_reason": "stop"}]}, USAGE
        ),
        # One event on two lines.
        stream(*TEXT, USAGE, end='data: {"choices": [{"finish_reason":\ndata: "stop"}]}\n\n'),
        # Thoughts, and the choices that nobody asked for.
        stream(
            event({"reasoning_content": "Hm."}),
            event({"content": [{"type": "thinking", "thinking": "x"}]}),
            *TEXT,
            END,
            USAGE,
        ),
        stream(*TEXT, {"choices": [{"index": 1, "delta": {"content": "x"}}]}, END, USAGE),
    ],
)
def test_a_stream_is_read_as_one_answer(content: bytes) -> None:
    assert is_event_stream(content)
    got = read(content)
    assert (got.text, got.finish_reason, got.request_id or "c-1") == ('{"text": "\u00e9"}', "stop", "c-1")
    assert (got.usage.input_tokens, got.usage.output_tokens) == (7, 3)


def test_without_a_word_of_usage_there_is_none() -> None:
    assert not read(stream(*TEXT, END)).usage.counts_tokens


@pytest.mark.parametrize(
    ("content", "kind", "cause"),
    [
        # It broke off.
        (stream(*TEXT, end=""), TransientError, "broken_body"),
        (stream(*TEXT, end='data: {"choices": [{"ind'), TransientError, "broken_body"),
        (stream({}), TransientError, "broken_body"),
        (b"data: ", TransientError, "broken_body"),
        (b"data: \xff\n\n", TransientError, "broken_body"),
        # An error in the middle.
        (stream(*TEXT, {"error": {"code": 429, "message": "busy"}}), TransientError, "rate_limited"),
        (
            stream(*TEXT, event(finish_reason="error", error={"code": 502, "message": "lost"}), end=""),
            TransientError,
            "server_error",
        ),
        (stream(*TEXT, event(finish_reason="content_filter")), ItemPermanentError, "content_filter"),
        (stream(event({"refusal": "I can"}), event({"refusal": "not."}), END), ItemPermanentError, "refused"),
    ],
)
def test_a_stream_that_ends_badly_is_what_it_would_be_in_one_piece(
    content: bytes, kind: type[ProviderError], cause: str
) -> None:
    with pytest.raises(ProviderError) as fault:
        read(content)
    assert (type(fault.value), fault.value.cause) == (kind, cause)


def test_a_broken_stream_is_paid_for_as_far_as_it_is_reported() -> None:
    with pytest.raises(TransientError) as fault:
        read(stream(USAGE, *TEXT, end=""))
    assert fault.value.usage is not None


def test_a_stream_that_is_cut_at_the_limit_says_so() -> None:
    assert read(stream(*TEXT[:2], event(finish_reason="length"))).finish_reason == "length"


@pytest.mark.parametrize("body", [b'{"choices": []}', b"", b"null", b"<html>", b'"data:"'])
def test_other_bodies_are_no_streams(body: bytes) -> None:
    assert not is_event_stream(body)
