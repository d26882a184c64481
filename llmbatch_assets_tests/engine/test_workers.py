"""All items: so many at once, none twice, none after the end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbatch_assets.domain.outcome import ItemResult
from llmbatch_assets.domain.run.progress import Tally
from llmbatch_assets.domain.usage import TokenUsage
from llmbatch_assets.engine.attempt import ItemTask
from llmbatch_assets.engine.stops import Outages, StopRules
from llmbatch_assets.engine.workers import WorkerPool
from llmbatch_assets.errors import LlmBatchError, RunPermanentError, StopCause
from llmbatch_assets_tests.domain.strategies import make_failure, make_item, make_output, quick
from llmbatch_assets_tests.engine.fakes import COST, GOOD, AllClaims, MemoryStore, ScriptedClient, bench, job, run


class Workshop:
    """Work that takes a second an item, and remembers what went on. An item number may be set to fail."""

    def __init__(self, total: int, workers: int = 3, seconds: float = 1.0, **faults: Exception | str) -> None:
        self.faults = {int(name.removeprefix("item_")): fault for name, fault in faults.items()}
        self.seconds = seconds
        self.made: list[int] = []
        self.begun: list[int] = []
        self.ended: list[int] = []
        self.most_at_once = 0
        self.tally = Tally(total)
        self.results: list[ItemResult] = []
        self.batch = WorkerPool(
            self.work_on,
            workers,
            self.tally,
            asyncio.Event(),
            self.results.append,
            AllClaims(),
            StopRules(),
            Outages(),
            MemoryStore().save_failure,
        )

    def jobs(self) -> Iterator[ItemTask]:
        for number in range(self.tally.total):
            self.made.append(number)
            yield job(number)

    async def work_on(self, one: ItemTask) -> ItemResult:
        number = one.item.row_index or 0
        self.begun.append(number)
        self.most_at_once = max(self.most_at_once, self.tally.in_flight)
        # What is to come is not made before somebody is free for it.
        assert len(self.made) <= len(self.ended) + self.batch.max_workers
        fault = self.faults.get(number)
        if isinstance(fault, Exception):
            raise fault
        await asyncio.sleep(self.seconds)
        self.ended.append(number)
        if fault is not None:
            return ItemResult(one.item, 3, COST, failed=make_failure(one.item, fault))
        return ItemResult(one.item, 1, COST, accepted=make_output(one.item))

    def run(self) -> LlmBatchError | None:
        return run(lambda: self.batch.process_all(self.jobs()))


async def timed(work: Awaitable[object]) -> float:
    """For how many seconds the work went on, by the loop's clock."""
    clock = asyncio.get_running_loop().time
    begun = clock()
    await work
    return clock() - begun


@quick
@given(st.integers(0, 12), st.integers(1, 15))
def test_every_job_is_done_once_by_no_more_workers_than_allowed(total: int, workers: int) -> None:
    shop = Workshop(total, workers)
    assert shop.run() is None
    assert shop.begun == list(range(total))
    assert sorted(shop.ended) == shop.begun
    assert shop.most_at_once == min(total, workers)
    assert (shop.tally.done, shop.tally.accepted, shop.tally.in_flight) == (total, total, 0)
    assert shop.tally.usage.usage == TokenUsage(requests=total, input_tokens=7 * total, output_tokens=2 * total)


def test_items_that_fail_are_counted_by_cause_and_stop_nobody() -> None:
    shop = Workshop(5, item_0="not_json", item_2="refused", item_3="not_json")
    assert shop.run() is None
    assert (shop.tally.accepted, shop.tally.failed, shop.tally.done) == (2, 3, 5)
    assert shop.tally.causes == {"not_json": 2, "refused": 1}
    assert len(shop.results) == 5


def test_each_result_is_told_as_soon_as_it_is_there() -> None:
    told: list[tuple[int | None, int]] = []
    pauses = {0: 3.0, 1: 1.0, 2: 2.0}

    async def work_on(one: ItemTask) -> ItemResult:
        await asyncio.sleep(pauses[one.item.row_index or 0])
        return ItemResult(one.item, 1, COST, accepted=make_output(one.item))

    tally = Tally(3)
    batch = WorkerPool(
        work_on,
        3,
        tally,
        asyncio.Event(),
        lambda result: told.append((result.item.row_index, tally.accepted)),
        AllClaims(),
        StopRules(),
        Outages(),
        MemoryStore().save_failure,
    )
    run(lambda: batch.process_all(job(number) for number in range(3)))
    assert told == [(1, 1), (2, 2), (0, 3)]


def test_a_fault_of_the_whole_run_lets_nothing_begin_and_what_was_begun_end() -> None:
    fault = RunPermanentError(StopCause.NO_KEY, "no key")
    shop = Workshop(20, 3, item_1=fault)
    assert shop.run() is fault
    assert shop.batch.stopped.is_set()
    assert shop.begun == [0, 1]
    assert shop.ended == [0]
    assert (shop.tally.accepted, shop.tally.failed, shop.tally.in_flight) == (1, 0, 0)


