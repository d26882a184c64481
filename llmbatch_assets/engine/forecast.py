"""What a call will take, guessed from its length and from the calls before it."""

from __future__ import annotations

from llmbatch_assets.domain.outcome import TokenUsage
from llmbatch_assets.domain.request import ChatRequest

CHARS_PER_TOKEN = 4
UNKNOWN_OUTPUT_TOKENS = 500


class Forecast:
    """Learns from each answered call: a likely number of tokens for pacing, the most of them for budgets."""

    def __init__(self, max_output_tokens: int | None) -> None:
        self._first_output = max_output_tokens or UNKNOWN_OUTPUT_TOKENS
        self._calls = self._chars = self._input = self._output = 0
        self._largest_share = 0.0
        self._largest_output = 0

    def learn(self, request: ChatRequest, usage: TokenUsage) -> None:
        """Take an answered call into account. A server that does not count its tokens teaches nothing."""
        if not usage.total_tokens:
            return
        self._calls += 1
        self._chars += request.chars
        self._input += usage.input_tokens
        self._output += usage.output_tokens
        self._largest_share = max(self._largest_share, usage.input_tokens / max(request.chars, 1))
        self._largest_output = max(self._largest_output, usage.output_tokens)

    def likely(self, request: ChatRequest) -> float:
        """Input and output tokens, as calls took on average."""
        if not self._calls:
            return request.chars / CHARS_PER_TOKEN + self._first_output
        return request.chars * self._input / max(self._chars, 1) + self._output / self._calls

    def most(self, request: ChatRequest) -> TokenUsage:
        """The call as expensive as the most expensive one so far; none of its input is thought to be cached."""
        share = self._largest_share if self._calls else 1 / CHARS_PER_TOKEN
        output = self._largest_output if self._calls else self._first_output
        return TokenUsage(requests=1, input_tokens=round(request.chars * share), output_tokens=output)
