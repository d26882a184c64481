"""Estimates: request lengths, extrapolation from a sample, and how often the total is within the range."""

from __future__ import annotations

import random
from statistics import median
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbatch_assets.domain.items.prompt_columns import column_values
from llmbatch_assets.domain.items.work import WorkItem
from llmbatch_assets.domain.placeholders import GENERATION_NAMES
from llmbatch_assets.domain.plan.estimate import (
    NO_CALLS,
    CallEstimate,
    Estimate,
    ItemUsage,
    PromptLength,
    Range,
    Requests,
    byte_length,
    cost,
    estimate_calls,
    extrapolate,
    shortest_time,
    usage_per_item,
    within,
)
from llmbatch_assets.domain.prompt import PromptTemplate
from llmbatch_assets.domain.request import item_values
from llmbatch_assets.domain.run.ledger import CallRecord
from llmbatch_assets.domain.usage import TokenUsage


def record(**fields: Any) -> CallRecord:
    plain: dict[str, Any] = {
        "at_utc": "",
        "run_id": "r",
        "purpose": "generate",
        "work_id": "w",
        "cache_id": "c",
        "partition_key": "k",
        "attempt": 1,
        "provider": "openai",
        "model": "m",
        "input_tokens": 100,
        "cached_input_tokens": 0,
        "output_tokens": 10,
        "reasoning_tokens": 0,
        "cost_usd": 0.0,
        "latency_sec": 2.0,
        "outcome": "ok",
        "status": 200,
        "request_id": "",
    }
    return CallRecord(**{**plain, **fields})


def requests(lengths: list[int], **fields: Any) -> Requests:
    plain: dict[str, Any] = {"answer": Range(10, 20, 40), "unseen": 0, "max_calls_per_item": 3}
    return Requests(lengths, **{**plain, **fields})


def method_of(**by_purpose: CallEstimate) -> str:
    nothing = within(0, 0)
    return Estimate(0, 0, nothing, nothing, nothing, None, None, nothing, by_purpose).method


# Usage.


def test_calls_for_an_item_in_one_run_are_added_up() -> None:
    records = [
        record(outcome="rate_limited", input_tokens=0, output_tokens=0, status=429, latency_sec=0.0),
        record(),
        record(input_tokens=150, output_tokens=20),
        record(run_id="other", input_tokens=110),
        record(purpose="judge"),
        record(model="another"),
        record(provider="offline"),
        record(cache_id=None),
        record(cache_id="someone's", input_tokens=7),
        record(cache_id="uncounted", input_tokens=0),
    ]
    known, others = usage_per_item(records, "generate", ("openai", "m"), {"c": 400, "uncounted": 9})
    assert known == [ItemUsage(400, 3, 250, 30, 0, 4.0), ItemUsage(400, 1, 110, 10, 0, 2.0)]
    assert [one.input_tokens for one in others] == [7]


# Totals.

LENGTHS = [100 * n for n in range(1, 11)]


