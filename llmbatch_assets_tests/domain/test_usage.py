"""Costs: sums that do not depend on the order of their parts, prices, and formatted amounts."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbatch_assets.domain.configuration.model_blocks import ModelPrice
from llmbatch_assets.domain.usage import TokenUsage, UsageTotal, cost_at, format_cost, round_cost
from llmbatch_assets_tests.domain.strategies import quick


@quick
@given(st.lists(st.integers(0, 10**9), max_size=40), st.randoms())
def test_sums_are_the_same_in_any_order(amounts: list[int], shuffle: random.Random) -> None:
    usages = [TokenUsage(cost_usd=cost) for cost in (0.0, *(round_cost(amount / 10**10) for amount in amounts))]
    forwards = UsageTotal(usages).cost_usd
    shuffle.shuffle(usages)
    assert UsageTotal(usages).cost_usd == forwards == round_cost(sum(amounts) / 10**10)


def test_a_sum_with_an_unknown_part_is_unknown() -> None:
    known, unknown = TokenUsage(requests=1, cost_usd=1.0), TokenUsage(requests=1, cost_usd=None)
    assert (known + unknown).cost_usd is None
    assert (unknown + TokenUsage()).cost_usd is None


@pytest.mark.parametrize(
    ("cached", "cached_price", "cost"),
    [(0, None, 0.75), (400_000, None, 0.75), (400_000, 0.075, 0.72), (400_000, 0.0, 0.69), (9_000_000, 0.0, 0.6)],
)
def test_cached_input_is_priced_as_such(cached: int, cached_price: float | None, cost: float) -> None:
    usage = TokenUsage(input_tokens=1_000_000, cached_input_tokens=cached, output_tokens=1_000_000)
    assert cost_at(usage, ModelPrice(input=0.15, cached_input=cached_price, output=0.6)) == cost


@pytest.mark.parametrize(
    ("cost", "unknown", "text"),
    [
        (None, 0, "cost unknown"),
        (None, 3, "cost unknown"),
        (0.0, 0, "$0.00"),
        (0.000012, 0, "$0.000012"),
        (12.345, 0, "$12.35"),
        (1.5, 2, "$1.50 and 2 calls of unknown cost"),
    ],
)
def test_amounts_for_people(cost: float | None, unknown: int, text: str) -> None:
    assert format_cost(cost, unknown) == text
