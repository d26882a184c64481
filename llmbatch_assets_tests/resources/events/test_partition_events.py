"""The events that a run writes itself equal those that Dagster would have written."""

import asyncio
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import Any

import dagster as dg
import pytest
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.events.log import EventLogEntry

from llmbatch_assets.domain.items.work import WorkItem
from llmbatch_assets.domain.outcome import AcceptedOutput
from llmbatch_assets.domain.usage import TokenUsage
from llmbatch_assets.errors import RunPermanentError, StopCause
from llmbatch_assets.resources.events.partition_events import (
    EVENTS_PER_GROUP,
    MAX_DELAY_SEC,
    EventGroups,
    PartitionEvents,
)
from llmbatch_assets_tests.event_history import MATERIALIZATION, event

PARTITIONS = dg.DynamicPartitionsDefinition(name="work_items")
ITEM = WorkItem("w1", "red-1", "red", 0, None, "How tall?", {})
OUTPUT = AcceptedOutput(
    meta={"cache_id": "c1", "attempt_outer": 1, "model": "test-model"},
    parsed={"answer": "```tall```"},
    judge={"verdict": "PASS", "score": 90},
    usage=TokenUsage(requests=1, input_tokens=10, output_tokens=5),
    latency_sec=0.5,
)
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def events_of(context: dg.AssetExecutionContext) -> PartitionEvents:
    folder = PurePosixPath("artifacts/cache/llm_outputs")
    return PartitionEvents(
        context.op_execution_context, context.asset_key, PARTITIONS, folder, {"dagster/code_version": "c"}
    )


@dg.asset(partitions_def=PARTITIONS, output_required=False)
def told_twice(context: dg.AssetExecutionContext) -> Any:
    """One materialization our way, and the same one Dagster's way."""
    with events_of(context) as events:
        events.add_materialized(ITEM, OUTPUT, hit=False)
    (record,) = context.instance.fetch_materializations(context.asset_key, limit=5).records
    assert record.asset_materialization is not None
    context.log_event(record.asset_materialization)
    yield from ()


@dg.asset(partitions_def=PARTITIONS, output_required=False)
def breaks_off(context: dg.AssetExecutionContext) -> Any:
    """A run that ends in the middle."""
    with events_of(context) as events:
        events.add_materialized(ITEM, OUTPUT, hit=True)
        raise dg.Failure("on purpose", allow_retries=False)
    yield from ()


