"""Calls that leave a line, whatever comes of them, with what they cost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from llmbatch_assets.domain.outcome import Completion
from llmbatch_assets.domain.prompt import Message
from llmbatch_assets.domain.request import ChatRequest, Subject
from llmbatch_assets.domain.run.ledger import CallRecord
from llmbatch_assets.domain.usage import TokenUsage, UsageTotal
from llmbatch_assets.engine.budget import RunBudget, UsageForecast
from llmbatch_assets.engine.metering import CallAccounts, MeteredClient
from llmbatch_assets.engine.pacing import CallLimits, Pacer
from llmbatch_assets.errors import (
    FailureCause,
    ItemPermanentError,
    ProviderError,
    RunPermanentError,
    StopCause,
    TransientError,
)
from llmbatch_assets_tests.engine.fakes import COST, GOOD, NOW, ScriptedClient, run

SUBJECT = Subject(work_id="w" * 40, cache_id="c" * 40, partition_key="q1-abc", attempt=2)
ASKED = ChatRequest("judge", (Message("user", "Is it?"),), None, SUBJECT)


@dataclass
class MemoryLedger:
    """Lines in memory."""

    records: list[CallRecord] = field(default_factory=list)
    can_open: bool = True

    def open(self) -> None:
        if not self.can_open:
            raise OSError(24, "Too many open files")

    def write(self, record: CallRecord) -> None:
        self.records.append(record)


def a_dollar_a_token(usage: TokenUsage) -> float | None:
    return float(usage.total_tokens)


@dataclass
class Till:
    """A metered client and its books."""

    script: str | Completion | Exception = GOOD
    cost_of: Callable[[TokenUsage], float | None] = a_dollar_a_token
    max_cost: float = 0
    ledger: MemoryLedger = field(default_factory=MemoryLedger)
    spending: UsageTotal = field(default_factory=UsageTotal)

    def client(self) -> MeteredClient:
        stopped = asyncio.Event()
        books = CallAccounts("run-1", self.ledger, self.spending, RunBudget(self.max_cost, stopped), lambda: NOW)
        pacer = Pacer(CallLimits(4), stopped)
        return MeteredClient(
            ScriptedClient(self.script), "openai", "m-1", self.cost_of, UsageForecast(10), pacer, books
        )

    def ask(self) -> Completion:
        async def work() -> Completion:
            return await self.client().complete(ASKED)

        return run(work)


def fault(error: ProviderError, status: int | None = None, usage: TokenUsage | None = None) -> ProviderError:
    error.status, error.usage, error.request_id = status, usage, "req-9"
    return error


def test_an_answer_has_its_cost_and_leaves_a_line() -> None:
    till = Till(Completion(text=GOOD, usage=COST, latency_sec=0.25, request_id="req-1"))
    assert till.ask().usage == COST.with_cost(9.0)
    [record] = till.ledger.records
    assert record.model_dump() == {
        "v": 1,
        "at_utc": NOW,
        "run_id": "run-1",
        "purpose": "judge",
        **SUBJECT._asdict(),
        "provider": "openai",
        "model": "m-1",
        "input_tokens": 7,
        "cached_input_tokens": 0,
        "output_tokens": 2,
        "reasoning_tokens": 0,
        "cost_usd": 9.0,
        "latency_sec": 0.25,
        "outcome": "ok",
        "status": 200,
        "request_id": "req-1",
    }
    assert till.spending.usage == COST.with_cost(9.0)


@pytest.mark.parametrize(
    ("error", "cost", "tokens"),
    [
        # What a server has refused with a status is not billed ...
        (fault(TransientError(FailureCause.RATE_LIMITED, "busy"), 429), 0.0, 0),
        (fault(ItemPermanentError(FailureCause.BAD_REQUEST, "no"), 400), 0.0, 0),
        # ... nor what has not left this machine.
        (fault(RunPermanentError(StopCause.NO_KEY, "no key")), 0.0, 0),
        # A refusal that the model has written is.
        (fault(ItemPermanentError(FailureCause.REFUSED, "no"), 200, COST), 9.0, 9),
        # Of these nobody knows.
        (fault(TransientError(FailureCause.TIMEOUT, "late")), None, 0),
        (fault(TransientError(FailureCause.BROKEN_BODY, "cut"), 200), None, 0),
    ],
    ids=lambda value: value.cause if isinstance(value, ProviderError) else "",
)
def test_a_fault_leaves_a_line_with_what_is_known_of_its_cost(
    error: ProviderError, cost: float | None, tokens: int
) -> None:
    till = Till(error)
    with pytest.raises(ProviderError) as raised:
        till.ask()
    assert raised.value is error
    [record] = till.ledger.records
    assert (record.outcome, record.status, record.request_id) == (error.cause, error.status, "req-9")
    assert (record.cost_usd, record.input_tokens + record.output_tokens) == (cost, tokens)
    assert till.spending.n_unknown_cost == (cost is None)


def test_what_costs_nothing_costs_nothing_whatever_happens() -> None:
    till = Till(TransientError(FailureCause.TIMEOUT, "late"), cost_of=lambda _: 0.0)
    with pytest.raises(TransientError):
        till.ask()
    assert till.ledger.records[0].cost_usd == 0.0


def test_an_unknown_price_is_an_unknown_cost() -> None:
    till = Till(cost_of=lambda _: None)
    assert till.ask().usage.cost_usd is None
    assert till.ledger.records[0].cost_usd is None
    assert till.spending.usage.cost_usd is None


@pytest.mark.parametrize(
    ("usage", "text", "cost"),
    [
        (TokenUsage(requests=1), GOOD, None),
        (TokenUsage(requests=1), "", None),
        (TokenUsage(requests=1, input_tokens=7), GOOD, None),
        (TokenUsage(requests=1, output_tokens=2), GOOD, None),
        (TokenUsage(requests=1, input_tokens=7), "", 7.0),
        (COST, GOOD, 9.0),
    ],
)
def test_tokens_that_are_not_counted_are_not_free(usage: TokenUsage, text: str, cost: float | None) -> None:
    till = Till(Completion(text=text, usage=usage))
    assert till.ask().usage.cost_usd == cost
    assert till.ledger.records[0].cost_usd == cost
    free = Till(Completion(text=text, usage=usage), cost_of=lambda _: 0.0)
    assert free.ask().usage.cost_usd == 0.0


def test_a_budget_counts_an_answer_of_unknown_cost_as_its_maximum_and_says_so() -> None:
    # The first guess is 2 tokens in and 10 out.
    till = Till(Completion(text=GOOD, usage=TokenUsage(requests=1)), max_cost=25)

    async def work() -> str:
        client = till.client()
        for _ in range(2):
            await client.complete(ASKED)
        with pytest.raises(RunPermanentError) as raised:
            await client.complete(ASKED)
        return str(raised.value)

    message = run(work)
    assert "$24.00 of $25.00 spent (including estimates for 2 calls)" in message


def test_a_call_that_is_cut_short_by_a_signal_leaves_a_line() -> None:
    till = Till()

    class Silent:
        async def complete(self, request: ChatRequest) -> Completion:
            await asyncio.sleep(60)
            raise AssertionError

    async def work() -> None:
        metered = till.client()
        silent = MeteredClient(**{**vars(metered), "client": Silent()})
        asked = asyncio.ensure_future(silent.complete(ASKED))
        await asyncio.sleep(1)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked

    run(work)
    [record] = till.ledger.records
    assert (record.outcome, record.cost_usd, record.latency_sec) == ("interrupted", None, 1.0)


def test_a_budget_that_is_used_up_lets_no_call_out() -> None:
    till = Till(max_cost=5)
    with pytest.raises(RunPermanentError) as raised:
        till.ask()
    assert raised.value.cause == "budget"
    assert till.ledger.records == []


def test_a_call_that_may_have_been_billed_counts_as_billed_in_the_budget() -> None:
    # The first guess is 1 token in and 10 out.
    till = Till(TransientError(FailureCause.TIMEOUT, "late"), max_cost=20)

    async def work() -> list[str]:
        client, causes = till.client(), list[str]()
        for _ in range(2):
            with pytest.raises(ProviderError) as raised:
                await client.complete(ASKED)
            causes.append(raised.value.cause)
        return causes

    assert run(work) == ["timeout", "budget"]


def test_a_call_that_could_not_be_logged_is_not_made() -> None:
    till = Till(ledger=MemoryLedger(can_open=False))
    client = till.client()
    with pytest.raises(OSError, match="Too many open files"):
        run(lambda: client.complete(ASKED))
    assert isinstance(client.client, ScriptedClient)
    assert client.client.asked == []
    assert client.accounts.in_flight == 0
