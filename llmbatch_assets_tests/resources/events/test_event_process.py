"""Events stored by a process of their own are the same ones, and none is lost with it.

Most tests use our storage, which is fast, although runs start a process for other storages only.
"""

import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from threading import Timer
from typing import Any

import dagster as dg
import psutil
import pytest
from dagster._serdes import serialize_value

from llmbatch_assets.adapters.files.pipe import child_command, pack_frame
from llmbatch_assets.domain.items.work import WorkItem
from llmbatch_assets.domain.outcome import AcceptedOutput
from llmbatch_assets.domain.usage import TokenUsage
from llmbatch_assets.resources.events import event_process, partition_events
from llmbatch_assets.resources.events.event_process import GROUPS_BEHIND, EventProcess, store_events
from llmbatch_assets.resources.events.item_events import ItemEvent, MaterializedEvent
from llmbatch_assets.resources.events.partition_events import EVENTS_PER_GROUP, PartitionEvents
from llmbatch_assets_tests.event_history import DEFAULT, OURS, write_settings
from llmbatch_assets_tests.own_processes import running

PARTITIONS = dg.DynamicPartitionsDefinition(name="work_items")
OUTPUT = AcceptedOutput(
    meta={"cache_id": "c1", "attempt_outer": 1, "model": "test-model"},
    parsed={"answer": "```schräg\ud83d\ude00```"},
    judge={"verdict": "PASS", "score": 90},
    usage=TokenUsage(requests=1, input_tokens=10, output_tokens=5),
    latency_sec=0.5,
)
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
FOLDER = PurePosixPath("artifacts/cache/llm_outputs")
MANY = 3 * EVENTS_PER_GROUP + 7


@pytest.fixture
def instance(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dg.DagsterInstance]:
    """An instance on disk, which another process can open."""
    write_settings(tmp_path, getattr(request, "param", OURS))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setattr(partition_events, "MIN_EVENTS_FOR_PROCESS", 1)
    monkeypatch.setattr(partition_events, "FAST_STORAGES", ())
    with dg.DagsterInstance.from_config(str(tmp_path)) as opened:
        yield opened


def item(number: int) -> WorkItem:
    return WorkItem(f"w{number}", f"red-{number}", "red", number, None, "How tall?", {})


def keys(count: int) -> set[str]:
    return {item(number).partition_key for number in range(count)}


def made_in(instance: dg.DagsterInstance) -> set[str]:
    return instance.get_materialized_partitions(dg.AssetKey("told"))


def run(instance: dg.DagsterInstance, work: Any) -> dg.ExecuteInProcessResult:
    """A run of one asset, whose body is given its events."""

    @dg.asset(partitions_def=PARTITIONS, output_required=False)
    def told(context: dg.AssetExecutionContext) -> Any:
        versions = {"dagster/code_version": "c"}
        with PartitionEvents(context.op_execution_context, context.asset_key, PARTITIONS, FOLDER, versions) as events:
            work(events)
        yield from ()

    job = dg.Definitions(assets=[told], jobs=[dg.define_asset_job("job", [told])]).resolve_job_def("job")
    return job.execute_in_process(instance=instance, run_config=QUIET, raise_on_error=False)


def children() -> list[psutil.Process]:
    """The processes that store events for this one."""
    return running(event_process)


