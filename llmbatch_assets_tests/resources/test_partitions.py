"""The registered partitions of a batch, while nothing targets them and while a backfill or a run does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.assets.graph.asset_graph_subset import AssetGraphSubset
from dagster._core.execution.asset_backfill import AssetBackfillData
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.test_utils import create_run_for_test
from dagster._time import get_current_timestamp

from llmbatch_assets.assets.names import Names
from llmbatch_assets.resources.partitions import KEYS_AT_ONCE, RETIRED_VERSION, ItemPartitions
from llmbatch_assets_tests.event_history import POSTGRES, write_settings
from llmbatch_assets_tests.postgres_server import new_database

OUTPUTS, ITEMS = dg.AssetKey("llm_outputs"), dg.AssetKey("work_items")
KEYS = ["a", "b", "c"]
RUN = dg.DagsterRun(job_name="prepare", run_id="of-backfill", tags={"dagster/backfill": "backfill"})


def partitions_of(instance: dg.DagsterInstance) -> ItemPartitions:
    return ItemPartitions(instance, OUTPUTS, ITEMS, "work_items")


def launch_backfill(
    instance: dg.DagsterInstance,
    keys: Sequence[str],
    selection: Sequence[dg.AssetKey] = (ITEMS, OUTPUTS),
    asset: dg.AssetKey = OUTPUTS,
) -> PartitionBackfill:
    """A backfill of the keys and what is before them, as Materialize all launches one."""
    definition = dg.DynamicPartitionsDefinition(name="work_items")
    subset = definition.empty_subset().with_partition_keys(keys)
    target = AssetGraphSubset(  # type: ignore[call-arg]  # both arguments have defaults
        partitions_subsets_by_asset_key={asset: subset}, non_partitioned_asset_keys={dg.AssetKey("work_items")}
    )
    now = get_current_timestamp()
    backfill = PartitionBackfill(
        backfill_id="backfill",
        status=BulkActionStatus.REQUESTED,
        from_failure=False,
        tags={},
        backfill_timestamp=now,
        asset_selection=selection,
        asset_backfill_data=AssetBackfillData.empty(target, now, instance),
    )
    instance.add_backfill(backfill)
    return backfill


def end(instance: dg.DagsterInstance, backfill: PartitionBackfill) -> None:
    ended = backfill.with_status(BulkActionStatus.COMPLETED_SUCCESS)  # type: ignore[no-untyped-call]
    instance.update_backfill(ended)


def test_partitions_become_exactly_the_keys_in_their_order(instance: dg.DagsterInstance) -> None:
    other = Names("second").partitions.name
    assert other is not None
    ItemPartitions(instance, dg.AssetKey("outputs"), ITEMS, other).sync(["mine"])
    partitions = partitions_of(instance)

    # From, to, added, removed.
    for keys, counts in [
        ([], (0, 0)),
        (["c", "a", "b"], (3, 0)),
        (["c", "a", "b"], (0, 0)),
        (["b", "c", "a"], (0, 0)),
        (["new", "b", "x, y / ü"], (2, 2)),
        ([], (0, 3)),
    ]:
        assert partitions.sync(keys) == (*counts, 0)
        assert sorted(instance.get_dynamic_partitions("work_items")) == sorted(keys)
    assert partitions.sync(["c", "a", "b"]) == (3, 0, 0)
    assert list(instance.get_dynamic_partitions("work_items")) == ["c", "a", "b"]
    # Those of another batch are not ours.
    assert list(instance.get_dynamic_partitions("second__work_items")) == ["mine"]


def test_many_partitions_are_added_in_statements_that_a_database_takes(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    add, sizes = instance.add_dynamic_partitions, list[int]()

    def counted(name: str, keys: Sequence[str]) -> None:
        sizes.append(len(keys))
        add(name, keys)

    monkeypatch.setattr(instance, "add_dynamic_partitions", counted)
    keys = [f"item-{number}" for number in range(2 * KEYS_AT_ONCE + 1)]
    partitions = partitions_of(instance)

    assert partitions.sync(keys) == (len(keys), 0, 0)

    assert sizes == [KEYS_AT_ONCE, KEYS_AT_ONCE, 1]
    assert list(instance.get_dynamic_partitions("work_items")) == keys
    assert partitions.sync(keys) == (0, 0, 0)
    assert len(sizes) == 3


def test_keys_stay_while_a_backfill_targets_them(instance: dg.DagsterInstance) -> None:
    partitions = partitions_of(instance)
    partitions.sync(KEYS)
    backfill = launch_backfill(instance, KEYS)
    assert partitions.sync(["a", "new"]) == (1, 0, 2)
    assert instance.get_dynamic_partitions("work_items") == ["a", "b", "c", "new"]
    assert partitions.has_retired
    end(instance, backfill)
    assert partitions.sync(["a", "new"]) == (0, 2, 0)
    assert instance.get_dynamic_partitions("work_items") == ["a", "new"]
    assert not partitions.has_retired


@pytest.mark.parametrize("tag", ["dagster/partition", "dagster/asset_partition_range_start"])
def test_keys_stay_while_a_run_targets_them(instance: dg.DagsterInstance, tag: str) -> None:
    partitions = partitions_of(instance)
    partitions.sync(KEYS)
    run = create_run_for_test(instance, asset_selection={OUTPUTS}, tags={tag: "c"}, status=dg.DagsterRunStatus.STARTED)
    assert partitions.sync(KEYS[:2]) == (0, 0, 1)
    instance.report_run_canceled(run)
    assert partitions.sync(KEYS[:2]) == (0, 1, 0)


def test_a_backfill_of_a_downstream_asset_holds_its_keys(instance: dg.DagsterInstance) -> None:
    partitions = partitions_of(instance)
    partitions.sync(KEYS)
    backfill = launch_backfill(instance, KEYS, asset=dg.AssetKey("notification"))
    assert partitions.sync(KEYS[:2]) == (0, 0, 1)
    end(instance, backfill)
    assert partitions.sync(KEYS[:2]) == (0, 1, 0)


def test_runs_of_other_partitions_and_jobs_hold_no_key(instance: dg.DagsterInstance) -> None:
    partitions = partitions_of(instance)
    partitions.sync(KEYS)
    other = {dg.AssetKey("something_else")}
    create_run_for_test(
        instance, asset_selection=other, tags={"dagster/partition": "2026-01-01"}, status=dg.DagsterRunStatus.STARTED
    )
    create_run_for_test(instance, job_name="generate_pending", status=dg.DagsterRunStatus.STARTED)
    assert partitions.sync(KEYS[:2]) == (0, 1, 0)


def test_a_backfill_of_all_means_the_items_that_it_makes(instance: dg.DagsterInstance) -> None:
    partitions = partitions_of(instance)
    partitions.sync(KEYS)
    launch_backfill(instance, KEYS)
    partitions.sync([*KEYS, "new"])
    assert partitions.new_keys_of_backfill(RUN, [*KEYS, "new"]) == ["new"]
    # A run of another backfill, and one of none.
    assert partitions.new_keys_of_backfill(RUN.with_tags({"dagster/backfill": "another"}), [*KEYS, "new"]) == []
    assert partitions.new_keys_of_backfill(RUN.with_tags({}), [*KEYS, "new"]) == []


@pytest.mark.parametrize(("keys", "selection"), [(KEYS[:2], (ITEMS, OUTPUTS)), (KEYS, (OUTPUTS,))])
def test_a_backfill_of_some_or_of_the_outputs_alone_means_those(
    instance: dg.DagsterInstance, keys: Sequence[str], selection: Sequence[dg.AssetKey]
) -> None:
    partitions = partitions_of(instance)
    partitions.sync(KEYS)
    launch_backfill(instance, keys, selection)
    partitions.sync([*KEYS, "new"])
    assert partitions.new_keys_of_backfill(RUN, [*KEYS, "new"]) == []


@pytest.fixture(params=["sqlite", "postgres"])
def stored(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dg.DagsterInstance]:
    """An instance on disk or in PostgreSQL."""
    if request.param == "postgres":
        monkeypatch.setenv("POSTGRES_URL_OF_THE_TEST", new_database(request.getfixturevalue("postgres_url")))
    write_settings(tmp_path, POSTGRES if request.param == "postgres" else {"sqlite": {"base_dir": str(tmp_path)}})
    with dg.DagsterInstance.from_config(str(tmp_path)) as made:
        yield made


def test_a_key_that_comes_back_has_its_state_from_before_it_was_retired(stored: dg.DagsterInstance) -> None:
    instance, partitions = stored, partitions_of(stored)
    partitions.sync(KEYS)
    report(instance, "a", "an-output")
    for key in ("a", "b"):
        report(instance, key, RETIRED_VERSION)
    partitions.note_retired()
    assert partitions.sync(["c"]) == (0, 2, 0)
    assert partitions.sync(KEYS) == (2, 0, 0)
    assert instance.get_materialized_partitions(OUTPUTS) == {"a"}
    latest = instance.fetch_materializations(dg.AssetRecordsFilter(OUTPUTS, asset_partitions=["a"]), limit=1).records
    made = latest[0].asset_materialization
    assert made is not None
    assert (made.tags or {})["dagster/data_version"] == "an-output"


def report(instance: dg.DagsterInstance, key: str, version: str) -> None:
    event = dg.AssetMaterialization(OUTPUTS, partition=key, tags={"dagster/data_version": version})
    instance.report_runless_asset_event(event)
