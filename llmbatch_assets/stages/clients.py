"""The clients of one run, each behind its gate, and what their calls come to."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field

from llmbatch_assets.adapters.providers.prices import cost_function, require_prices
from llmbatch_assets.adapters.providers.registry import Client, Opener
from llmbatch_assets.adapters.store.ledger import UsageLedger
from llmbatch_assets.domain.ledger import Spending
from llmbatch_assets.domain.pacing import PacingFacts, together
from llmbatch_assets.domain.parameters import Llm
from llmbatch_assets.engine.budget import Budget
from llmbatch_assets.engine.forecast import Forecast
from llmbatch_assets.engine.metering import Books, MeteredClient
from llmbatch_assets.engine.pacing import CallLimits, Pacer
from llmbatch_assets.engine.ports import Clock
from llmbatch_assets.stages.project import Batch


@dataclass
class Meter:
    """One run's calls: opens the clients that make them, and knows what they came to so far."""

    open_client: Opener
    batch: Batch
    run_id: str
    now: Clock
    spending: Spending = field(default_factory=Spending)
    structured_output: str | None = None
    _pacers: list[Pacer] = field(default_factory=list)

    @property
    def pacing(self) -> PacingFacts:
        """How the calls were held back."""
        return together([pacer.facts for pacer in self._pacers])

    @asynccontextmanager
    async def clients(self, stopped: asyncio.Event) -> AsyncIterator[tuple[MeteredClient, MeteredClient | None]]:
        """The client that generates and, where the judge is enabled, the one that judges.

        Raises ``ConfigError`` where a budget cannot be kept.
        """
        parameters = self.batch.parameters
        async with (
            self.open_client(parameters.llm, self.batch.root) as generator,
            self._open_judge() as judge,
            self._books(stopped) as books,
        ):
            pacer, judge_llm = self._pacer(parameters.llm, stopped), parameters.judge_llm()
            judge_pacer = pacer if parameters.judge_shares_server() else self._pacer(judge_llm, stopped)
            try:
                yield (
                    self._metered(generator, parameters.llm, pacer, books),
                    self._metered(judge, judge_llm, judge_pacer, books) if judge else None,
                )
            finally:
                self.structured_output = generator.structured_output

    def _open_judge(self) -> AbstractAsyncContextManager[Client | None]:
        parameters = self.batch.parameters
        if not parameters.prompts.judge.enabled:
            return nullcontext()
        return self.open_client(parameters.judge_llm(), self.batch.root)

    @asynccontextmanager
    async def client(self, llm: Llm, stopped: asyncio.Event) -> AsyncIterator[MeteredClient]:
        """One client with some settings. Raises ``ConfigError`` where a budget cannot be kept."""
        async with self.open_client(llm, self.batch.root) as client, self._books(stopped) as books:
            yield self._metered(client, llm, self._pacer(llm, stopped), books)

    @asynccontextmanager
    async def _books(self, stopped: asyncio.Event) -> AsyncIterator[Books]:
        require_prices(self.batch.parameters)
        with UsageLedger(self.batch.path(self.batch.layout.ledger)) as ledger:
            budget = Budget(self.batch.parameters.budget.max_cost_usd, stopped)
            yield Books(self.run_id, ledger, self.spending, budget, self.now)

    def _pacer(self, llm: Llm, stopped: asyncio.Event) -> Pacer:
        pacer = Pacer(CallLimits(llm.max_workers, llm.requests_per_minute, llm.tokens_per_minute), stopped)
        self._pacers.append(pacer)
        return pacer

    def _metered(self, client: Client, llm: Llm, pacer: Pacer, books: Books) -> MeteredClient:
        cost_of = cost_function(llm, self.batch.parameters.budget.prices)
        forecast = Forecast(llm.max_output_tokens)
        return MeteredClient(client, llm.provider, llm.model_name, cost_of, forecast, pacer, books)
