"""``llmbatch run`` against a provider that misbehaves: each fault is retried, is one item's, or stops the run.

One run holds a whole table of faults, an item for each: that they stand side by side is what a real run is like.
"""

from __future__ import annotations

import gzip
import json
import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import format_datetime
from itertools import cycle, takewhile
from pathlib import Path
from random import Random
from typing import Any

import pytest
from dagster._core.storage.partition_status_cache import AssetPartitionStatus

from llmbatch_assets_tests.chat_server import (
    Answer,
    ChatCall,
    ChatServer,
    completes,
    cut_off,
    drips,
    error_body,
    half_body,
    hangs,
    raw_body,
    refuses,
    resets,
    says,
    status,
    wire,
)
from llmbatch_assets_tests.project import Project, make_project

GOOD = {"answer": "It is so.", "certain": True}
TEXT = json.dumps(GOOD)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
# Back-off begins with half a second; a server that names no time at all waits for nothing.
AT_ONCE = {"Retry-After": "0"}
QUOTA = error_body("You exceeded your current quota, please check your plan and billing details.", "insufficient_quota")


def error(code: int, body: str | Mapping[str, Any] | None = None, **headers: str) -> Answer:
    """A refusal after which the client need not wait."""
    return status(code, body, AT_ONCE | {name.replace("_", "-"): told for name, told in headers.items()})


def packed(body: bytes) -> Answer:
    return raw_body(gzip.compress(body), headers={"Content-Encoding": "gzip"})