@pytest.mark.parametrize("instance", [OURS, DEFAULT], ids=["ours", "default"], indirect=True)
def test_another_process_stores_to_the_letter_the_same(instance: dg.DagsterInstance) -> None:
    def work(events: PartitionEvents) -> None:
        events.add_materialized(item(0), OUTPUT, hit=False)
        with events.in_child_process(MANY):
            events.add_materialized(item(1), OUTPUT, hit=False)
            (process,) = children()
        assert not process.is_running()
        # All of them are there when the block ends.
        assert set(events.output_versions()) == keys(2)

    assert run(instance, work).success
    newer, older = instance.fetch_materializations(dg.AssetKey("told"), limit=5).records
    assert (newer.partition_key, older.partition_key) == ("red-1", "red-0")
    ours, theirs = (record.event_log_entry._asdict() for record in (older, newer))
    assert 0 < ours.pop("timestamp") < theirs.pop("timestamp")
    row = ("| Row | 1 (row_index 0) |", "| Row | 2 (row_index 1) |")
    assert row[0] in str(ours)
    assert str(ours).replace("red-0", "red-1").replace(*row) == str(theirs)
    # Whoever follows the run finds them among its own events, too.
    logged = instance.all_logs(newer.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
    assert [entry.get_dagster_event().partition for entry in logged] == ["red-0", "red-1"]


def test_they_are_stored_while_others_are_still_told_of(instance: dg.DagsterInstance) -> None:
    def work(events: PartitionEvents) -> None:
        with events.in_child_process(MANY):
            for number in range(MANY):
                events.add_materialized(item(number), OUTPUT, hit=False)
            deadline = time.monotonic() + 60
            while len(made_in(instance)) < MANY - MANY % EVENTS_PER_GROUP:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert len(made_in(instance)) < MANY
        assert made_in(instance) == keys(MANY)

    assert run(instance, work).success


@pytest.mark.parametrize("at", [0, EVENTS_PER_GROUP, MANY - 1])
def test_a_process_that_is_killed_takes_no_event_along(instance: dg.DagsterInstance, at: int) -> None:
    def work(events: PartitionEvents) -> None:
        with events.in_child_process(MANY):
            for number in range(MANY):
                if number == at:
                    (process,) = children()
                    process.kill()
                events.add_materialized(item(number), OUTPUT, hit=False)

    assert run(instance, work).success
    assert made_in(instance) == keys(MANY)


def test_a_run_that_breaks_off_leaves_the_events_of_what_was_accepted(instance: dg.DagsterInstance) -> None:
    def work(events: PartitionEvents) -> None:
        with events.in_child_process(MANY):
            events.add_materialized(item(0), OUTPUT, hit=False)
            raise dg.Failure("on purpose", allow_retries=False)

    assert not run(instance, work).success
    assert made_in(instance) == keys(1)
    assert children() == []


def test_a_signal_at_the_end_waits_until_everything_is_stored(instance: dg.DagsterInstance) -> None:
    def work(events: PartitionEvents) -> None:
        with events.in_child_process(MANY):
            for number in range(MANY):
                events.add_materialized(item(number), OUTPUT, hit=False)
            (process,) = children()
            process.suspend()
            # To this process alone, as a terminal sends it: the other one is in a session of its own.
            assert os.getsid(process.pid) == process.pid
            Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
            # What it had not stored is left to do here, after the signal.
            Timer(0.6, process.kill).start()
        raise AssertionError("the signal ends the run")

    result = run(instance, work)
    assert not result.success
    assert "DagsterExecutionInterruptedError" in str([event.event_specific_data for event in result.all_events])
    assert made_in(instance) == keys(MANY)
    assert children() == []


def test_only_many_events_for_a_slow_storage_on_disk_need_a_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partition_events, "MIN_EVENTS_FOR_PROCESS", 2)

    def processes_of(instance: dg.DagsterInstance, expected: int) -> int:
        found: list[int] = []

        def work(events: PartitionEvents) -> None:
            with events.in_child_process(expected):
                events.add_materialized(item(0), OUTPUT, hit=False)
                found.append(len(children()))

        assert run(instance, work).success
        return found[0]

    with dg.DagsterInstance.ephemeral() as in_memory:
        assert processes_of(in_memory, 2) == 0
    with dg.instance_for_test() as slow:
        assert [processes_of(slow, expected) for expected in (1, 2)] == [0, 1]
    write_settings(tmp_path, OURS)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with dg.DagsterInstance.from_config(str(tmp_path)) as fast:
        assert processes_of(fast, 2) == 0


NOISY = """
from llmbatch_assets.resources.sqlite_storage import BatchingSqliteStorage

print("a line of a library", flush=True)


class NoisyStorage(BatchingSqliteStorage):
    pass
"""


def test_a_storage_of_ones_own_is_found_where_this_process_finds_it_and_may_print(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "noisy_storage.py").write_text(NOISY)
    # Not to be taken for Python's own, as it was when this process imported that.
    (tmp_path / "secrets.py").write_text("1 / 0")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    own = {"module": "noisy_storage", "class": "NoisyStorage", "config": {"base_dir": str(tmp_path)}}
    write_settings(tmp_path, {"custom": own})
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        rig = Rig(instance)
        rig.process.store([rig.event(0)])
        rig.process.close()
        assert rig.here == []
        assert made_in(instance) == keys(1)


