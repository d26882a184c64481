"""Usage under the names of all providers; impossible counts are treated as unknown."""

from typing import Any

import pytest

from llmbatch_assets.adapters.providers.responses.reported_usage import MOST_TOKENS, read_usage
from llmbatch_assets.domain.usage import TokenUsage


@pytest.mark.parametrize(
    "reported",
    [
        # OpenAI.
        {
            "prompt_tokens": 100,
            "completion_tokens": 20,
            "total_tokens": 120,
            "prompt_tokens_details": {"cached_tokens": 60},
            "completion_tokens_details": {"reasoning_tokens": 8},
        },
        # Its Responses.
        {
            "input_tokens": 100,
            "output_tokens": 20,
            "input_tokens_details": {"cached_tokens": 60},
            "output_tokens_details": {"reasoning_tokens": 8},
        },
        # Floats and texts.
        {
            "prompt_tokens": 100.0,
            "completion_tokens": "20",
            "prompt_tokens_details": {"cached_tokens": "60.0"},
            "completion_tokens_details": {"reasoning_tokens": 8.0},
        },
        # DeepSeek.
        {
            "prompt_tokens": 100,
            "completion_tokens": 20,
            "prompt_cache_hit_tokens": 60,
            "prompt_cache_miss_tokens": 40,
            "completion_tokens_details": {"reasoning_tokens": 8},
        },
        # LiteLLM counts Anthropic's cached tokens as input, and Anthropic itself does not.
        {
            "prompt_tokens": 100,
            "completion_tokens": 20,
            "cache_read_input_tokens": 60,
            "completion_tokens_details": {"reasoning_tokens": 8},
        },
        {
            "input_tokens": 30,
            "cache_creation_input_tokens": 10,
            "cache_read_input_tokens": 60,
            "output_tokens": 20,
            "output_tokens_details": {"reasoning_tokens": 8},
        },
        # Gemini's compatible endpoint counts reasoning only in the total; its native API uses other names.
        {
            "prompt_tokens": 100,
            "completion_tokens": 12,
            "total_tokens": 120,
            "prompt_tokens_details": {"cached_tokens": 60},
        },
        {"promptTokenCount": 100, "candidatesTokenCount": 12, "totalTokenCount": 120, "cachedContentTokenCount": 60},
    ],
)
def test_usage_is_read_under_every_name(reported: Any) -> None:
    assert read_usage(reported).usage == TokenUsage(
        requests=1, input_tokens=100, cached_input_tokens=60, output_tokens=20, reasoning_tokens=8
    )


@pytest.mark.parametrize(
    "reported",
    [None, {}, [], "many", {"total_tokens": 120}, {"prompt_tokens": 100}, {"completion_tokens": 20}, {"x": 1}],
)
def test_usage_that_is_not_reported_in_full_is_unknown(reported: Any) -> None:
    usage, absurd = read_usage(reported)
    assert not usage.counts_tokens
    assert absurd == 0


@pytest.mark.parametrize(
    "reported",
    [
        {"prompt_tokens": 900_000_000, "completion_tokens": 20},
        {"prompt_tokens": 100, "completion_tokens": 900_000_000},
        {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 900_000_120},
        {"input_tokens": "900000000", "output_tokens": 20.0},
    ],
)
def test_a_count_that_no_model_reaches_is_ignored_and_shown(reported: Any) -> None:
    usage, absurd = read_usage(reported)
    assert usage == TokenUsage(requests=1)
    assert absurd >= 900_000_000


def test_a_request_may_be_as_long_as_it_is() -> None:
    long = {"prompt_tokens": 3 * MOST_TOKENS, "completion_tokens": 20}
    assert read_usage(long, sent_bytes=4 * MOST_TOKENS).usage.input_tokens == 3 * MOST_TOKENS
    assert read_usage(long, sent_bytes=1_000).absurd_count == 3 * MOST_TOKENS