# Each is answered well on the second call.
PASSING: dict[str, Answer] = {
    # Refusals that time heals; the client waits as it is told, or with a pause of its own.
    "429 in seconds": error(429),
    "429 in milliseconds": status(429, headers={"retry-after-ms": "1", "Retry-After": "3600"}),
    "429 by date": status(429, headers={"Retry-After": format_datetime(datetime(2020, 1, 1, tzinfo=UTC), usegmt=True)}),
    "429 garbage": status(429, headers={"Retry-After": "a while"}),
    "429 not told": status(429),
    "429 that says quota": error(429, error_body("Quota exceeded for requests per minute", "rate_limit_exceeded")),
    "408": error(408),
    "409": error(409),
    "425": error(425),
    "500": error(500),
    "502": error(502, "<html><h1>502 Bad Gateway</h1></html>", Content_Type="text/html"),
    "503": error(503, ""),
    "504": error(504, "upstream request timeout"),
    "529": error(529, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
    "400 for an answer that was no JSON": error(400, error_body("Failed to validate JSON.", "json_validate_failed")),
    "headers of other letters": wire(
        b"HTTP/1.1 503 N\xf6\r\nX-Request-Id: \xff\xfe\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n"
    ),
    "odd status": wire(b"HTTP/1.1 999 Odd\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n"),
    # Connections that break.
    "reset before": resets(),
    "reset in headers": resets(HEAD[:-9]),
    "reset after headers": resets(HEAD + b"Content-Length: 9\r\n\r\n"),
    "reset in the body": resets(HEAD + b"Content-Length: 9\r\n\r\n{"),
    "half a body": half_body(TEXT),
    "closed": wire(b""),
    "not http": wire(b"SSH-2.0-OpenSSH_9.6\r\n"),
    # Answers that do not come to an end.
    "hang": hangs(60),
    "half, then silence": wire(HEAD + b'Content-Length: 9\r\n\r\n{"cho', wait=60),
    "drip": drips(0.5, TEXT),
    "20 MB": raw_body(b" " * 20_000_000),
    "bomb": packed(b" " * 40_000_000),
    # 200 with something else.
    "html": raw_body(b"<html>Please log in</html>", "text/html"),
    "text": raw_body(b"ok", "text/plain"),
    "stream": raw_body(b"data: {}\n\ndata: [DONE]\n\n", "text/event-stream"),
    "nothing": raw_body(b""),
    "cut": raw_body(b'{"id": "x", "choices": [{"mess'),
    "array": raw_body(b"[]"),
    "null": raw_body(b"null"),
    "invalid utf-8": raw_body(b'{"choices": [{"message": {"content": "\xff"}}]}'),
    "not packed": raw_body(TEXT.encode(), headers={"Content-Encoding": "gzip"}),
    "error object": raw_body(json.dumps(error_body("Internal error", "server_error")).encode()),
    "error of a gateway": raw_body(b'{"error": {"code": 502, "message": "Provider returned error"}}'),
    "error of a choice": completes({"content": TEXT}, {"error": {"code": 502, "message": "Lost"}}),
    "no choices": raw_body(b'{"id": "x", "object": "chat.completion"}'),
    "null choices": raw_body(b'{"choices": null}'),
    "empty choices": raw_body(b'{"choices": []}'),
    "no message": raw_body(b'{"choices": [{"index": 0, "finish_reason": "stop"}]}'),
    "parts that are no text": completes({"content": [{"type": "image_url", "image_url": {}}]}),
}

# Each is answered well when it is told what was wrong.
CORRECTED: dict[str, tuple[Answer, str]] = {
    # Nothing said.
    "null content": (completes({"content": None}), "empty_answer"),
    "empty content": (says(""), "empty_answer"),
    "blank content": (says(" \n"), "empty_answer"),
    "no content": (completes({"role": "assistant"}), "empty_answer"),
    "tool call": (
        completes(
            {"content": None, "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f"}}]},
            {"finish_reason": "tool_calls"},
        ),
        "empty_answer",
    ),
    # Not whole, also where it looks so.
    "cut off": (cut_off(TEXT[:20]), "cut_off"),
    "cut off, yet whole": (cut_off(TEXT), "cut_off"),
    "cut off in other words": (says(TEXT, finish_reason="max_tokens"), "cut_off"),
    "cut off in thought": (completes({"content": None}, {"finish_reason": "length"}), "cut_off"),
    # Not one JSON object.
    "prose": (says("I would rather not."), "not_json"),
    "two objects": (says(f"{TEXT}\n{TEXT}"), "not_json"),
    "in a list": (says(f"[{TEXT}]"), "not_json"),
    "in a string": (says(json.dumps(TEXT)), "not_json"),
    "thoughts only": (says(f"<think>{TEXT}</think>"), "not_json"),
    "NaN": (says('{"answer": "x", "certain": NaN}'), "not_json"),
    "Infinity": (says('{"answer": "x", "certain": -Infinity}'), "not_json"),
    "same key twice": (says('{"answer": "x", "answer": "y", "certain": true}'), "not_json"),
    "deep": (says('{"answer": ' * 20_000 + "1" + "}" * 20_000), "not_json"),
    "deep list": (says('{"answer": ' + "[" * 20_000 + "]" * 20_000 + "}"), "not_json"),
    "rather deep": (says('{"answer": ' + "[" * 800 + "]" * 800 + ', "certain": true}'), "schema_mismatch"),
    "long number": (says('{"answer": "x", "certain": ' + "9" * 5_000 + "}"), "not_json"),
    "comma too many": (says('{"answer": "x", "certain": true,}'), "not_json"),
    # Not what was asked for; nothing is coerced.
    "half a surrogate": (says('{"answer": "\\ud800", "certain": true}'), "schema_mismatch"),
    "raw surrogate": (says('{"answer": "\ud800", "certain": true}'), "schema_mismatch"),
    "key too many": (says(GOOD | {"note": "x"}), "schema_mismatch"),
    "key missing": (says({"answer": "x"}), "schema_mismatch"),
    "number for text": (says(GOOD | {"answer": 1}), "schema_mismatch"),
    "text for truth": (says(GOOD | {"certain": "true"}), "schema_mismatch"),
    "number for truth": (says(GOOD | {"certain": 1}), "schema_mismatch"),
    "null": (says(GOOD | {"answer": None}), "schema_mismatch"),
    "empty object": (says("{}"), "schema_mismatch"),
    "wrapped": (says({"LLMOutput": GOOD}), "wrapped"),
}

