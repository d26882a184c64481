"""The budget of a run: the cost of a call is reserved before it and settled after it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from llmbatch_assets.domain.request import ChatRequest
from llmbatch_assets.domain.text import counted
from llmbatch_assets.domain.usage import TokenUsage, format_cost, round_cost
from llmbatch_assets.engine.retry import wait_for_any
from llmbatch_assets.errors import RunPermanentError, StopCause

CHARS_PER_TOKEN = 4
UNKNOWN_OUTPUT_TOKENS = 500
# A call counts as at most this many average calls, so that one absurd count does not make all later calls wait.
MAX_AVERAGES = 10


class UsageForecast:
    """Predicts the tokens of a call from its length and from earlier calls."""

    def __init__(self, max_output_tokens: int | None) -> None:
        self._first_output = max_output_tokens or UNKNOWN_OUTPUT_TOKENS
        self._calls = self._chars = 0
        self._input = self._output = 0.0
        self._max_input_per_char = 0.0
        self._max_output = 0

    def learn(self, request: ChatRequest, usage: TokenUsage) -> None:
        """Learn from an answered call, unless its server does not count tokens."""
        if not usage.total_tokens:
            return
        plausible = min(1.0, MAX_AVERAGES * self.expected_tokens(request) / usage.total_tokens)
        self._calls += 1
        self._chars += request.chars
        self._input += usage.input_tokens * plausible
        self._output += usage.output_tokens * plausible
        self._max_input_per_char = max(self._max_input_per_char, usage.input_tokens / max(request.chars, 1))
        self._max_output = max(self._max_output, usage.output_tokens)

    def expected_tokens(self, request: ChatRequest) -> float:
        """Return the input and output tokens of an average call, for pacing."""
        if not self._calls:
            return request.chars / CHARS_PER_TOKEN + self._first_output
        return request.chars * self._input / max(self._chars, 1) + self._output / self._calls

    def max_usage(self, request: ChatRequest) -> TokenUsage:
        """Return the usage if the call is as expensive as the most expensive one so far and nothing is cached."""
        per_char = self._max_input_per_char if self._calls else 1 / CHARS_PER_TOKEN
        output = self._max_output if self._calls else self._first_output
        return TokenUsage(requests=1, input_tokens=round(request.chars * per_char), output_tokens=output)


@dataclass
class Reservation:
    """The cost of a call: its maximum before the call, and its actual cost afterwards, unless that is unknown."""

    cost: float
    is_estimate: bool = False

    def settle(self, cost: float | None) -> None:
        """Set the actual cost. If it is unknown, the maximum stays as an estimate."""
        self.is_estimate = cost is None
        self.cost = self.cost if cost is None else cost


class RunBudget:
    """Lets a call begin if its maximum cost fits into the budget beside the money spent and reserved.

    If only reservations of calls in flight are in the way, the call waits: they may turn out to be cheaper.
    """

    def __init__(self, max_cost_usd: float, stopped: asyncio.Event) -> None:
        self.max_cost_usd = max_cost_usd
        self._stopped = stopped
        self._settled = asyncio.Event()
        self._spent = 0.0
        self._n_estimates = 0
        self._reserved = 0.0

    @asynccontextmanager
    async def reserve(self, max_cost: float | None) -> AsyncIterator[Reservation]:
        """Reserve the maximum cost of a call. The reservation's cost at the end of the block is spent.

        Raises ``RunPermanentError`` if the maximum exceeds what is left.
        """
        reservation = Reservation(max_cost or 0.0)
        if self.max_cost_usd:
            await self._wait_for_room(reservation.cost)
        reserved = reservation.cost
        self._reserved += reserved
        try:
            yield reservation
        finally:
            self._reserved -= reserved
            self._spent = round_cost(self._spent + reservation.cost)
            self._n_estimates += reservation.is_estimate
            self._settled.set()
            self._settled = asyncio.Event()

    async def _wait_for_room(self, cost: float) -> None:
        while not self._stopped.is_set() and self._is_exceeded_by(self._reserved + cost):
            if self._is_exceeded_by(cost):
                raise RunPermanentError(
                    StopCause.BUDGET,
                    f"budget reached: {format_cost(self._spent)} of {format_cost(self.max_cost_usd)} spent{self._estimated()}, and "
                    f"the next call may cost {format_cost(cost)}. Raise budget.max_cost_usd or run again to continue.",
                )
            await wait_for_any(self._settled, self._stopped)

    def _estimated(self) -> str:
        return f" (including estimates for {counted(self._n_estimates, 'call')})" if self._n_estimates else ""

    def _is_exceeded_by(self, cost: float) -> bool:
        return round_cost(self._spent + cost) > self.max_cost_usd
