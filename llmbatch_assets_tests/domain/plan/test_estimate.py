"""Estimates: what a sample says of the rest, and how often the rest is within what was said."""

from __future__ import annotations

import random
from statistics import median
from typing import Any

import pytest

from llmbatch_assets.domain.ledger import CallRecord
from llmbatch_assets.domain.plan.calibration import Line, Taken, fitted, reach, relative_error, taken
from llmbatch_assets.domain.plan.estimate import (
    NO_CALLS,
    Limits,
    Questions,
    Range,
    Stage,
    cost,
    exactly,
    methods_of,
    savings,
    shortest_time,
    stage,
)
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


def questions(lengths: list[int], **fields: Any) -> Questions:
    plain: dict[str, Any] = {"answer": Range(10, 20, 40), "unseen": 0, "again": Range(1, 1.1, 1.5), "reused": 0.0}
    return Questions(lengths, **{**plain, **fields})


# What was taken.


def test_calls_of_an_item_in_a_run_are_taken_together() -> None:
    records = [
        record(outcome="rate_limited", input_tokens=0, output_tokens=0, status=429),
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
    known, others = taken(records, "generate", ("openai", "m"), {"c": 400, "uncounted": 9})
    assert known == [Taken(400, 3, 2, 100, 10, 250, 30, 0, 4.0), Taken(400, 1, 1, 110, 10, 110, 10, 0, 2.0)]
    assert [one.first_input for one in others] == [7]


# Lines.

MANY = [100 * n for n in range(1, 11)]


@pytest.mark.parametrize(
    ("points", "otherwise", "line"),
    [
        ([(x, x // 4 + 50) for x in MANY], "ratio", Line(50, 0.25)),
        # Without any length there are no tokens.
        ([(x, x // 4 - 5) for x in MANY], "mean", Line(0, 0.24)),
        ([(100, 25), (200, 50)], "ratio", Line(0, 0.25)),
        ([(100, 9), (200, 11)], "mean", Line(10, 0)),
        ([(x, 10 + (x // 100 % 2)) for x in MANY], "mean", Line(10.5, 0)),
        ([(100, 20)] * 9, "ratio", Line(0, 0.2)),
    ],
)
def test_lines_have_a_slope_of_their_own_where_it_is_clear(points: Any, otherwise: Any, line: Line) -> None:
    found = fitted(points, otherwise=otherwise)
    assert found == pytest.approx(line, abs=0.01)


def test_few_items_tell_little() -> None:
    assert relative_error([0.0] * 4, 100, 1000) == 0.5
    assert relative_error([0.0] * 20, 100, 1000) == 0.05
    assert relative_error([0.0] * 20, 100, 1000, reach=4.0) == 0.2
    assert relative_error([900.0, -900.0] * 3, 100, 1000) == 1.0
    assert (reach([100, 200], [150]), reach([100, 200], [800]), reach([100, 200], [20, 20])) == (1, 4, 5)


# Against a bill.


def bill_of(lengths: list[int], chance: random.Random) -> list[Taken]:
    """Calls as a noisy provider counts them: a fixed part, thinking of very different lengths, second tries."""
    seen = []
    for size in lengths:
        asked, said = round(60 + size / 3.7 * chance.gauss(1, 0.05)), round(chance.lognormvariate(4.5, 0.5))
        again = chance.random() < 0.15
        seen.append(
            Taken(size, 1 + again, 1 + again, asked, said, asked * (2 if again else 1), said * (2 if again else 1))
        )
    return seen


def total(seen: list[Taken]) -> float:
    return sum(one.input_tokens + 4 * one.output_tokens for one in seen)


def test_a_sample_of_20_says_what_the_rest_takes_as_surely_as_it_claims() -> None:
    chance = random.Random(5)  # noqa: S311  # a test's own numbers
    off, held = [], 0
    for _ in range(200):
        lengths = [round(chance.lognormvariate(6.5, 0.4)) for _ in range(520)]
        sample, rest = bill_of(lengths[:20], chance), bill_of(lengths[20:], chance)
        told = stage(questions(lengths[20:]), sample, [], None)
        ends = told.input_tokens + told.output_tokens.times([4, 4, 4])
        assert told.calls.low >= len(rest)
        off.append(abs(ends.likely / total(rest) - 1))
        held += ends.low <= total(rest) <= ends.high
    assert median(off) < 0.10
    assert held >= 0.9 * len(off)


def test_no_answer_is_longer_than_it_may_be() -> None:
    sample = [Taken(100 * n, 1, 1, 25 * n, 10 * n, 25 * n, 10 * n) for n in range(1, 11)]
    assert stage(questions([10_000] * 5), sample, [], 100).output_tokens.likely == 500
    assert stage(questions([100] * 5, answer=Range(10, 500, 900)), [], [], 100).output_tokens.high == 750


# Without a sample.


def test_without_a_sample_it_is_by_assumption() -> None:
    told = stage(questions([600] * 10, unseen=300), [], [], None)
    assert told.basis == "assumed"
    assert told.calls == Range(10, 11, 15)
    assert told.input_tokens == pytest.approx((1200, 1650, 4500))
    assert told.output_tokens == pytest.approx((100, 220, 600))
    assert "by assumption" in methods_of({"generate": told})


def test_answers_to_other_questions_are_better_than_none() -> None:
    kindred = [Taken(0, 2, 2, 100, 50, 220, 110, 0, 6.0)] * 10
    told = stage(questions([600] * 10), [], kindred, None)
    assert told.basis == "kindred"
    assert told.output_tokens == pytest.approx((25 * 15, 50 * 20, 100 * 25))
    assert told.seconds == pytest.approx((1.5 * 15, 3 * 20, 6 * 25))
    assert "asked otherwise" in methods_of({"generate": told})


def test_nothing_to_ask_takes_nothing() -> None:
    assert stage(questions([]), [], [], None) == NO_CALLS
    assert methods_of({"generate": NO_CALLS}) == ""


# Money and time.

STAGE = Stage(exactly(10), Range(800, 1000, 1200), exactly(100), 500.0, exactly(20), "measured", 20, 0.05)


def price(usage: TokenUsage) -> float:
    return (usage.input_tokens - 0.5 * usage.cached_input_tokens + 2 * usage.output_tokens) / 1000


def test_calls_are_priced_one_by_one_and_reuse_apart() -> None:
    assert cost(STAGE, price) == pytest.approx((1.0, 1.2, 1.4))
    assert savings(STAGE, price) == pytest.approx(0.25)
    assert cost(STAGE, lambda _: None) is None
    assert savings(STAGE, lambda _: None) is None
    # A price that rises with the length of a call.
    assert cost(STAGE, lambda usage: 5.0 if usage.input_tokens > 500 else 1.0) == (10, 10, 10)


def test_limits_of_a_server_take_their_time() -> None:
    assert shortest_time([STAGE, STAGE], Limits(10, 0)) == (120, 120, 120)
    assert shortest_time([STAGE], Limits(0, 100)) == pytest.approx((540, 660, 780))
    assert shortest_time([STAGE], Limits(0, 0)) == (0, 0, 0)


def test_what_is_not_judged_takes_no_call() -> None:
    half = STAGE.scaled(0.5)
    assert (half.calls.likely, half.output_tokens.high, half.reused_tokens) == (5, 50, 250)


def test_a_method_is_told_once_for_all_it_is_the_method_of() -> None:
    told = methods_of({"generate": STAGE, "judge": STAGE})
    assert told.startswith("generate and judge: ")
    assert "20 items of the same model and prompt; within 5% in 95 of 100 cases" in told