# Each is told once and for all.
REFUSED: dict[str, tuple[Answer, str]] = {
    "400": (status(400), "bad_request"),
    "400 in a list": (status(400, "[" + json.dumps(error_body("Invalid")) + "]"), "bad_request"),
    "400 too long": (status(400, error_body("too long", "context_length_exceeded")), "context_too_long"),
    "400 policy": (status(400, error_body("flagged", "content_policy_violation")), "content_filter"),
    "413": (status(413, "<html>Request Entity Too Large</html>"), "context_too_long"),
    "422": (status(422, '{"detail": [{"msg": "value is not valid"}]}'), "bad_request"),
    "403 flagged": (
        status(403, {"error": {"message": "flagged", "code": 403, "metadata": {"flagged_input": "x"}}}),
        "content_filter",
    ),
    "refusal": (refuses(), "refused"),
    "filtered": (says(TEXT, finish_reason="content_filter"), "content_filter"),
    "filtered in other words": (completes({"content": None}, {"finish_reason": "SAFETY"}), "content_filter"),
}

# Each is good as it is.
TAKEN: dict[str, Answer] = {
    "plain": says(GOOD),
    "fence": says(f"```json\n{TEXT}\n```"),
    "prose around": says(f"Sure! Here it is:\n\n{TEXT}\n\nAnything else?"),
    "thoughts": says(f'<think>Perhaps {{"answer": 1}}?</think>\n{TEXT}'),
    "thoughts without a beginning": says(f'Perhaps {{"answer": 1}}?\n</think>\n\n{TEXT}'),
    "text in parts": completes({"content": [{"type": "text", "text": TEXT[:9]}, {"type": "text", "text": TEXT[9:]}]}),
    "unknown end": says(GOOD, finish_reason="eos_token"),
    "no end told": completes({"content": TEXT}, {"finish_reason": None}),
    "no usage": completes({"content": TEXT}),
    "junk usage": completes({"content": TEXT}, usage={"prompt_tokens": -5, "completion_tokens": "many"}),
    "huge usage": completes({"content": TEXT}, usage={"prompt_tokens": 10**40, "completion_tokens": 10**400}),
    "list for usage": completes({"content": TEXT}, usage=[1, 2]),
    "wrong type": raw_body(json.dumps({"choices": [{"message": {"content": TEXT}}]}).encode(), "text/html"),
    "unknown charset": raw_body(
        json.dumps({"choices": [{"message": {"content": TEXT}}]}).encode(), "application/json; charset=klingon"
    ),
    "byte order mark": raw_body(b"\xef\xbb\xbf" + json.dumps({"choices": [{"message": {"content": TEXT}}]}).encode()),
    "packed": packed(json.dumps({"choices": [{"message": {"content": TEXT}}]}).encode()),
    "null error": completes({"content": TEXT, "refusal": None}, error=None),
}


def question(name: str) -> str:
    return f"What of <{name}>?"


def ask_about(project: Project, names: Sequence[str]) -> None:
    """Make the table of the project one item for each name."""
    project.table((f"n{number}", "red", question(name)) for number, name in enumerate(names))


def calls_about(server: ChatServer, name: str) -> list[ChatCall]:
    return [call for call in server.calls if question(name) in call.text]


def made(project: Project, names: Sequence[str]) -> dict[str, Any]:
    """Accepted artifacts by name."""
    return {names[output["meta"]["row_index"]]: output for output in project.outputs().values()}


def failed(project: Project, names: Sequence[str]) -> dict[str, Any]:
    """The last failure artifact of each name that has one."""
    ordered = sorted(project.failures().values(), key=lambda failure: failure["meta"]["attempt_outer"])
    return {names[failure["meta"]["row_index"]]: failure for failure in ordered}