def run(asset: dg.AssetsDefinition, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    job = dg.Definitions(assets=[asset], jobs=[dg.define_asset_job("job", [asset])]).resolve_job_def("job")
    return job.execute_in_process(instance=instance, run_config=QUIET, raise_on_error=False)


def plain(entry: EventLogEntry) -> dict[str, Any]:
    """An entry without its time."""
    told = entry._asdict()
    assert told.pop("timestamp") > 0
    return told


def test_a_materialization_is_to_the_letter_what_dagster_logs(instance: dg.DagsterInstance) -> None:
    run_id = run(told_twice, instance).run_id
    ours, dagsters = (
        entry
        for entry in instance.all_logs(run_id)
        if entry.dagster_event_type is dg.DagsterEventType.ASSET_MATERIALIZATION
    )
    assert plain(ours) == plain(dagsters)


def test_a_planned_event_of_a_failed_key_is_to_the_letter_what_a_run_plans(
    instance: dg.DagsterInstance,
) -> None:
    @dg.asset(partitions_def=PARTITIONS, output_required=False)
    def fails(context: dg.AssetExecutionContext) -> Any:
        with events_of(context) as events:
            events.add_failed(["red-1"])
        raise dg.Failure("on purpose", allow_retries=False)
        yield

    instance.add_dynamic_partitions("work_items", ["red-1"])
    job = dg.Definitions(assets=[fails], jobs=[dg.define_asset_job("job", [fails])]).resolve_job_def("job")
    result = job.execute_in_process(instance=instance, run_config=QUIET, raise_on_error=False, partition_key="red-1")
    planned = dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED
    dagsters, ours = (entry for entry in instance.all_logs(result.run_id) if entry.dagster_event_type is planned)
    assert plain(ours) == plain(dagsters)


def test_a_run_that_breaks_off_leaves_the_events_of_what_was_accepted(instance: dg.DagsterInstance) -> None:
    assert not run(breaks_off, instance).success
    (record,) = instance.fetch_materializations(breaks_off.key, limit=5).records
    assert record.partition_key == ITEM.partition_key


@pytest.mark.parametrize("count", [0, 3])
def test_events_come_in_one_batch(instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    batches: list[int] = []

    @dg.asset(partitions_def=PARTITIONS, output_required=False)
    def accepts(context: dg.AssetExecutionContext) -> Any:
        storage = context.instance.event_log_storage
        monkeypatch.setattr(storage, "store_event_batch", lambda events: batches.append(len(events)))
        with events_of(context) as events:
            for _ in range(count):
                events.add_materialized(ITEM, OUTPUT, hit=False)
        yield from ()

    assert run(accepts, instance).success
    assert batches == ([count] if count else [])


Stored = list[list[EventLogEntry]]


def events(count: int) -> list[EventLogEntry]:
    return [event(MATERIALIZATION, "run", number, str(number)) for number in range(count)]


def stores_in(stored: Stored) -> Callable[[Sequence[EventLogEntry]], None]:
    return lambda batch: stored.append(list(batch))


def test_a_full_group_is_stored_at_once_and_the_rest_when_asked() -> None:
    stored: Stored = []
    groups, told = EventGroups(stores_in(stored)), events(2 * EVENTS_PER_GROUP + 1)
    for one in told:
        groups.add(one)
    assert [len(batch) for batch in stored] == [EVENTS_PER_GROUP, EVENTS_PER_GROUP]
    groups.flush()
    groups.flush()
    assert [one for batch in stored for one in batch] == told
    assert len(stored) == 3


def test_a_lone_event_waits_only_so_long_while_others_are_worked_on() -> None:
    stored, came = Stored(), asyncio.Event()

    def store(batch: Sequence[EventLogEntry]) -> None:
        stored.append(list(batch))
        came.set()

    groups, (first, second, third) = EventGroups(store), events(3)

    async def work() -> None:
        groups.add(first)
        groups.add(second)
        assert stored == []
        await asyncio.wait_for(came.wait(), 20 + MAX_DELAY_SEC)
        groups.add(third)

    asyncio.run(work())
    # The loop is over before the third one's time; the end of the run asks for it.
    assert stored == [[first, second]]
    groups.flush()
    assert stored == [[first, second], [third]]


def test_what_could_not_be_stored_is_stored_with_the_next_ones() -> None:
    stored, full = Stored(), True

    def store(batch: Sequence[EventLogEntry]) -> None:
        if full:
            raise OSError("no space left")
        stored.append(list(batch))

    groups, (first, second) = EventGroups(store), events(2)
    groups.add(first)
    with pytest.raises(OSError, match="no space"):
        groups.flush()
    full = False
    groups.add(second)
    groups.flush()
    assert stored == [[first, second]]


def test_a_storage_that_is_away_is_tried_once_while_calls_are_in_flight_and_again_at_the_end() -> None:
    stored, tries, tried, away = Stored(), list[int](), asyncio.Event(), True

    def store(batch: Sequence[EventLogEntry]) -> None:
        tries.append(len(batch))
        tried.set()
        if away:
            raise RunPermanentError(StopCause.DAGSTER_STORAGE, "away")
        stored.append(list(batch))

    groups, told = EventGroups(store), events(EVENTS_PER_GROUP + 2)

    async def work() -> None:
        # Found out by the one that waited longest, and told to whoever comes next.
        groups.add(told[0])
        await asyncio.wait_for(tried.wait(), 20 + MAX_DELAY_SEC)
        for one in told[1:]:
            with pytest.raises(RunPermanentError, match="away"):
                groups.add(one)

    asyncio.run(work())
    assert tries == [1]
    away = False
    groups.flush()
    assert stored == [told]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_until_the_group_is_stored(number: signal.Signals) -> None:
    stored: Stored = []

    def store(batch: Sequence[EventLogEntry]) -> None:
        os.kill(os.getpid(), number)
        stored.append(list(batch))

    def interrupt(_number: int, _frame: object) -> None:
        raise DagsterExecutionInterruptedError

    before = signal.signal(number, interrupt)
    groups, told = EventGroups(store), events(3)
    for one in told:
        groups.add(one)
    try:
        with pytest.raises(DagsterExecutionInterruptedError):
            groups.flush()
    finally:
        signal.signal(number, before)
    assert stored == [told]
    groups.flush()
    assert len(stored) == 1
