"""The metered clients of one run."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field

from llmbatch_assets.adapters.providers.prices import cost_function, require_prices
from llmbatch_assets.adapters.providers.registry import Client, Opener
from llmbatch_assets.adapters.store.run_records import UsageLedger
from llmbatch_assets.domain.configuration.model_blocks import Llm
from llmbatch_assets.domain.run.manifest import PacingStats
from llmbatch_assets.domain.usage import UsageTotal
from llmbatch_assets.engine.budget import RunBudget, UsageForecast
from llmbatch_assets.engine.metering import CallAccounts, MeteredClient
from llmbatch_assets.engine.pacing import CallLimits, Pacer
from llmbatch_assets.engine.ports import Clock
from llmbatch_assets.stages.project import Batch


@dataclass
class CallMeter:
    """Opens the clients of one run and sums up their calls."""

    open_client: Opener
    batch: Batch
    run_id: str
    now: Clock
    total: UsageTotal = field(default_factory=UsageTotal)
    structured_output: str | None = None
    _pacers: list[Pacer] = field(default_factory=list)
    _opened: CallAccounts | None = None

    @property
    def pacing(self) -> PacingStats:
        return PacingStats.combined([pacer.stats for pacer in self._pacers])

    @property
    def calls_in_flight(self) -> int:
        """The calls that the provider is working on."""
        return self._opened.in_flight if self._opened else 0

    @asynccontextmanager
    async def clients(self, stopped: asyncio.Event) -> AsyncIterator[tuple[MeteredClient, MeteredClient | None]]:
        """Open the generating client and, if the judge is enabled, the judging one.

        Raises ``ConfigError`` if a budget is set and prices are unknown.
        """
        parameters = self.batch.parameters
        async with (
            self.open_client(parameters.llm, self.batch.root) as generator,
            self._open_judge() as judge,
            self._accounts(stopped) as accounts,
        ):
            pacer, judge_llm = self._pacer(parameters.llm, stopped), parameters.judge_llm()
            judge_pacer = pacer if parameters.judge_shares_server() else self._pacer(judge_llm, stopped)
            try:
                yield (
                    self._metered(generator, parameters.llm, pacer, accounts),
                    self._metered(judge, judge_llm, judge_pacer, accounts) if judge else None,
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
        """Open one client with these settings. Raises ``ConfigError`` if a budget is set and prices are unknown."""
        async with self.open_client(llm, self.batch.root) as client, self._accounts(stopped) as accounts:
            yield self._metered(client, llm, self._pacer(llm, stopped), accounts)

    @asynccontextmanager
    async def _accounts(self, stopped: asyncio.Event) -> AsyncIterator[CallAccounts]:
        require_prices(self.batch.parameters)
        with UsageLedger(self.batch.path(self.batch.layout.ledger)) as ledger:
            budget = RunBudget(self.batch.parameters.budget.max_cost_usd, stopped)
            self._opened = CallAccounts(self.run_id, ledger, self.total, budget, self.now)
            yield self._opened

    def _pacer(self, llm: Llm, stopped: asyncio.Event) -> Pacer:
        pacer = Pacer(CallLimits(llm.max_workers, llm.requests_per_minute, llm.tokens_per_minute), stopped)
        self._pacers.append(pacer)
        return pacer

    def _metered(self, client: Client, llm: Llm, pacer: Pacer, accounts: CallAccounts) -> MeteredClient:
        cost_of = cost_function(llm, self.batch.parameters.budget.prices)
        forecast = UsageForecast(llm.max_output_tokens)
        return MeteredClient(client, llm.provider, llm.model_name, cost_of, forecast, pacer, accounts)