def assert_quiet(ended: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The output is the run's own lines, a line for each failed item, and one warning about the server."""
    said = [line for line in ended.stderr.splitlines() if not re.match(r"\S+ failed: .*\(attempt \d/\d\): ", line)]
    assert said == []
    assert ended.stderr.replace("\n", "").isprintable()
    assert "Traceback" not in ended.stdout
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    expected = ("the cost of such calls is unknown", "gave no answer within")
    assert [one for one in warnings if not any(words in one for words in expected)] == []
    assert sum("gave no answer within" in one for one in warnings) <= 1


def test_what_passes_is_asked_again_and_costs_no_attempt(
    project_with: Callable[..., Project], server: ChatServer, caplog: pytest.LogCaptureFixture
) -> None:
    project, names = project_with(llm={"max_workers": 64, "timeout_sec": 5}), list(PASSING)
    ask_about(project, names)
    for name, answer in PASSING.items():
        server.script(question(name), answer)

    ended = project.llmbatch_here("run")

    assert ended.returncode == 0, ended.stdout
    assert {name: len(calls_about(server, name)) for name in names} == dict.fromkeys(names, 2)
    assert project.failures() == {}
    assert {name: output["meta"]["attempt_outer"] for name, output in made(project, names).items()} == dict.fromkeys(
        names, 1
    )
    assert_quiet(ended, caplog)


def test_an_answer_that_cannot_be_used_is_kept_and_told_to_the_model(
    project_with: Callable[..., Project], server: ChatServer, caplog: pytest.LogCaptureFixture
) -> None:
    # Three empty answers before any other would stop the run.
    names = sorted(CORRECTED, key=lambda name: CORRECTED[name][1] == "empty_answer")
    project = project_with(llm={"max_workers": 1, "max_retries": 2})
    ask_about(project, names)
    for name, (answer, _) in CORRECTED.items():
        server.script(question(name), answer)

    ended = project.llmbatch_here("run")

    assert ended.returncode == 0, ended.stdout
    failures = failed(project, names)
    assert {name: failure["cause"] for name, failure in failures.items()} == {
        name: cause for name, (_, cause) in CORRECTED.items()
    }
    assert {failure["class"] for failure in failures.values()} == {"answer"}
    assert {name: output["meta"]["attempt_outer"] for name, output in made(project, names).items()} == dict.fromkeys(
        names, 2
    )
    for name in names:
        first, second = calls_about(server, name)
        if (failures[name]["raw_text"] or "").strip():
            assert failures[name]["feedback"] in second.messages[-1]["content"]
        else:
            # There is nothing to show the model.
            assert second.messages == first.messages
    assert_quiet(ended, caplog)


def test_what_is_refused_is_that_items_alone_and_costs_one_call(
    project_with: Callable[..., Project], server: ChatServer, caplog: pytest.LogCaptureFixture
) -> None:
    project = project_with(llm={"max_workers": 8})
    # The first ones show that the server takes the schema, so that a refusal is not about that.
    names = [*TAKEN, *REFUSED]
    ask_about(project, names)
    answers = {name: answer for name, (answer, _) in REFUSED.items()} | TAKEN
    for name, answer in answers.items():
        server.script(question(name), answer)

    ended = project.llmbatch_here("run")

    assert ended.returncode == 3, ended.stdout
    assert {name: len(calls_about(server, name)) for name in names} == dict.fromkeys(names, 1)
    failures = failed(project, names)
    assert {name: failure["cause"] for name, failure in failures.items()} == {
        name: cause for name, (_, cause) in REFUSED.items()
    }
    assert {failure["class"] for failure in failures.values()} == {"item_permanent"}
    assert {name: output["parsed"] for name, output in made(project, names).items()} == dict.fromkeys(TAKEN, GOOD)
    for cause, count in Counter(cause for _, cause in REFUSED.values()).items():
        assert f"{count} {cause}" in ended.stdout
    assert_quiet(ended, caplog)

    assert project.llmbatch_here("run").returncode == 3
    assert server.count() == len(names)


@pytest.mark.parametrize(
    ("gone", "told"),
    [
        (status(429, QUOTA, {"Retry-After": "1"}), "quota is used up"),
        (status(401, error_body("The key was revoked.", "invalid_api_key")), "refused the key"),
        (status(404, error_body("The model `test-model` does not exist.", "model_not_found")), "llm.model_name"),
        (status(307, "", {"Location": "http://127.0.0.1:9/v1/chat/completions"}), "llm.base_url"),
    ],
    ids=["quota", "key", "model", "moved"],
)
def test_what_ends_for_all_in_mid_run_ends_the_run_and_the_next_one_pays_for_the_rest(
    project_with: Callable[..., Project], server: ChatServer, gone: Answer, told: str
) -> None:
    workers, good, items = 4, 11, 40
    project = project_with(llm={"max_workers": workers, "transport_retries": 4})
    ask_about(project, [str(number) for number in range(items)])
    is_back = False
    server.script(lambda call: call.number > good and not is_back, gone, repeat_last=True)

    began = time.monotonic()
    ended = project.llmbatch_here("run")

    assert time.monotonic() - began < 30
    assert ended.returncode == 1
    assert told in ended.stdout + ended.stderr
    assert ended.stdout.count("stopped: ") == 1
    assert "Traceback" not in ended.stdout + ended.stderr
    assert server.count() <= good + workers
    assert len(project.outputs()) == good
    assert project.failures() == {}
    assert AssetPartitionStatus.FAILED not in project.partition_states().values()

    is_back = True
    asked = server.count()
    assert project.llmbatch_here("run").returncode == 0
    assert server.count() - asked == items - good
    assert len(project.outputs()) == items


# One refusal for too many calls is enough: each slows the whole run down, as it should.
MIXED = [answer for name, answer in PASSING.items() if not name.startswith("429") or name == "429 in seconds"]
MIXED += [answer for answer, _ in CORRECTED.values()]


def faults_of_items(names: Sequence[str]) -> Iterator[list[Answer]]:
    """What each item meets before its good answer, if anything: a third of all answers are faults, of all kinds in turn.

    Drawn for each item and not by the order of the calls, so that what an item meets does not hang on which call is
    quicker: a few items in a thousand would meet five faults in a row, and tests would fail now and then.
    """
    draw, kinds = Random(1), cycle(MIXED)  # noqa: S311  # a test's own numbers
    for _ in names:
        yield [next(kinds) for _ in takewhile(lambda _: draw.random() < 1 / 3, range(len(MIXED)))]


def test_a_run_ends_well_when_every_third_answer_is_a_fault(
    project_with: Callable[..., Project], server: ChatServer, caplog: pytest.LogCaptureFixture
) -> None:
    project = project_with(llm={"max_workers": 24, "max_retries": 5, "transport_retries": 4, "timeout_sec": 3})
    names = [str(number) for number in range(150)]
    ask_about(project, names)
    for name, faults in zip(names, faults_of_items(names), strict=True):
        if faults:
            server.script(question(name), *faults)

    ended = project.llmbatch_here("run")

    assert ended.returncode in (0, 3)
    accepted, lost = made(project, names), failed(project, names).keys() - made(project, names).keys()
    assert len(accepted) >= 0.99 * len(names)
    assert accepted.keys() | lost == set(names)
    assert server.count() > 1.3 * len(names)
    assert_quiet(ended, caplog)


# What would break a terminal, a file or a page.
UNSEEN = "no\ud800 \x1b[31mway\x00 <script>alert(1)</script>"


def test_whatever_a_provider_says_can_be_shown_and_written(
    project_with: Callable[..., Project], server: ChatServer, caplog: pytest.LogCaptureFixture
) -> None:
    project = project_with(llm={"max_retries": 1})
    said = [
        error(500, json.dumps(error_body(UNSEEN))),
        status(400, json.dumps(error_body(UNSEEN))),
        refuses(UNSEEN),
        says(json.dumps(GOOD | {UNSEEN: 1})),
    ]
    names = [str(number) for number in range(len(said))]
    ask_about(project, names)
    is_over = False

    def about(name: str) -> Callable[[ChatCall], bool]:
        return lambda call: question(name) in call.text and not is_over

    for name, answer in zip(names, said, strict=True):
        server.script(about(name), answer, repeat_last=True)

    ended = project.llmbatch_here("run")

    assert (ended.returncode, len(project.failures())) == (3, len(said))
    for page in ("report.md", "report.html"):
        text = project.path(f"artifacts/reports/{page}").read_text()
        assert "ud800" in text
        assert "\x1b" not in text
        assert "<script>alert" not in text
    assert_quiet(ended, caplog)

    is_over = True
    server.script(lambda _: True, status(401, json.dumps(error_body(UNSEEN))), repeat_last=True)
    ended = project.llmbatch_here("run")
    assert ended.returncode == 1
    assert "no\\ud800 \\x1b[31mway\\x00" in ended.stdout
    assert_quiet(ended, caplog)


# The key.


KEY = "sk-of-the/test-4f9a61"


def forms(key: str) -> list[bytes]:
    """The key as it may stand in a file: as it is, and as JSON may write it."""
    escaped = "".join(f"\\u{ord(sign):04x}" for sign in key)
    return [form.encode() for form in (key, key.replace("/", "\\/"), escaped, json.dumps(escaped)[1:-1])]


def assert_keyless(project: Project, *ended: Any) -> None:
    for name, content in project.tree().items():
        assert not any(form in content for form in forms(KEY)), name
    for run in ended:
        assert not any(form in (run.stdout + run.stderr).encode() for form in forms(KEY))


def test_the_key_is_in_no_file_and_no_line_whatever_the_provider_says(tmp_path: Path, server: ChatServer) -> None:
    # On disk, as a user has it, and with everything told that can be told.
    project = make_project(
        tmp_path / "project",
        server.base_url,
        llm={"silence_client_lv_logs": False, "max_workers": 4, "max_retries": 2},
        run={"log_level": "DEBUG"},
    )
    told = f"Incorrect key {KEY}"
    echoes = {
        "error": error(500, error_body(told)),
        "html": error(502, f"<html>{told}</html>", Content_Type="text/html", x_request_id=KEY),
        "not a completion": raw_body(json.dumps({"you sent": told}).encode()),
        "wire": wire(f"{told}\r\n\r\n".encode()),
        "text": says(told),
        "wrong": says({"answer": told}),
        "escaped": says('{"answer": "' + "".join(f"\\u{ord(sign):04x}" for sign in KEY) + '"}'),
        "right": says({"answer": told, "certain": True}),
        "bad request": status(400, error_body(told)),
        "refusal": refuses(told),
        "reason": wire(f"HTTP/1.1 500 {KEY}\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n".encode()),
    }
    ask_about(project, list(echoes))
    for name, answer in echoes.items():
        server.script(question(name), answer, answer)

    first = project.llmbatch("run", TEST_KEY=KEY)

    assert first.returncode == 3, first.stderr
    assert "DEBUG" in first.stdout + first.stderr
    assert {call.headers["Authorization"] for call in server.calls} == {f"Bearer {KEY}"}
    assert any("sqlite" in name or name.endswith(".db") for name in project.tree())
    assert "Incorrect key [key]" in "".join(output["parsed"]["answer"] for output in project.outputs().values())
    assert_keyless(project, first)

    server.script(lambda _: True, status(401, error_body(told), {"x-request-id": KEY}), repeat_last=True)
    second = project.llmbatch_here("run", "--retry-failed", TEST_KEY=KEY)

    assert second.returncode == 1
    assert "Incorrect key [key]" in second.stdout
    assert_keyless(project, first, second)


def test_the_key_goes_to_no_other_host(project: Project, server: ChatServer) -> None:
    with ChatServer() as other:
        server.script(lambda _: True, status(308, "", {"Location": f"{other.base_url}/chat/completions"}))
        ended = project.llmbatch_here("run")
        assert other.count() == 0
    assert ended.returncode == 1
    assert "llm.base_url" in ended.stdout


def test_a_key_that_is_changed_in_mid_run_is_read_anew(project: Project, server: ChatServer) -> None:
    project.write("credentials.yaml", "TEST_KEY: first-key\n")

    def change(_: ChatCall) -> Answer:
        project.write("credentials.yaml", "TEST_KEY: second-key\n")
        return error(500)

    server.script(lambda _: True, change)

    assert project.llmbatch_here("run", TEST_KEY="").returncode == 0

    keys = [call.headers["Authorization"] for call in server.calls]
    assert keys[0] == "Bearer first-key"
    assert keys[-1] == "Bearer second-key"