def test_a_call_that_gets_no_answer_holds_up_the_end_for_so_long_and_no_longer() -> None:
    fault = RunPermanentError(StopCause.NO_QUOTA, "no quota")
    shop = Workshop(20, 3, seconds=1000.0, item_1=fault)
    begun = time.monotonic()
    assert run(lambda: timed(shop.batch.process_all(shop.jobs()))) == pytest.approx(20.0)
    assert time.monotonic() - begun < 5
    assert shop.batch.error is fault
    assert shop.ended == []
    assert (shop.tally.done, shop.tally.in_flight) == (0, 0)


@pytest.mark.parametrize("cause", [StopCause.BUDGET, StopCause.TOO_MANY_FAILURES])
def test_when_a_run_ends_itself_every_answer_in_flight_is_waited_for(cause: StopCause) -> None:
    shop = Workshop(20, 3, seconds=1000.0, item_1=RunPermanentError(cause, "enough"))
    shop.run()
    assert shop.ended == [0]


def test_the_first_fault_is_the_one_that_is_told() -> None:
    first, second = RunPermanentError(StopCause.NO_KEY, "first"), RunPermanentError(StopCause.STOPPED, "second")

    async def work_on(one: ItemTask) -> ItemResult:
        await asyncio.sleep(one.item.row_index or 0)
        raise second if one.item.row_index else first

    batch = WorkerPool(
        work_on,
        2,
        Tally(2),
        asyncio.Event(),
        lambda _: None,
        AllClaims(),
        StopRules(),
        Outages(),
        MemoryStore().save_failure,
    )
    assert run(lambda: batch.process_all(job(number) for number in range(2))) is first


def test_a_disk_that_is_full_ends_the_run_with_what_is_done() -> None:
    shop = Workshop(9, 1, item_2=OSError(28, "No space left on device"))
    fault = shop.run()
    assert isinstance(fault, RunPermanentError)
    assert "No space left on device" in str(fault)
    assert shop.ended == [0, 1]


def test_a_fault_of_whoever_is_told_lets_nothing_begin_and_is_told_what_was_begun() -> None:
    fault = RunPermanentError(StopCause.DAGSTER_STORAGE, "away")
    shop = Workshop(20, 3)

    def told(result: ItemResult) -> None:
        shop.results.append(result)
        if shop.tally.done >= 3:
            raise fault

    shop.batch.on_result = told
    assert shop.run() is fault
    assert sorted(shop.ended) == shop.begun
    assert len(shop.begun) < 7
    assert len(shop.results) == shop.tally.accepted == len(shop.ended)


def test_a_slip_of_our_own_is_not_swallowed() -> None:
    shop = Workshop(9, 2, item_1=ZeroDivisionError("ours"))
    with pytest.raises(ExceptionGroup) as raised:
        shop.run()
    assert raised.group_contains(ZeroDivisionError, match="ours")
    assert shop.tally.in_flight == 0


def test_a_run_that_is_stopped_from_outside_begins_nothing_more() -> None:
    shop = Workshop(9, 2)

    async def stopped_after_a_while() -> LlmBatchError | None:
        running = asyncio.ensure_future(shop.batch.process_all(shop.jobs()))
        await asyncio.sleep(1.5)
        shop.batch.stopped.set()
        return await running

    assert run(stopped_after_a_while) is None
    assert shop.begun == shop.ended == [0, 1, 2, 3]


def test_one_worker_keeps_the_order() -> None:
    shop = Workshop(6, 1)
    shop.run()
    assert shop.ended == list(range(6))


def test_many_workers_take_no_longer_than_the_work_divided() -> None:
    async def seconds(shop: Workshop) -> float:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        await shop.batch.process_all(shop.jobs())
        return loop.time() - begun

    assert run(lambda: seconds(Workshop(20, 5))) == pytest.approx(4, abs=0.01)
    assert run(lambda: seconds(Workshop(20, 1))) == pytest.approx(20, abs=0.01)


def test_a_batch_of_real_items_ends_with_all_of_them_on_disk() -> None:
    store, client = MemoryStore(), ScriptedClient("no", GOOD)
    workbench = bench(client, store=store)
    tally, results = Tally(10), list[ItemResult]()
    calls = workbench.calls
    batch = WorkerPool(
        workbench.process,
        4,
        tally,
        calls.stopped,
        results.append,
        AllClaims(),
        StopRules(),
        calls.outages,
        store.save_failure,
    )
    assert run(lambda: batch.process_all(job(number) for number in range(10))) is None
    expected = {workbench.source.identity.cache_id(make_item(number).work_id) for number in range(10)}
    assert set(store.accepted) == expected
    assert (tally.accepted, len(results), len(store.failures)) == (10, 10, 1)
    assert tally.usage.requests == len(client.asked) == 11
