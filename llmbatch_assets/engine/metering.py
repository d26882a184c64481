"""A provider whose calls are paced, paid for and written down."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from llmbatch_assets.domain.ledger import OK, CallRecord, Spending
from llmbatch_assets.domain.outcome import Completion, TokenUsage
from llmbatch_assets.domain.request import ChatRequest
from llmbatch_assets.engine.budget import Bill, Budget
from llmbatch_assets.engine.forecast import Forecast
from llmbatch_assets.engine.pacing import Pacer, Passage
from llmbatch_assets.engine.ports import ChatClient, Clock, Ledger
from llmbatch_assets.errors import ProviderError, RunPermanentError

INTERRUPTED = "interrupted"
_HTTP_OK = 200
_FIRST_ERROR_STATUS = 400


@dataclass(frozen=True)
class Books:
    """What all calls of a run have in common."""

    run_id: str
    ledger: Ledger
    spending: Spending
    budget: Budget
    now: Clock

    def enter(self, record: CallRecord) -> None:
        """Write a call down and count it."""
        self.spending.count(record)
        self.ledger.write(record)


@dataclass(frozen=True)
class MeteredClient:
    """One model of one server. Each call waits for its turn, is priced, and leaves a line, whatever comes of it."""

    client: ChatClient
    provider: str
    model: str
    cost_of: Callable[[TokenUsage], float | None]
    forecast: Forecast
    pacer: Pacer
    books: Books

    async def complete(self, request: ChatRequest) -> Completion:
        """The provider's answer, with what it cost. Raises as the provider does, and once a budget is used up."""
        # Pricing a call costs as much as making it: only where it decides something.
        most = self.cost_of(self.forecast.most(request)) if self.books.budget.limited else None
        async with (
            self.books.budget.bill(most) as bill,
            self.pacer.passage(self.forecast.likely(request)) as passage,
        ):
            completion = await self._call(request, most, bill, passage)
        self.forecast.learn(request, completion.usage)
        return completion

    async def _call(self, request: ChatRequest, most: float | None, bill: Bill, passage: Passage) -> Completion:
        clock = asyncio.get_running_loop().time
        started = clock()
        bill.cost = most or 0.0
        try:
            completion = await self.client.complete(request)
        except ProviderError as fault:
            usage = self._usage_of(request, fault)
            fault.usage = None if fault.usage is None else usage
            passage.tokens = usage.total_tokens
            bill.cost = bill.cost if usage.cost_usd is None else usage.cost_usd
            self._enter(request, usage, clock() - started, fault.cause, fault.status, fault.request_id)
            raise
        except asyncio.CancelledError:
            self._enter(request, TokenUsage(requests=1), clock() - started, INTERRUPTED, None, "")
            raise
        usage = completion.usage.costing(self.cost_of(completion.usage))
        passage.tokens, bill.cost = usage.total_tokens, usage.cost_usd or 0.0
        self._enter(request, usage, completion.latency_sec, OK, _HTTP_OK, completion.request_id)
        return completion.model_copy(update={"usage": usage})

    def _usage_of(self, request: ChatRequest, fault: ProviderError) -> TokenUsage:
        """What a call that gave no answer took. What ended without a status may or may not be billed."""
        if isinstance(fault.usage, TokenUsage):
            return fault.usage.costing(self.cost_of(fault.usage))
        refused = isinstance(fault, RunPermanentError) or (fault.status or 0) >= _FIRST_ERROR_STATUS
        free = refused or self.cost_of(self.forecast.most(request)) == 0
        return TokenUsage(requests=1, cost_usd=0.0 if free else None)

    def _enter(
        self,
        request: ChatRequest,
        usage: TokenUsage,
        latency: float,
        outcome: str,
        status: int | None,
        request_id: str,
    ) -> None:
        about = request.subject
        self.books.enter(
            CallRecord(
                at_utc=self.books.now(),
                run_id=self.books.run_id,
                purpose=request.purpose,
                work_id=about.work_id if about else None,
                cache_id=about.cache_id if about else None,
                partition_key=about.partition_key if about else None,
                attempt=about.attempt if about else None,
                provider=self.provider,
                model=self.model,
                input_tokens=usage.input_tokens,
                cached_input_tokens=usage.cached_input_tokens,
                output_tokens=usage.output_tokens,
                reasoning_tokens=usage.reasoning_tokens,
                cost_usd=usage.cost_usd,
                latency_sec=round(latency, 4),
                outcome=outcome,
                status=status,
                request_id=request_id,
            )
        )
