"""Failures that the items do not cause are recognized because several items share them, whatever the server says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from llmbatch_assets.domain.outcome import Completion, ItemResult
from llmbatch_assets.domain.request import ChatRequest
from llmbatch_assets.domain.run.progress import Tally
from llmbatch_assets.engine.stops import OutageLimits, Outages, StopRules
from llmbatch_assets.engine.workers import WorkerPool
from llmbatch_assets.errors import FailureCause, ItemPermanentError, LlmBatchError, TransientError
from llmbatch_assets_tests.engine.fakes import COST, GOOD, AllClaims, MemoryStore, bench, job, run

# What a server does with the n-th call, which is about this item: it may raise.
Behaviour = Callable[[int, int], None]


@dataclass
class Server:
    """A server whose answers take a second."""

    behaviour: Behaviour
    seconds: float = 1.0
    asked: list[ChatRequest] = field(default_factory=list)
    at: list[float] = field(default_factory=list)

    async def complete(self, request: ChatRequest) -> Completion:
        self.asked.append(request)
        number = len(self.asked)
        self.at.append(asyncio.get_running_loop().time())
        assert request.subject is not None
        self.behaviour(number, int(request.subject.partition_key.split("-")[1]))
        await asyncio.sleep(self.seconds)
        return Completion(text=GOOD, usage=COST)


@dataclass
class Batch:
    """A run over a number of items, and its results."""

    server: Server
    items: int = 100
    workers: int = 2
    limits: OutageLimits = field(default_factory=lambda: OutageLimits.of(600, 2, stop_on_same_refusal=True))
    transport_retries: int = 4
    store: MemoryStore = field(default_factory=MemoryStore)
    results: list[ItemResult] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tally = Tally(self.items)

    def run(self) -> LlmBatchError | None:
        return run(self._run)

    async def _run(self) -> LlmBatchError | None:
        stopped = asyncio.Event()
        # The fake clients of other tests are a subclass of nothing; what counts is that there is a method ``complete``.
        processor = bench(self.server, None, self.store, stopped, self.transport_retries, outages=Outages(self.limits))
        pool = WorkerPool(
            processor.process,
            self.workers,
            self.tally,
            stopped,
            self.results.append,
            AllClaims(),
            StopRules(),
            processor.calls.outages,
            self.store.save_failure,
        )
        return await pool.process_all(job(number) for number in range(self.items))


def refused(message: str, cause: FailureCause = FailureCause.BAD_REQUEST) -> ItemPermanentError:
    error = ItemPermanentError(cause, f"HTTP 400: {message}")
    error.status = 400
    return error


def fault(status: int | None, retry_after: float | None = None) -> TransientError:
    cause = FailureCause.RATE_LIMITED if status == 429 else FailureCause.SERVER_ERROR
    error = TransientError(cause if status else FailureCause.CONNECTION, f"HTTP {status}: no", retry_after)
    error.status = status
    return error


def after(good: int, make: Callable[[int], Exception]) -> Behaviour:
    """A number of good answers, then only this error, which is made from the item."""

    def behave(number: int, item: int) -> None:
        if number > good:
            raise make(item)

    return behave


# The same refusal.


def test_credit_that_runs_out_stops_the_run_and_fails_no_item() -> None:
    # They differ only in a number, as with LiteLLM's budget and request ids.
    batch = Batch(Server(after(3, lambda item: refused(f"the budget of key '{item}' is spent: {item} dollars"))))
    error = batch.run()
    assert error is not None
    assert error.cause == "same_refusal"  # type: ignore[attr-defined]  # it is a RunPermanentError
    assert "5 items in a row" in str(error)
    assert "is spent" in str(error)
    assert (batch.tally.accepted, batch.tally.failed, batch.store.failures) == (3, 0, [])
    assert len(batch.server.asked) <= 3 + 5 + 1


@pytest.mark.parametrize(("left", "stops"), [(2, False), (3, True), (9, True)])
def test_the_last_items_of_a_run_that_are_all_refused_alike_stay_pending(left: int, stops: bool) -> None:
    batch = Batch(Server(after(3, lambda _: refused("no credit"))), items=3 + left, workers=8)
    batch.limits = OutageLimits.of(600, 8, stop_on_same_refusal=True)
    error = batch.run()
    assert (error is not None) == stops
    assert len(batch.store.failures) == (0 if stops else left)
    assert batch.tally.failed == len(batch.results) - 3


def test_refusals_between_answers_are_the_items_own() -> None:
    def every_third(_: int, item: int) -> None:
        if item % 3 == 0:
            raise refused("the picture cannot be read")

    batch = Batch(Server(every_third))
    assert batch.run() is None
    assert (batch.tally.accepted, batch.tally.failed) == (66, 34)
    assert {failure.cause for failure in batch.store.failures} == {"bad_request"}
    assert {failure.failure_class for failure in batch.store.failures} == {"item_permanent"}


def test_an_answer_to_an_earlier_call_says_nothing_about_a_later_refusal() -> None:
    # A slow answer, begun before the credit ran out, arrives amid the refusals.
    def behave(number: int, _: int) -> None:
        if number > 1:
            raise refused("no credit")

    batch = Batch(Server(behave, seconds=30.0), items=4)
    assert batch.run() is not None
    assert (batch.tally.accepted, batch.tally.failed) == (1, 0)


@pytest.mark.parametrize("cause", [FailureCause.CONTENT_FILTER, FailureCause.CONTEXT_TOO_LONG, FailureCause.REFUSED])
def test_what_a_provider_says_of_an_items_content_is_the_items_own(cause: FailureCause) -> None:
    batch = Batch(Server(after(3, lambda _: refused("no", cause))), items=20)
    assert batch.run() is None
    assert len(batch.store.failures) == 17


def test_different_refusals_stop_a_run_only_if_nothing_was_ever_answered() -> None:
    words = ["ape", "bee", "cat", "dog", "eel", "fox", "gnu", "hen", "ibis", "jay", "koi", "lark"]
    behave = after(0, lambda item: refused(f"a field is not valid for {words[item % 12]}"))
    error = Batch(Server(behave)).run()
    assert error is not None
    assert "the first 10 items were all refused" in str(error)
    behave = after(1, lambda item: refused(f"a field is not valid for {words[item % 12]}"))
    batch = Batch(Server(behave), items=12, workers=1)
    assert batch.run() is None
    assert len(batch.store.failures) == 11


def test_who_knows_better_can_have_each_refusal_recorded() -> None:
    limits = OutageLimits.of(600, 2, stop_on_same_refusal=False)
    batch = Batch(Server(after(3, lambda _: refused("no"))), limits=limits)
    assert batch.run() is None
    assert len(batch.store.failures) == 97


# Servers that answer nobody.


@pytest.mark.parametrize("status", [429, 503, 529])
def test_a_server_that_stays_busy_is_given_up_after_so_long(status: int) -> None:
    batch = Batch(Server(after(3, lambda _: fault(status))), limits=OutageLimits(300))
    error = batch.run()
    assert error is not None
    assert "no call has been answered for 5 minutes (llm.give_up_after)" in str(error)
    assert (batch.tally.accepted, batch.tally.failed, batch.store.failures) == (3, 0, [])
    assert 300 <= batch.server.at[-1] - batch.server.at[3] <= 340
    assert len(batch.server.asked) < 50


def test_a_server_that_is_busy_for_some_minutes_costs_no_item() -> None:
    began: list[float] = []

    def behave(number: int, _: int) -> None:
        now = asyncio.get_running_loop().time()
        began.append(now)
        if number > 3 and now < began[0] + 290:
            raise fault(503, 0)

    batch = Batch(Server(behave), workers=8)
    assert batch.run() is None
    assert batch.tally.accepted == 100
    # A server that says 0 is not called without a pause.
    assert len(batch.server.asked) < 100 + 8 * 25


@pytest.mark.parametrize("status", [None, 500, 502])
@pytest.mark.parametrize("workers", [1, 2, 8])
def test_a_dead_server_gets_a_bounded_number_of_calls_however_many_items_there_are(
    status: int | None, workers: int
) -> None:
    batch = Batch(Server(after(3, lambda _: fault(status))), items=20_000, workers=workers)
    error = batch.run()
    assert error is not None
    assert "Check the server" in str(error)
    assert (batch.tally.accepted, batch.tally.failed, batch.store.failures) == (3, 0, [])
    assert len(batch.server.asked) <= 3 + max(20, 8 * workers)
    assert batch.server.at[-1] - batch.server.at[3] < 65


def test_a_network_that_is_away_for_half_a_minute_costs_no_item() -> None:
    began: list[float] = []

    def behave(_: int, __: int) -> None:
        now = asyncio.get_running_loop().time()
        began.append(now)
        if began[0] + 5 < now < began[0] + 33:
            raise fault(None)

    batch = Batch(Server(behave), workers=8)
    assert batch.run() is None
    assert batch.tally.accepted == 100


def test_a_server_that_fails_on_one_item_fails_that_item_only() -> None:
    def behave(_: int, item: int) -> None:
        if item in (7, 99):
            raise fault(500)

    batch = Batch(Server(behave))
    assert batch.run() is None
    assert (batch.tally.accepted, len(batch.store.failures)) == (98, 2)
    assert len(batch.server.asked) == 98 + 2 * 5


def test_faults_at_random_stop_nothing() -> None:
    def behave(number: int, _: int) -> None:
        if number % 2:
            raise fault(500)

    # Answers are so slow that there is none for half a minute.
    batch = Batch(Server(behave, seconds=60.0), items=60, workers=8)
    assert batch.run() is None
    assert batch.tally.done == 60
    assert batch.tally.accepted > 55


def paid(_: int) -> TransientError:
    error = TransientError(FailureCause.BROKEN_BODY, "the content is not text")
    error.status, error.usage = 200, COST
    return error


def test_replies_that_are_billed_but_hold_no_answer_stop_the_run() -> None:
    batch = Batch(Server(after(3, paid)))
    error = batch.run()
    assert error is not None
    assert "5 items in a row got replies that are billed" in str(error)
    # Each item may have used up its generations.
    assert len(batch.server.asked) <= 3 + 5 * 3


def test_such_a_reply_among_answers_costs_a_generation_of_its_item() -> None:
    def behave(_: int, item: int) -> None:
        if item % 5 == 0:
            raise paid(item)

    batch = Batch(Server(behave), items=50)
    assert batch.run() is None
    assert (batch.tally.accepted, len(batch.server.asked)) == (40, 40 + 3 * 10)


# Servers that are too slow.


def slow(_: int) -> TransientError:
    return TransientError(FailureCause.TIMEOUT, "no answer within 480 s")


@pytest.mark.parametrize("workers", [1, 4])
def test_a_server_that_is_too_slow_gets_few_calls_and_stops_the_run_with_advice(workers: int) -> None:
    batch = Batch(Server(after(0, slow)), workers=workers)
    error = batch.run()
    assert error is not None
    assert "llm.timeout_sec" in str(error)
    assert "llm.max_workers" in str(error)
    assert len(batch.server.asked) <= 3 * max(3, workers) + workers
    # Each time it gets more time.
    assert {request.timeout_factor for request in batch.server.asked} == {1, 2, 4}
    assert (batch.tally.failed, batch.store.failures) == (0, [])


def test_a_gateway_that_waits_in_vain_is_a_timeout() -> None:
    batch = Batch(Server(after(0, lambda _: fault(504))))
    assert "timed out" in str(batch.run())


def test_items_that_time_out_among_others_are_failed_one_by_one() -> None:
    def behave(_: int, item: int) -> None:
        if item % 5 == 0:
            raise slow(item)

    batch = Batch(Server(behave), items=50)
    assert batch.run() is None
    assert (batch.tally.accepted, len(batch.store.failures)) == (40, 10)
    assert {failure.cause for failure in batch.store.failures} == {"timeout"}
    assert len(batch.server.asked) == 40 + 3 * 10


# Limits on failures.


def tally(accepted: int = 0, for_good: int = 0, **causes: int) -> Tally:
    failed = sum(causes.values())
    return Tally(1000, accepted=accepted, failed=failed, failed_permanently=for_good, causes=causes)


@pytest.mark.parametrize(
    ("rules", "stands", "cause"),
    [
        # Hopeless: the first ten failed permanently with the same cause, and none was accepted.
        (StopRules(), tally(for_good=9, bad_request=9), None),
        (StopRules(), tally(for_good=10, bad_request=10), "hopeless"),
        (StopRules(), tally(1, for_good=10, bad_request=10), None),
        (StopRules(), tally(for_good=10, bad_request=5, refused=5), None),
        (StopRules(), tally(for_good=0, not_json=50), None),
        # A number of failures.
        (StopRules(max_failures=3), tally(5, not_json=2), None),
        (StopRules(max_failures=3), tally(5, not_json=2, cut_off=1), "too_many_failures"),
        # A share of them, once there are enough to tell.
        (StopRules(max_failure_rate=0.5), tally(0, not_json=19), None),
        (StopRules(max_failure_rate=0.5), tally(10, not_json=10), None),
        (StopRules(max_failure_rate=0.5), tally(9, not_json=11), "too_many_failures"),
    ],
)
def test_a_run_stops_where_its_rules_say(rules: StopRules, stands: Tally, cause: str | None) -> None:
    broken = rules.error_for(stands)
    assert (broken and broken.cause) == cause


def test_a_stop_tells_counts_and_causes() -> None:
    broken = StopRules(max_failures=3).error_for(tally(5, not_json=2, cut_off=1))
    assert str(broken) == "3 items failed (2 not_json, 1 cut_off); llm.max_failures is 3"