@pytest.mark.parametrize(
    ("seen", "per_byte", "total"),
    [
        # A fixed part and a quarter of a token for each byte.
        ([(x, x // 4 + 50) for x in LENGTHS], (0.0, 0.25), 2 * (50 + 250)),
        ([(x, x // 4) for x in LENGTHS], (0.0, 0.25), 2 * 250),
        ([(x, 10 + (x // 100 % 2)) for x in LENGTHS], (0.0, 0.25), 2 * 10.5),
        # The first rate where both fit.
        ([(100, 20)] * 9, (0.2, 0.0), 2 * 200),
        ([(100, 20)] * 9, (0.0, 0.2), 2 * 20),
        ([(100, 20), (1000, 20)], (0.25,), 2 * (20 + 450 * 0.25)),
        # There is no negative number of tokens.
        ([(5000, 20)] * 9, (0.25,), 0),
    ],
)
def test_a_total_follows_the_rate_that_fits_best(seen: Any, per_byte: tuple[float, ...], total: float) -> None:
    assert extrapolate([900, 1100], seen, per_byte)[0] == pytest.approx(total)


def test_a_few_items_give_a_large_error() -> None:
    assert extrapolate([10] * 100, [(10, 10)] * 4, (0.0,)) == (1000, 0.5)
    assert extrapolate([10] * 100, [(10, 10)] * 20, (0.0,)) == (1000, 0.05)
    assert extrapolate([10] * 100, [(10, 0), (10, 200)] * 3, (0.0,))[1] == pytest.approx(0.9, abs=0.05)
    assert extrapolate([10] * 100, [(10, 0), (10, 0), (10, 300)] * 2, (0.0,))[1] == 1.0


# Against a bill.


def bill_of(lengths: list[int], chance: random.Random) -> list[ItemUsage]:
    """Calls as a noisy provider counts them: a fixed part, thinking of very different lengths, second tries."""
    seen = []
    for size in lengths:
        asked, said = round(60 + size / 3.7 * chance.gauss(1, 0.05)), round(chance.lognormvariate(4.5, 0.5))
        again = chance.random() < 0.15
        calls = 1 + again
        seen.append(ItemUsage(size, calls, calls * asked, calls * said))
    return seen


def total(seen: list[ItemUsage]) -> float:
    return sum(one.input_tokens + 4 * one.output_tokens for one in seen)


def test_a_sample_of_20_predicts_the_rest_as_accurately_as_it_claims() -> None:
    chance = random.Random(5)  # noqa: S311  # a test's own numbers
    off, held = [], 0
    for _ in range(200):
        lengths = [round(chance.lognormvariate(6.5, 0.4)) for _ in range(520)]
        sample, rest = bill_of(lengths[:20], chance), bill_of(lengths[20:], chance)
        told = estimate_calls(requests(lengths[20:]), sample, [], None)
        ends = told.input_tokens + told.output_tokens.times(4)
        assert told.calls.low >= len(rest)
        off.append(abs(ends.likely / total(rest) - 1))
        held += ends.low <= total(rest) <= ends.high
    assert median(off) < 0.10
    assert held >= 0.9 * len(off)


def test_no_answer_exceeds_the_output_limit() -> None:
    sample = [ItemUsage(100 * n, 1, 25 * n, 10 * n) for n in range(1, 11)]
    assert estimate_calls(requests([10_000] * 5), sample, [], 100).output_tokens.likely == 500
    assert estimate_calls(requests([100] * 5, answer=Range(10, 500, 900)), [], [], 100).output_tokens.high == 750


# Without a sample.


def test_without_a_sample_the_estimate_uses_assumptions() -> None:
    told = estimate_calls(requests([600] * 10, unseen=300), [], [], None)
    assert told.basis == "assumed"
    assert told.calls == Range(10, 11, 15)
    assert told.input_tokens == pytest.approx((1200, 1650, 4500))
    assert told.output_tokens == pytest.approx((100, 220, 600))
    assert "guessed from the schema" in method_of(generate=told)


def test_answers_to_another_prompt_are_better_than_assumptions() -> None:
    others = [ItemUsage(0, 2, 220, 100, 0, 6.0)] * 10
    told = estimate_calls(requests([600] * 10), [], others, None)
    assert told.basis == "kindred"
    assert told.output_tokens == pytest.approx((25 * 15, 50 * 20, 100 * 25))
    assert told.seconds == pytest.approx((1.5 * 15, 3 * 20, 6 * 25))
    assert "same model with another prompt" in method_of(generate=told)


def test_no_requests_cost_nothing() -> None:
    assert estimate_calls(requests([]), [], [], None) == NO_CALLS
    assert method_of(generate=NO_CALLS) == ""


# Money and time.

CALLS = CallEstimate(
    within(10, 0), Range(800, 1000, 1200), within(100, 0), within(20, 0), "measured", 20, 0.05, cached_share=0.5
)


def price(usage: TokenUsage) -> float:
    return (usage.input_tokens - 0.5 * usage.cached_input_tokens + 2 * usage.output_tokens) / 1000


def test_calls_are_priced_individually_and_cached_input_separately() -> None:
    assert cost(CALLS, price) == pytest.approx((1.0, 1.2, 1.4))
    assert cost(CALLS, price, with_cache=True) == pytest.approx((0.8, 0.95, 1.1))
    assert cost(CALLS, lambda _: None) is None
    # A price that rises with the length of a call.
    assert cost(CALLS, lambda usage: 5.0 if usage.input_tokens > 500 else 1.0) == (10, 10, 10)


def test_rate_limits_set_a_minimum_time() -> None:
    assert shortest_time([CALLS, CALLS], 10, 0) == (120, 120, 120)
    assert shortest_time([CALLS], 0, 100) == pytest.approx((540, 660, 780))
    assert shortest_time([CALLS], 0, 0) == (0, 0, 0)


def test_items_that_are_not_judged_need_no_call() -> None:
    half = CALLS.scaled(0.5)
    assert (half.calls.likely, half.output_tokens.high, half.seconds.low) == (5, 50, 10)


def test_purposes_with_the_same_method_share_its_description() -> None:
    assert method_of(generate=CALLS, judge=CALLS) == (
        "generate and judge: measured on 20 items with the same model and prompt, +/- 5 % (95 % confidence)"
    )


# Lengths.

SHARED = {"llm_schema": '{"type": "object"}', "llm_schema_txt": "the schema", "judge_schema": None}
PROMPTS: list[dict[str, Any]] = [
    {"user": "{context}"},
    {"system": "Say {llm_schema}", "user": "About {row} of {group_context}: {{really}} {row}"},
    {"system": "{group_context}", "user": "{row}", "examples": [{"user": "q", "assistant": "{}"}]},
    {"user": "nothing of it {{ {{x}} }}", "assistant_prefix": "{"},
    {"system": '{a} {"a"}', "user": "{b_c} {row} {{a}}"},
]


@pytest.mark.parametrize("prompt", PROMPTS)
@given(row=st.text(max_size=40), group=st.none() | st.text(max_size=40), value=st.text(max_size=9))
def test_the_length_is_that_of_the_rendered_request(
    prompt: dict[str, Any], row: str, group: str | None, value: str
) -> None:
    template = PromptTemplate(path="p", **prompt)
    columns = {"a": value, "b c": "fixed"}
    item = WorkItem("w", "k", "g", 0, None if group is None else "c", row, {"hidden_columns": columns})
    own = column_values(template.column_placeholders(GENERATION_NAMES), columns)
    messages = template.render(SHARED | item_values(item, group) | own)
    prompt_length = PromptLength.of(template, SHARED)
    measured = prompt_length.of_request(item, None if group is None else byte_length(group))
    assert measured == sum(byte_length(message.content) for message in messages)


def test_scripts_with_more_tokens_per_character_are_longer() -> None:
    assert (byte_length("river"), byte_length("река"), byte_length("川の水")) == (5, 8, 9)
