"""``llmbatch run`` against servers with ways of their own, as their users have met them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest

from llmbatch_assets.adapters.store.run_records import read_ledger
from llmbatch_assets.domain.items.identity import BatchIdentity
from llmbatch_assets_tests.chat_server import (
    Answer,
    ChatCall,
    ChatServer,
    completes,
    error_body,
    raw_body,
    says,
    status,
)
from llmbatch_assets_tests.project import ROWS, Project, settings

GOOD = {"answer": "It is so.", "certain": True}
TEXT = json.dumps(GOOD)
DRAFT = json.dumps({"answer": "A draft.", "certain": False})
USAGE = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
PRICES = {"test-model": {"input": 10, "output": 100}}
N_ITEMS = len(ROWS)


def completion(message: Mapping[str, Any], finish_reason: str = "stop", usage: Any = USAGE, **body: Any) -> Answer:
    return completes(message, {"finish_reason": finish_reason}, usage=usage, **body)


def everyone_gets(server: ChatServer, answer: Answer) -> None:
    server.script(lambda _: True, answer, repeat_last=True)


def ask_about(project: Project, server: ChatServer, answers: Mapping[str, Answer]) -> None:
    """Make the table one item for each answer, which it always gets."""
    project.table((f"n{number}", "red", f"What of <{name}>?") for number, name in enumerate(answers))
    for name, answer in answers.items():
        server.script(f"What of <{name}>?", answer, repeat_last=True)


def failed(project: Project, names: Iterable[str]) -> dict[str, Any]:
    """The last failure of each item that has one, by name."""
    by_row, ordered = list(names), sorted(project.failures().items())
    return {by_row[failure["meta"]["row_index"]]: failure for _, failure in ordered}


def manifest(project: Project) -> dict[str, Any]:
    return dict(project.json("artifacts/cache/pipeline4_manifest.json"))


def assert_all_accepted(project: Project, server: ChatServer, n_calls: int = N_ITEMS) -> None:
    assert [output["parsed"] for output in project.outputs().values()] == [GOOD] * N_ITEMS
    assert project.failures() == {}
    assert server.count() == n_calls


# A refusal that every call would get.


GEMINI_DAY = [
    {
        "error": {
            "code": 429,
            "message": "You exceeded your current quota.\nPlease retry in 34.07s.",
            "status": "RESOURCE_EXHAUSTED",
            "details": [
                {
                    "@type": "QuotaFailure",
                    "violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}],
                },
                {"@type": "RetryInfo", "retryDelay": "34s"},
            ],
        }
    }
]
CREDIT = {
    "type": "error",
    "error": {
        "type": "invalid_request_error",
        "message": "Your credit balance is too low to access the Anthropic API.",
    },
}
BUDGET = {
    "error": {"message": "Budget has been exceeded! Current cost: 14.2", "type": "budget_exceeded", "code": "400"}
}
GONE = error_body("The model `test-model` has been decommissioned and is no longer supported.", "model_decommissioned")


@pytest.mark.parametrize(
    ("gone", "cause", "told"),
    [
        (status(400, CREDIT), "no_quota", "quota is used up"),
        (status(400, BUDGET), "no_quota", "quota is used up"),
        (status(429, BUDGET), "no_quota", "quota is used up"),
        (status(429, json.dumps(GEMINI_DAY)), "no_quota", "the daily quota is used up"),
        (status(400, GONE), "unknown_model", "correct llm.model_name"),
    ],
    ids=["credit", "budget", "budget 429", "day", "model"],
)
def test_a_refusal_of_every_call_stops_the_run_and_fails_no_item(
    project_with: Callable[..., Project], server: ChatServer, gone: Answer, cause: str, told: str
) -> None:
    project = project_with(llm={"max_workers": 1})
    is_over = False
    server.script(lambda call: call.number > 2 and not is_over, gone, repeat_last=True)

    ended = project.llmbatch_here("run")

    assert ended.returncode == 1
    assert told in ended.stdout
    assert manifest(project)["meta"]["stopped_by"] == cause
    assert (server.count(), len(project.outputs()), project.failures()) == (3, 2, {})

    is_over = True
    assert project.llmbatch_here("run").returncode == 0
    assert len(project.outputs()) == N_ITEMS


def test_the_wait_of_a_quota_of_a_minute_is_that_of_the_body(
    project_with: Callable[..., Project], server: ChatServer
) -> None:
    minute = {"code": 429, "message": "Slow down.", "details": [{"@type": "RetryInfo", "retryDelay": "1.5s"}]}
    server.script(lambda _: True, status(429, json.dumps([{"error": minute}])))
    project = project_with(llm={"max_workers": 1})
    assert project.llmbatch_here("run").returncode == 0
    first, second = server.calls[:2]
    assert 1.4 < second.at - first.at < 5


# The answer is in the 200, but not as plain text.


def events(*events: Any, end: str = "data: [DONE]\n\n") -> Answer:
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + end
    return raw_body(body.encode(), "text/event-stream")


THOUGHTS = {"type": "thinking", "thinking": [{"type": "text", "text": DRAFT}]}
PLACES: dict[str, Answer] = {
    "Mistral": completion({"content": [THOUGHTS, {"type": "text", "text": TEXT}]}),
    "Databricks": completion({"content": [{"type": "reasoning", "summary": []}, {"type": "text", "text": TEXT}]}),
    "LM Studio": completion({"content": "", "reasoning_content": TEXT, "tool_calls": []}),
    "vLLM": completion({"content": None, "reasoning": TEXT}),
    "thinking": completion({"content": f"<thinking>maybe {DRAFT}</thinking>{TEXT}"}),
    "THINK": completion({"content": f"[THINK]maybe {DRAFT}[/THINK]{TEXT}"}),
    "harmony": completion(
        {
            "content": f"<|channel|>analysis<|message|>maybe {DRAFT}<|end|><|start|>assistant<|channel|>final"
            f"<|message|>{TEXT}<|return|>"
        }
    ),
    "list of texts": completion({"content": [TEXT[:9], TEXT[9:]]}),
    "tool call": completion(
        {
            "content": None,
            "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": TEXT}}],
        },
        "tool_calls",
    ),
    "function call": completion({"content": None, "function_call": {"name": "f", "arguments": TEXT}}, "function_call"),
    "stream": events(
        {"choices": [{"index": 0, "delta": {"role": "assistant", "content": TEXT[:9]}}]},
        {"choices": [{"index": 0, "delta": {"content": TEXT[9:]}, "finish_reason": "stop"}]},
        {"choices": [], "usage": USAGE},
    ),
}


def test_the_answer_is_found_wherever_it_is_with_one_call_an_item(project: Project, server: ChatServer) -> None:
    ask_about(project, server, PLACES)
    ended = project.llmbatch_here("run")
    assert ended.returncode == 0, ended.stdout
    assert [output["parsed"] for output in project.outputs().values()] == [GOOD] * len(PLACES)
    assert project.failures() == {}
    assert f"{len(PLACES)} calls, {len(PLACES) * 100:,} input and {len(PLACES) * 20} output tokens" in ended.stdout


def test_a_stream_that_was_asked_for_is_read(project_with: Callable[..., Project], server: ChatServer) -> None:
    project = project_with(llm={"extra_body": {"stream": True}})
    whole = {"choices": [{"index": 0, "delta": {"content": TEXT}, "finish_reason": "stop"}]}
    server.script(lambda call: call.body.get("stream") is True, events(whole), repeat_last=True)
    assert project.llmbatch_here("run").returncode == 0
    assert_all_accepted(project, server)


def test_thoughts_without_an_answer_stop_the_run_and_the_message_names_field_and_setting(
    project: Project, server: ChatServer
) -> None:
    everyone_gets(server, completion({"content": "", "reasoning_content": f"Perhaps {TEXT}? Let me see."}))
    ended = project.llmbatch_here("run")
    assert ended.returncode == 1
    assert "reasoning_content" in ended.stdout
    assert "--reasoning-parser" in ended.stdout
    assert_stopped_unusable(project, server, n_workers=3)


def assert_stopped_unusable(project: Project, server: ChatServer, n_workers: int) -> None:
    """The run stopped after one call for each of three items, and recorded none of them as failed."""
    assert manifest(project)["meta"]["stopped_by"] == "unusable_replies"
    # Each other worker may have begun a call in the meantime.
    assert 3 <= server.count() <= 3 + n_workers - 1
    assert len({call.text for call in server.calls}) == server.count()
    assert (project.outputs(), project.failures()) == ({}, {})


THINKING = {"content": None, "reasoning_content": "Let me think about"}
NO_ANSWER: dict[str, tuple[Answer, tuple[str, ...]]] = {
    "thinking": (completion(THINKING, "length"), ("reasoning_content", "llm.max_output_tokens", "thinking")),
    "hidden thinking": (completion({"content": ""}, "length"), ("llm.max_output_tokens", "thinking")),
    "nothing": (
        completion({"content": ""}),
        ("llm.base_url", "llm.model_name", "llm.max_output_tokens", "llm.extra_body"),
    ),
    "object": (completion({"content": GOOD}), ("the content of the answer is not text", "llm.base_url")),
    "Anthropic": (
        raw_body(json.dumps({"content": [{"type": "text", "text": TEXT}], "usage": USAGE}).encode()),
        ("not a chat completion", "llm.base_url"),
    ),
}


@pytest.mark.parametrize(("answer", "told"), NO_ANSWER.values(), ids=list(NO_ANSWER))
def test_replies_that_hold_no_answer_stop_the_run_after_one_call_for_each_of_three_items(
    project_with: Callable[..., Project], server: ChatServer, answer: Answer, told: tuple[str, ...]
) -> None:
    project = project_with(llm={"max_workers": 2})
    everyone_gets(server, answer)
    ended = project.llmbatch_here("run")
    assert ended.returncode == 1
    for words in ("3 items in a row", "no item was recorded as failed", *told):
        assert words in ended.stdout
    assert_stopped_unusable(project, server, n_workers=2)


def test_an_answer_with_text_shows_that_empty_answers_are_the_items_own(
    project_with: Callable[..., Project], server: ChatServer
) -> None:
    project, nothing = project_with(llm={"max_workers": 1, "max_retries": 3}), completion({"content": ""})
    good = completion({"content": TEXT})
    ask_about(project, server, {"empty": nothing, "cut": completion(THINKING, "length"), "good": good, "late": nothing})
    assert project.llmbatch_here("run").returncode == 3
    # The first two are only asked again once the third has been answered.
    asked = [name for call in server.calls for name in ("empty", "cut", "good", "late") if f"<{name}>" in call.text]
    assert asked == ["empty", "cut", "good", *["empty"] * 2, *["cut"] * 2, *["late"] * 3]
    causes = {name: one["cause"] for name, one in failed(project, ["empty", "cut", "good", "late"]).items()}
    assert causes == {"empty": "empty_answer", "cut": "cut_off", "late": "empty_answer"}


def test_an_item_that_nothing_else_is_left_to_compare_with_is_asked_again(
    project_with: Callable[..., Project], server: ChatServer
) -> None:
    project = project_with(llm={"max_retries": 3})
    project.table([("n1", "red", "Why?")])
    server.script("Why?", completion({"content": ""}), completion({"content": ""}), completion({"content": TEXT}))
    assert project.llmbatch_here("run").returncode == 0
    assert (server.count(), len(project.outputs())) == (3, 1)


BROKEN: dict[str, Answer] = {
    "image": completion({"content": [{"type": "image_url", "image_url": {}}]}),
    "network_error": completion({"content": TEXT}, "network_error"),
    "error": completes({"content": TEXT}, {"error": {"code": 502, "message": "Lost"}}, usage=USAGE),
    "no choices": raw_body(json.dumps({"choices": [], "usage": USAGE}).encode()),
    "stream": events({"choices": [], "usage": USAGE}, {"choices": [{"index": 0, "delta": {"content": "{"}}]}, end=""),
}


def test_an_answer_of_no_use_that_is_paid_is_an_attempt_and_every_token_is_counted(
    project_with: Callable[..., Project], server: ChatServer
) -> None:
    project = project_with(llm={"max_retries": 2, "transport_retries": 4, "max_workers": 1}, budget={"prices": PRICES})
    # Good answers between them show that the server as such can be used.
    good = {f"good {number}": says(GOOD, usage=USAGE) for number in range(len(BROKEN))}
    pairs = zip(good.items(), BROKEN.items(), strict=True)
    ask_about(project, server, dict(one for pair in pairs for one in pair))

    ended = project.llmbatch_here("run")

    assert ended.returncode == 3, ended.stdout
    n_bad, n_calls = len(BROKEN), 3 * len(BROKEN)
    assert server.count() == n_calls
    assert f"{2 * n_bad}/{2 * n_bad} done, {n_bad} accepted, {n_bad} failed" in ended.stdout
    assert f"{n_calls * 120} tokens" in ended.stdout
    assert manifest(project)["usage"]["cost_usd"] == pytest.approx(n_calls * (100 * 10 + 20 * 100) / 1e6)
    # A transient failure: the next run takes it up.
    assert {failure["class"] for failure in project.failures().values()} == {"transient"}


# Failures reported in the body of a 200.


def test_an_error_next_to_choices_is_that_error(project_with: Callable[..., Project], server: ChatServer) -> None:
    project = project_with(llm={"max_workers": 1, "transport_retries": 4})
    told = {"message": "Provider returned error", "code": 429, "metadata": {"raw": "rate limited upstream"}}
    nothing = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    busy = completion({"content": None}, usage=nothing, error=told)
    server.script(lambda _: True, busy, completion({"content": None}, usage=nothing, error={**told, "code": "429"}))
    everyone_gets(server, says(GOOD, usage=USAGE))
    ended = project.llmbatch_here("run")
    assert ended.returncode == 0, ended.stdout
    assert_all_accepted(project, server, N_ITEMS + 2)
    assert "7 calls (2 hit a rate limit)" in ended.stdout


DECISIONS = ("sensitive", "SPII", "RECITATION", "content_filter: PROHIBITED_CONTENT")
INTERRUPTIONS = ("network_error", "insufficient_system_resource", "abort")


def test_any_other_reason_for_the_end_of_an_answer_is_the_servers_word(
    project_with: Callable[..., Project], server: ChatServer
) -> None:
    project, names = project_with(llm={"max_retries": 2}), [*DECISIONS, *INTERRUPTIONS, "tired", "eos_token"]
    answers = {name: completion({"content": TEXT if name == "eos_token" else ""}, name) for name in names}
    ask_about(project, server, answers)

    assert project.llmbatch_here("run").returncode == 3

    calls = {name: sum(f"<{name}>" in call.text for call in server.calls) for name in names}
    failures = failed(project, names)
    assert failures.keys() == set(names) - {"eos_token"}
    for name, failure in failures.items():
        assert f"finish_reason: {name}" in failure["error"]["message"]
    # A decision about the content is final, an interruption is tried again, and an answer that is one is taken.
    for name in DECISIONS:
        assert (failures[name]["cause"], failures[name]["class"], calls[name]) == (
            "content_filter",
            "item_permanent",
            1,
        )
    for name in INTERRUPTIONS:
        assert (failures[name]["cause"], failures[name]["class"], calls[name]) == ("server_error", "transient", 2)
    assert (failures["tired"]["cause"], calls["tired"]) == ("empty_answer", 2)
    assert calls["eos_token"] == len(project.outputs()) == 1


# The next best way of asking for JSON.


@pytest.mark.parametrize(
    ("refused_formats", "refused", "found"),
    [
        (
            {"json_schema"},
            status(
                400, json.dumps([{"error": {"code": 400, "message": "The schema has too many states for serving."}}])
            ),
            "json_object",
        ),
        (
            {"json_schema"},
            status(400, error_body("The model only supports response formats: [json text].")),
            "json_object",
        ),
        (
            {"json_schema", "json_object"},
            status(404, {"error": {"message": "No endpoints found that can handle the parameters.", "code": 404}}),
            "prompt",
        ),
    ],
    ids=["gemini", "groq", "openrouter"],
)
def test_any_refusal_of_a_schema_leads_to_the_next_best_way_with_one_warning(
    project: Project,
    server: ChatServer,
    caplog: pytest.LogCaptureFixture,
    refused_formats: set[str],
    refused: Answer,
    found: str,
) -> None:
    def is_refused(call: ChatCall) -> bool:
        return (call.body.get("response_format") or {}).get("type") in refused_formats

    server.script(is_refused, refused, repeat_last=True)
    everyone_gets(server, says(GOOD))
    ended = project.llmbatch_here("run")
    assert ended.returncode == 0, ended.stdout
    assert len(project.outputs()) == N_ITEMS
    assert project.failures() == {}
    assert manifest(project)["meta"]["structured_output"] == found
    assert caplog.text.count("does not support structured_output") == 1


# Azure OpenAI, and the key headers of gateways.


def azure(server: ChatServer) -> str:
    return server.base_url.removesuffix("/v1") + "/openai/deployments/my-gpt?api-version=2024-10-21"


def test_azure_openai_is_called_by_its_usual_address(
    project_with: Callable[..., Project], server: ChatServer, caplog: pytest.LogCaptureFixture
) -> None:
    project = project_with(llm={"base_url": azure(server), "max_output_tokens": 300}, run={"log_level": "DEBUG"})
    server.require_key, server.key_header = "secret-key", "api-key"
    ended = project.llmbatch_here("run")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert {call.url for call in server.calls} == {"/openai/deployments/my-gpt/chat/completions?api-version=2024-10-21"}
    assert {call.body["max_completion_tokens"] for call in server.calls} == {300}
    assert all("secret-key" not in text for text in (ended.stdout, ended.stderr, caplog.text))
    assert all(b"secret-key" not in content for content in project.tree().values())


def test_a_server_gets_the_key_in_the_header_that_the_configuration_names(
    project_with: Callable[..., Project], server: ChatServer
) -> None:
    project = project_with(llm={"api_key_header": "x-api-key"})
    server.require_key, server.key_header = "secret-key", "x-api-key"
    server.script("tower", status(500, error_body("Your key secret-key is fine.")))
    assert project.llmbatch_here("run").returncode == 0
    assert all("Authorization" not in call.headers for call in server.calls)
    server.require_key = "another"
    ended = project.llmbatch_here("run", "--force")
    assert ended.returncode == 1
    assert "refused the key" in ended.stdout
    assert all(b"secret-key" not in content for content in project.tree().values())


def test_the_key_header_of_one_server_is_not_that_of_the_judges(
    project_with: Callable[..., Project], server: ChatServer
) -> None:
    with ChatServer() as other:
        judge = {"base_url": other.base_url, "api_key_env": "TEST_KEY"}
        project = project_with(llm={"api_key_header": "x-api-key"}, judge=judge, prompts={"judge": {"enabled": True}})
        server.require_key, server.key_header = "secret-key", "x-api-key"
        other.require_key = "secret-key"
        assert project.llmbatch_here("run").returncode == 0
        assert other.count() == N_ITEMS


@pytest.mark.parametrize(
    ("llm", "told"),
    [
        (
            {"base_url": "https://h/v1?key=abc"},
            "llm.base_url: must not contain a user, password or query, except ?api-version=",
        ),
        (
            {"base_url": "https://res.openai.azure.com"},
            "must be the whole address of an Azure OpenAI model: https://RESOURCE",
        ),
        ({"base_url": "https://res.openai.azure.com/openai/deployments/m"}, "DEPLOYMENT?api-version=2024-10-21"),
        ({"api_key_header": "Bearer sk-123"}, "llm.api_key_header: must be the name of a header for keys"),
        ({"api_key_header": "Host"}, "llm.api_key_header: must be the name of a header for keys"),
    ],
)
def test_an_address_or_header_that_cannot_be_right_is_refused_with_one_that_is(
    project_with: Callable[..., Project], llm: dict[str, str], told: str
) -> None:
    ended = project_with(llm=llm).llmbatch_here("check")
    assert ended.returncode == 2
    assert told in ended.stdout + ended.stderr
    assert "abc" not in ended.stdout + ended.stderr
    assert "sk-123" not in ended.stdout + ended.stderr


# The same question, written in another way.


def spellings(server: ChatServer) -> list[str]:
    return [f"{server.base_url}/", server.base_url.replace("http", "HTTP"), f"{server.base_url}//"]


def test_another_spelling_of_the_address_finds_every_output(project: Project, server: ChatServer) -> None:
    assert project.llmbatch_here("run").returncode == 0
    for base_url in spellings(server):
        project.parameters(**settings(base_url))
        plan = project.llmbatch_here("plan")
        assert f"{N_ITEMS} cached, 0 new" in plan.stdout
    assert project.llmbatch_here("run").returncode == 0
    assert server.count() == N_ITEMS


def test_outputs_of_a_version_that_kept_spellings_apart_are_found(
    project_with: Callable[..., Project], server: ChatServer
) -> None:
    judge = {"prompts": {"judge": {"enabled": True}}}
    project = project_with(**judge)
    assert project.llmbatch_here("run").returncode == 0
    asked = server.count()
    as_if_written(project, f"{server.base_url}/")

    for base_url in (server.base_url, spellings(server)[0]):
        project.parameters(**settings(base_url, **judge))
        ended = project.llmbatch_here("run")
        assert ended.returncode == 0
        assert f"{N_ITEMS} already done, 0 to run" in ended.stdout
    assert server.count() == asked


def as_if_written(project: Project, base_url: str) -> None:
    """Turn the outputs into those of an earlier version whose configuration had this address."""
    folder = project.path("artifacts/cache/provenance")
    [path] = folder.glob("identity_*.json")
    fields = json.loads(path.read_bytes())
    fields["settings"]["base_url"] = base_url
    if fields["judge"]:
        fields["judge"]["base_url"] = base_url
    identity = BatchIdentity.model_validate(fields)
    path.unlink()
    (folder / "uses.jsonl").unlink()
    (folder / f"identity_{identity.sha}.json").write_text(json.dumps(fields))
    for old, output in project.outputs().items():
        work_id = output["meta"]["work_id"]
        named = {"cache_id": identity.cache_id(work_id), "generation_id": identity.generation_id(work_id)}
        output["meta"] |= named | {"identity": identity.parts(work_id)}
        project.path(f"artifacts/cache/llm_outputs/{old}.json").unlink()
        project.write(f"artifacts/cache/llm_outputs/{named['cache_id']}.json", json.dumps(output))


# Usage that is reported in other ways, or not at all.


def test_usage_is_counted_under_every_name(project_with: Callable[..., Project], server: ChatServer) -> None:
    project = project_with(budget={"prices": PRICES})
    usages: dict[str, Any] = {
        "texts": {"prompt_tokens": 100.0, "completion_tokens": "20"},
        "anthropic": {
            "input_tokens": 30,
            "cache_read_input_tokens": 60,
            "cache_creation_input_tokens": 10,
            "output_tokens": 20,
        },
        "responses": {"input_tokens": 100, "output_tokens": 20, "input_tokens_details": {"cached_tokens": 60}},
    }
    ask_about(project, server, {name: completion({"content": TEXT}, usage=usage) for name, usage in usages.items()})
    ended = project.llmbatch_here("run")
    assert ended.returncode == 0
    assert "3 calls, 300 input and 60 output tokens, $0.009000" in ended.stdout


@pytest.mark.parametrize("usage", [None, {"total_tokens": 120}])
def test_an_unknown_cost_is_never_zero_and_reported_once(
    project_with: Callable[..., Project], server: ChatServer, caplog: pytest.LogCaptureFixture, usage: Any
) -> None:
    project = project_with(budget={"prices": PRICES})
    everyone_gets(server, completion({"content": TEXT}, usage=usage))
    ended = project.llmbatch_here("run")
    assert ended.returncode == 0
    assert "cost unknown" in ended.stdout
    assert "$0" not in ended.stdout
    assert caplog.text.count("did not report the tokens of a call: the cost of such calls is unknown") == 1
    assert {record.cost_usd for record in read_ledger(project.path("artifacts/cache/usage.jsonl"))} == {None}
    assert {output["usage"]["cost_usd"] for output in project.outputs().values()} == {None}


def test_a_model_that_costs_nothing_costs_nothing_even_uncounted(
    project_with: Callable[..., Project], server: ChatServer
) -> None:
    project = project_with(budget={"prices": {"test-model": {"input": 0, "output": 0}}})
    everyone_gets(server, completion({"content": TEXT}, usage=None))
    assert ", $0.00" in project.llmbatch_here("run").stdout


def test_a_budget_is_kept_by_estimates_where_tokens_are_not_counted_and_says_so(
    project_with: Callable[..., Project], server: ChatServer
) -> None:
    # A call is guessed at 500 output tokens, which are 5 cents.
    project = project_with(budget={"prices": PRICES, "max_cost_usd": 0.17})
    everyone_gets(server, completion({"content": TEXT}, usage=None))
    ended = project.llmbatch_here("run")
    assert ended.returncode == 1
    assert server.count() == 3
    assert "$0.15 of $0.17 spent (including estimates for 3 calls)" in ended.stdout
    assert manifest(project)["meta"]["stopped_by"] == "budget"


def test_a_count_that_no_model_reaches_is_reported_once_and_makes_no_run_wait(
    project_with: Callable[..., Project], server: ChatServer, caplog: pytest.LogCaptureFixture
) -> None:
    project = project_with(llm={"tokens_per_minute": 1_000_000}, budget={"prices": PRICES})
    server.script("tower", completion({"content": TEXT}, usage={"prompt_tokens": 900_000_000, "completion_tokens": 20}))
    server.script(
        "bridge", completion({"content": TEXT}, usage={"prompt_tokens": 100, "completion_tokens": 900_000_000})
    )
    everyone_gets(server, says(GOOD, usage=USAGE))
    ended = project.llmbatch_here("run")
    assert ended.returncode == 0
    assert "900,000,000 tokens for one call" in caplog.text
    assert caplog.text.count("such counts are ignored") == 1
    assert "5 calls, 300 input and 60 output tokens, $0.009000 and 2 calls of unknown cost" in ended.stdout
