"""The token usage that a response reports, under the names of all providers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from llmbatch_assets.domain.usage import TokenUsage

# More tokens than any model reads or writes in one call. A larger count is an error of the server, unless the request is
# that long: no tokenizer makes more tokens than bytes.
MOST_TOKENS = 1_000_000

# OpenAI's names; those of Anthropic and of OpenAI's Responses; Gemini's own.
_INPUT = ("prompt_tokens", "input_tokens", "promptTokenCount")
_OUTPUT = ("completion_tokens", "output_tokens", "candidatesTokenCount")
_TOTAL = ("total_tokens", "totalTokenCount")
_INPUT_DETAILS = ("prompt_tokens_details", "input_tokens_details")
_OUTPUT_DETAILS = ("completion_tokens_details", "output_tokens_details")
# Cached input outside the details: Anthropic, DeepSeek, Gemini.
_CACHED = ("cache_read_input_tokens", "prompt_cache_hit_tokens", "cachedContentTokenCount")


class ReportedUsage(NamedTuple):
    """The usage of a call, and the impossibly large count in it (0 if there is none)."""

    usage: TokenUsage
    absurd_count: int = 0

    @property
    def is_complete(self) -> bool:
        return self.usage.counts_tokens


def read_usage(value: Any, sent_bytes: int = 0) -> ReportedUsage:
    """Return the usage from the ``usage`` of a response. Missing and impossible counts are 0."""
    reported = value if isinstance(value, dict) else {}
    counts = _counts(reported)
    largest = max(counts.input_tokens, counts.output_tokens)
    if counts.input_tokens > max(MOST_TOKENS, sent_bytes) or counts.output_tokens > MOST_TOKENS:
        return ReportedUsage(TokenUsage(requests=1), largest)
    return ReportedUsage(counts)


def _counts(reported: Mapping[str, Any]) -> TokenUsage:
    cached = _detail(reported, _INPUT_DETAILS, "cached_tokens") or _first(reported, _CACHED)
    input_tokens, answered = _first(reported, _INPUT), _first(reported, _OUTPUT)
    if "prompt_tokens" not in reported and "cache_read_input_tokens" in reported:
        # Anthropic does not count cached tokens as input.
        input_tokens += cached + _count(reported.get("cache_creation_input_tokens"))
    # Gemini's compatible endpoint counts reasoning in the total only; it is billed as output.
    output = max(answered, _first(reported, _TOTAL) - input_tokens) if input_tokens else answered
    reasoning = _detail(reported, _OUTPUT_DETAILS, "reasoning_tokens")
    return TokenUsage(
        requests=1,
        input_tokens=input_tokens,
        cached_input_tokens=min(cached, input_tokens),
        output_tokens=output,
        reasoning_tokens=min(max(reasoning, output - answered), output),
    )


def _first(reported: Mapping[str, Any], names: tuple[str, ...]) -> int:
    for name in names:
        if name in reported and (count := _count(reported[name])):
            return count
    return 0


def _detail(reported: Mapping[str, Any], blocks: tuple[str, ...], name: str) -> int:
    for block in blocks:
        details = reported.get(block)
        if isinstance(details, dict) and (count := _count(details.get(name))):
            return count
    return 0


def _count(number: Any) -> int:
    """Return a count that may be sent as a float or as text; 0 for anything else."""
    if isinstance(number, bool) or not isinstance(number, int | float | str):
        return 0
    try:
        count = float(number)
    except (ValueError, OverflowError):
        return 0
    return round(count) if math.isfinite(count) and count > 0 else 0
