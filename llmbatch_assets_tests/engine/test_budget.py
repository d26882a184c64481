"""Money: never more than allowed, calls in flight counted, and nothing left unused for fear."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbatch_assets.domain.prompt import Message
from llmbatch_assets.domain.request import ChatRequest
from llmbatch_assets.domain.usage import TokenUsage
from llmbatch_assets.engine.budget import UNKNOWN_OUTPUT_TOKENS, RunBudget, UsageForecast
from llmbatch_assets.errors import RunPermanentError
from llmbatch_assets_tests.domain.strategies import quick
from llmbatch_assets_tests.engine.fakes import run


async def buy(budget: RunBudget, most: float | None, cost: float, seconds: float = 1.0) -> float:
    """A call that may cost this at most and comes to that; gives its cost."""
    async with budget.reserve(most) as bill:
        await asyncio.sleep(seconds)
        bill.cost = cost
    return cost


def bought(limit: float, *calls: tuple[float, float]) -> list[float | str]:
    """What calls cost that all come at once, or why they were not made."""

    async def work() -> list[float | str]:
        budget = RunBudget(limit, asyncio.Event())
        ends = await asyncio.gather(*(buy(budget, *call) for call in calls), return_exceptions=True)
        return [
            end if isinstance(end, float) else end.cause for end in ends if isinstance(end, float | RunPermanentError)
        ]

    return run(work)


def test_without_a_budget_everything_is_bought() -> None:
    assert bought(0, (5.0, 5.0), (5.0, 9.0)) == [5.0, 9.0]


def test_the_last_cent_can_be_spent_and_not_one_more() -> None:
    assert bought(0.3, *[(0.1, 0.1)] * 5) == [0.1, 0.1, 0.1, "budget", "budget"]


def test_calls_in_flight_are_waited_for_since_they_may_be_cheaper() -> None:
    assert bought(1.0, *[(0.9, 0.1)] * 3) == [0.1, 0.1, "budget"]


def test_a_call_that_alone_is_too_expensive_is_never_made() -> None:
    assert bought(1.0, (1.1, 0.1)) == ["budget"]


def test_the_message_names_the_key_and_the_amounts() -> None:
    async def work() -> None:
        budget = RunBudget(1.0, asyncio.Event())
        await buy(budget, 0.9, 0.9)
        with pytest.raises(RunPermanentError, match=r"\$0\.90 of \$1\.00 spent.*\$0\.20.*budget\.max_cost_usd"):
            await buy(budget, 0.2, 0.2)

    run(work)


def test_a_call_that_failed_gives_back_what_was_set_aside() -> None:
    async def fail(budget: RunBudget) -> None:
        async with budget.reserve(1.0) as bill:
            bill.cost = 0.0
            raise ZeroDivisionError

    async def work() -> None:
        budget = RunBudget(1.0, asyncio.Event())
        with pytest.raises(ZeroDivisionError):
            await fail(budget)
        assert await buy(budget, 1.0, 1.0) == 1.0

    run(work)


def test_whoever_waits_is_let_go_when_the_run_is_stopped() -> None:
    async def work() -> None:
        stopped = asyncio.Event()
        budget = RunBudget(1.0, stopped)
        first = asyncio.ensure_future(buy(budget, 0.9, 0.9, seconds=60))
        waiting = asyncio.ensure_future(buy(budget, 0.9, 0.0, seconds=0))
        await asyncio.sleep(1)
        stopped.set()
        # Not refused: whether a call still begins is for others to say.
        assert await asyncio.wait_for(waiting, 1) == 0.0
        await first

    run(work)


@quick
@given(st.lists(st.tuples(st.integers(1, 50), st.floats(0, 1), st.integers(0, 5)), max_size=12), st.integers(1, 120))
def test_never_more_is_spent_than_allowed(calls: list[tuple[int, float, int]], limit: int) -> None:
    async def work() -> float:
        budget = RunBudget(limit, asyncio.Event())
        ends = await asyncio.gather(
            *(buy(budget, most, most * share, seconds) for most, share, seconds in calls), return_exceptions=True
        )
        return sum(end for end in ends if isinstance(end, float))

    assert run(work) <= limit + 1e-6


def asking(chars: int) -> ChatRequest:
    return ChatRequest("generate", (Message("system", "x" * 10), Message("user", "x" * (chars - 10))), None)


@pytest.mark.parametrize(("longest", "output"), [(None, UNKNOWN_OUTPUT_TOKENS), (200, 200)])
def test_the_first_call_is_guessed_by_its_length_and_the_longest_answer(longest: int | None, output: int) -> None:
    forecast = UsageForecast(longest)
    assert forecast.expected_tokens(asking(400)) == 100 + output
    assert forecast.max_usage(asking(400)) == TokenUsage(requests=1, input_tokens=100, output_tokens=output)


def test_later_ones_are_likely_as_the_mean_and_at_most_as_the_largest() -> None:
    forecast = UsageForecast(1000)
    # Japanese has about a token for each character, and a schema beside the messages counts, too.
    forecast.learn(asking(100), TokenUsage(requests=1, input_tokens=100, output_tokens=10))
    forecast.learn(asking(300), TokenUsage(requests=1, input_tokens=200, output_tokens=30))
    assert forecast.expected_tokens(asking(400)) == pytest.approx(400 * 300 / 400 + 20)
    assert forecast.max_usage(asking(400)) == TokenUsage(requests=1, input_tokens=400, output_tokens=30)


def test_one_absurd_count_does_not_make_all_later_calls_look_large() -> None:
    forecast = UsageForecast(None)
    forecast.learn(asking(100), TokenUsage(requests=1, input_tokens=100, output_tokens=10))
    forecast.learn(asking(100), TokenUsage(requests=1, input_tokens=100, output_tokens=900_000_000))
    assert forecast.expected_tokens(asking(100)) < 1000


def test_an_answer_that_is_longer_than_was_guessed_is_soon_expected() -> None:
    forecast = UsageForecast(None)
    for _ in range(10):
        forecast.learn(asking(100), TokenUsage(requests=1, input_tokens=100, output_tokens=30_000))
    assert forecast.expected_tokens(asking(100)) > 25_000


def test_a_server_that_counts_nothing_teaches_nothing() -> None:
    forecast = UsageForecast(200)
    forecast.learn(asking(400), TokenUsage(requests=1))
    assert forecast.expected_tokens(asking(400)) == 300
