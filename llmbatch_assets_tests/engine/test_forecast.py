"""Guesses of what a call takes: rough at first, as calls were after."""

from __future__ import annotations

import pytest

from llmbatch_assets.domain.outcome import TokenUsage
from llmbatch_assets.domain.prompt import Message
from llmbatch_assets.domain.request import ChatRequest
from llmbatch_assets.engine.forecast import UNKNOWN_OUTPUT_TOKENS, Forecast


def asking(chars: int) -> ChatRequest:
    return ChatRequest("generate", (Message("system", "x" * 10), Message("user", "x" * (chars - 10))), None)


@pytest.mark.parametrize(("longest", "output"), [(None, UNKNOWN_OUTPUT_TOKENS), (200, 200)])
def test_the_first_call_is_guessed_by_its_length_and_the_longest_answer(longest: int | None, output: int) -> None:
    forecast = Forecast(longest)
    assert forecast.likely(asking(400)) == 100 + output
    assert forecast.most(asking(400)) == TokenUsage(requests=1, input_tokens=100, output_tokens=output)


def test_later_ones_are_likely_as_the_mean_and_at_most_as_the_largest() -> None:
    forecast = Forecast(1000)
    # Japanese has about a token for each character, and a schema beside the messages counts, too.
    forecast.learn(asking(100), TokenUsage(requests=1, input_tokens=100, output_tokens=10))
    forecast.learn(asking(300), TokenUsage(requests=1, input_tokens=200, output_tokens=30))
    assert forecast.likely(asking(400)) == pytest.approx(400 * 300 / 400 + 20)
    assert forecast.most(asking(400)) == TokenUsage(requests=1, input_tokens=400, output_tokens=30)


def test_a_server_that_counts_nothing_teaches_nothing() -> None:
    forecast = Forecast(200)
    forecast.learn(asking(400), TokenUsage(requests=1))
    assert forecast.likely(asking(400)) == 300
