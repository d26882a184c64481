"""Token usage and its cost, for single calls and in total."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from pydantic import BaseModel, ConfigDict, Field

from llmbatch_assets.domain.configuration.model_blocks import ModelPrice
from llmbatch_assets.domain.text import counted

# With sums rounded to this many places, the order in which calls end does not matter.
_PLACES = 10
_CENT = 0.01
CostOf = Callable[["TokenUsage"], float | None]


def round_cost(amount: float) -> float:
    """Round an amount in dollars to the precision in which it is stored."""
    return round(amount, _PLACES)


def format_cost(cost: float | None, unknown_calls: int = 0) -> str:
    """Format an amount in dollars, with the number of calls of unknown cost that it does not include."""
    if cost is None:
        return "cost unknown"
    amount = f"${cost:.2f}" if cost >= _CENT or not cost else f"${cost:.6f}"
    return f"{amount} and {counted(unknown_calls, 'call')} of unknown cost" if unknown_calls else amount


class TokenUsage(BaseModel):
    """Requests, tokens and cost of one or several calls.

    ``output_tokens`` include ``reasoning_tokens``. ``cost_usd`` is None if the cost of any call is unknown, and 0 without
    requests.
    """

    model_config = ConfigDict(frozen=True)

    requests: int = 0
    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    cost_usd: float | None = Field(default_factory=lambda fields: None if fields["requests"] else 0.0)

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    @property
    def counts_tokens(self) -> bool:
        """Whether the tokens of an answered call are known. An answer always uses input and output tokens."""
        return bool(self.input_tokens and self.output_tokens)

    def __add__(self, other: TokenUsage) -> TokenUsage:
        return TokenUsage(
            requests=self.requests + other.requests,
            input_tokens=self.input_tokens + other.input_tokens,
            cached_input_tokens=self.cached_input_tokens + other.cached_input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
            cost_usd=_sum_if_known(self.cost_usd, other.cost_usd),
        )

    def with_cost(self, cost_usd: float | None) -> TokenUsage:
        """Return the same usage at another cost."""
        return self.model_copy(update={"cost_usd": cost_usd})


def _sum_if_known(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else round_cost(first + second)


def cost_at(usage: TokenUsage, price: ModelPrice) -> float:
    """Return the cost in dollars. Cached input without a price costs as much as other input."""
    cached = min(usage.cached_input_tokens, usage.input_tokens)
    fresh = usage.input_tokens - cached
    reused = cached * (price.input if price.cached_input is None else price.cached_input)
    return round_cost((fresh * price.input + reused + usage.output_tokens * price.output) / 1_000_000)


class UsageSummary(TokenUsage):
    """A sum for manifests and ``--json``. ``cost_usd`` does not include ``n_unknown_cost`` calls of unknown cost."""

    n_unknown_cost: int = 0


class Usage(Protocol):
    """Anything that a ``UsageTotal`` can add: a ``TokenUsage``, or a line of the call log."""

    @property
    def requests(self) -> int: ...
    @property
    def input_tokens(self) -> int: ...
    @property
    def cached_input_tokens(self) -> int: ...
    @property
    def output_tokens(self) -> int: ...
    @property
    def reasoning_tokens(self) -> int: ...
    @property
    def cost_usd(self) -> float | None: ...


class UsageTotal:
    """A running sum of usages: tokens, the known cost, and the number of parts whose cost is unknown.

    It uses plain numbers for speed, since there may be a million calls.
    """

    def __init__(self, parts: Iterable[Usage] = ()) -> None:
        self.requests = self.input_tokens = self.cached_input_tokens = self.output_tokens = self.reasoning_tokens = 0
        self.n_unknown_cost = 0
        self._known_cost = 0.0
        for part in parts:
            self.add(part)

    def add(self, part: Usage) -> None:
        self._add_counts(part)
        if part.cost_usd is None:
            self.n_unknown_cost += 1
        else:
            self._known_cost = round_cost(self._known_cost + part.cost_usd)

    def add_total(self, other: UsageTotal) -> None:
        self._add_counts(other)
        self.n_unknown_cost += other.n_unknown_cost
        self._known_cost = round_cost(self._known_cost + other._known_cost)

    def _add_counts(self, part: Usage) -> None:
        self.requests += part.requests
        self.input_tokens += part.input_tokens
        self.cached_input_tokens += part.cached_input_tokens
        self.output_tokens += part.output_tokens
        self.reasoning_tokens += part.reasoning_tokens

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    @property
    def cost_usd(self) -> float | None:
        """The cost, None if any part is unknown."""
        return None if self.n_unknown_cost else self._known_cost

    @property
    def known_cost_usd(self) -> float | None:
        """The known part of the cost, None if no part is known."""
        return self._known_cost if self._known_cost or not self.n_unknown_cost else None

    @property
    def usage(self) -> TokenUsage:
        """The sum as one usage."""
        return TokenUsage(**self._counts(), cost_usd=self.cost_usd)

    def summary(self) -> UsageSummary:
        """The sum with its known cost."""
        return UsageSummary(**self._counts(), cost_usd=self.known_cost_usd, n_unknown_cost=self.n_unknown_cost)

    def _counts(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in TokenUsage.model_fields if name != "cost_usd"}

    def __str__(self) -> str:
        return format_cost(self.known_cost_usd, self.n_unknown_cost)