class Rig:
    """A process of an instance, and what came back to be stored here."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self.instance, self.here, self.full = instance, list[str](), False

        def work(events: PartitionEvents) -> None:
            self.teller = events._origin

        assert run(instance, work).success
        self.process = EventProcess(instance.get_ref(), self.teller, self.store_here)

    def store_here(self, group: Sequence[ItemEvent]) -> None:
        if self.full:
            raise OSError("no space left")
        self.here += [event.item.partition_key for event in group if isinstance(event, MaterializedEvent)]
        store_events(self.instance, self.teller, group)

    def event(self, number: int) -> MaterializedEvent:
        return MaterializedEvent(item(number), OUTPUT, OUTPUT.usage, hit=False, at=time.time())


def test_what_it_cannot_store_comes_back_in_its_order_and_is_not_forgotten(instance: dg.DagsterInstance) -> None:
    rig = Rig(instance)
    rig.full = True
    (child,) = children()
    child.kill()
    child.wait(10)
    rig.process.store([rig.event(0)])
    assert rig.process._sent[0].answer.exception(20) is not None
    # The fault of a former group is told when the next one is to be taken.
    with pytest.raises(OSError, match="no space"):
        rig.process.store([])
    rig.full = False
    rig.process.store([rig.event(1)])
    rig.process.close()
    assert rig.here == ["red-0", "red-1"]
    assert made_in(instance) == keys(2)


def test_a_fault_of_the_storage_is_the_groups_own(instance: dg.DagsterInstance) -> None:
    rig = Rig(instance)
    good, bad = rig.event(0), rig.event(1)._replace(output=OUTPUT.model_copy(update={"meta": {}}))
    rig.process.store([bad])
    with pytest.raises(KeyError, match="attempt_outer"):
        rig.process.close()
    rig = Rig(instance)
    rig.process.store([good])
    rig.process.close()
    assert rig.here == []
    assert made_in(instance) == keys(1)


def test_what_cannot_be_handed_over_is_stored_here(instance: dg.DagsterInstance) -> None:
    class Local(dict[str, Any]):
        """Cannot be pickled."""

    rig = Rig(instance)
    rig.process.store([rig.event(0)._replace(output=OUTPUT.model_copy(update={"parsed": Local()}))])
    rig.process.store([rig.event(1)])
    rig.process.close()
    assert rig.here == ["red-0"]
    assert made_in(instance) == keys(2)


def test_a_process_that_falls_behind_is_waited_for(instance: dg.DagsterInstance) -> None:
    rig = Rig(instance)
    (child,) = children()
    child.suspend()
    groups = [[rig.event(number)] for number in range(GROUPS_BEHIND + 1)]
    for group in groups:
        rig.process.store(group)
    with pytest.raises(TimeoutError):
        rig.process._sent[0].answer.result(0.2)
    child.resume()
    rig.process.store([rig.event(GROUPS_BEHIND + 1)])
    assert rig.process._sent[0].group is not groups[0]
    rig.process.close()
    assert rig.here == []
    assert made_in(instance) == keys(GROUPS_BEHIND + 2)


def test_a_process_whose_input_ends_in_the_middle_of_a_group_ends_without_a_word(instance: dg.DagsterInstance) -> None:
    # As when the other process is killed: what is larger than a pipe gets there in pieces.
    rig = Rig(instance)
    rig.process.close()
    told = pack_frame((serialize_value(instance.get_ref()), rig.teller)) + pack_frame([rig.event(0)])[:-1]
    ended = subprocess.run(child_command(event_process.__name__), input=told, capture_output=True, check=True)
    assert (ended.stdout, ended.stderr) == (b"", b"")
    assert made_in(instance) == set()


KILLED = """
    import os, pickle, signal, sys
    from dagster import DagsterInstance
    from llmbatch_assets.resources.events.event_process import EventProcess

    teller, groups = pickle.load(sys.stdin.buffer)
    process = EventProcess(DagsterInstance.get().get_ref(), teller, print)
    for group in groups:
        process.store(group)
    # Handed over, be it not stored yet.
    process._sent[-2].answer.result()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_run_leaves_no_process_behind(instance: dg.DagsterInstance) -> None:
    rig = Rig(instance)
    rig.process.close()
    groups = [[rig.event(number)] for number in range(5)]
    told = pickle.dumps((rig.teller, groups))
    command = [sys.executable, "-c", textwrap.dedent(KILLED)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as killed:
        # The pipe of its complaints is closed once nobody holds it any more: neither it nor its process.
        _, complaints = killed.communicate(told, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert complaints == b""
    assert keys(4) <= made_in(instance)
