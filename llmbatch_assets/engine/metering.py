"""A provider client whose calls are paced, priced and logged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from llmbatch_assets.domain.outcome import Completion
from llmbatch_assets.domain.request import ChatRequest
from llmbatch_assets.domain.run.ledger import OK, CallRecord
from llmbatch_assets.domain.usage import TokenUsage, UsageTotal
from llmbatch_assets.engine.budget import Reservation, RunBudget, UsageForecast
from llmbatch_assets.engine.pacing import Pacer, Permit
from llmbatch_assets.engine.ports import ChatClient, Clock, Ledger
from llmbatch_assets.errors import ProviderError, RunPermanentError, StopCause

_HTTP_OK = 200
_FIRST_ERROR_STATUS = 400


@dataclass
class CallAccounts:
    """Accounting shared by all calls of a run."""

    run_id: str
    ledger: Ledger
    total: UsageTotal
    budget: RunBudget
    now: Clock
    in_flight: int = 0


@dataclass(frozen=True)
class MeteredClient:
    """A client for one model of one server. Each call waits for its permit, is priced, and leaves a line in the log."""

    client: ChatClient
    provider: str
    model: str
    cost_of: Callable[[TokenUsage], float | None]
    forecast: UsageForecast
    pacer: Pacer
    accounts: CallAccounts

    async def complete(self, request: ChatRequest) -> Completion:
        """Return the provider's answer with its cost. Raises as the provider does, and once the budget is used up."""
        # Price in advance only if there is a limit: pricing takes as long as making the request.
        max_cost = self.cost_of(self.forecast.max_usage(request)) if self.accounts.budget.max_cost_usd else None
        async with (
            self.accounts.budget.reserve(max_cost) as reservation,
            self.pacer.permit(self.forecast.expected_tokens(request)) as permit,
        ):
            completion = await self._call(request, max_cost, reservation, permit)
        self.forecast.learn(request, completion.usage)
        return completion

    async def _call(
        self, request: ChatRequest, max_cost: float | None, reservation: Reservation, permit: Permit
    ) -> Completion:
        clock = asyncio.get_running_loop().time
        started = clock()
        reservation.cost = max_cost or 0.0
        # No call may be billed that cannot be logged.
        self.accounts.ledger.open()
        self.accounts.in_flight += 1
        try:
            completion = await self.client.complete(request)
        except ProviderError as error:
            usage = self._usage_of(request, error)
            error.usage = None if error.usage is None else usage
            permit.tokens = usage.total_tokens
            reservation.settle(usage.cost_usd)
            self._log(request, usage, clock() - started, error.cause, error.status, error.request_id)
            raise
        except asyncio.CancelledError:
            self._log(request, TokenUsage(requests=1), clock() - started, StopCause.INTERRUPTED, None, "")
            raise
        finally:
            self.accounts.in_flight -= 1
        usage = completion.usage.with_cost(self._cost(request, completion))
        if usage.counts_tokens:
            permit.tokens = usage.total_tokens
        reservation.settle(usage.cost_usd)
        self._log(request, usage, completion.latency_sec, OK, _HTTP_OK, completion.request_id)
        return completion.model_copy(update={"usage": usage})

    def _cost(self, request: ChatRequest, completion: Completion) -> float | None:
        """Return the cost of an answer. Uncounted tokens make it unknown, unless all tokens are free."""
        usage = completion.usage
        if usage.input_tokens and (usage.output_tokens or not completion.text):
            return self.cost_of(usage)
        return 0.0 if self._is_free(request) else None

    def _is_free(self, request: ChatRequest) -> bool:
        return self.cost_of(self.forecast.max_usage(request)) == 0

    def _usage_of(self, request: ChatRequest, error: ProviderError) -> TokenUsage:
        """Return the usage of a call without an answer. A call that ended without a status may or may not be billed."""
        if isinstance(error.usage, TokenUsage):
            return error.usage.with_cost(self.cost_of(error.usage))
        refused = isinstance(error, RunPermanentError) or (error.status or 0) >= _FIRST_ERROR_STATUS
        return TokenUsage(requests=1, cost_usd=0.0 if refused or self._is_free(request) else None)

    def _log(
        self,
        request: ChatRequest,
        usage: TokenUsage,
        latency: float,
        outcome: str,
        status: int | None,
        request_id: str,
    ) -> None:
        work_id, cache_id, partition_key, attempt = request.subject or (None, None, None, None)
        record = CallRecord(
            at_utc=self.accounts.now(),
            run_id=self.accounts.run_id,
            purpose=request.purpose,
            work_id=work_id,
            cache_id=cache_id,
            partition_key=partition_key,
            attempt=attempt,
            provider=self.provider,
            model=self.model,
            **usage.model_dump(exclude={"requests"}),
            latency_sec=round(latency, 4),
            outcome=str(outcome),
            status=status,
            request_id=request_id,
        )
        self.accounts.total.add(record)
        self.accounts.ledger.write(record)
