"""Made-up histories of a Dagster instance, and all that Dagster reads back of one."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import yaml
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationPlanned
from dagster._core.event_api import EventLogCursor
from dagster._core.events import (
    AssetMaterializationPlannedData,
    AssetObservationData,
    DagsterEvent,
    EngineEventData,
    StepMaterializationData,
)
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.dagster_run import DagsterRun, DagsterRunStatus

DEFAULT = {"sqlite": {"base_dir": {"env": "DAGSTER_HOME"}}}
OURS = yaml.safe_load((Path(__file__).parent.parent / "dagster_home/dagster.yaml").read_text())["storage"]
# The variable is for the test to set.
POSTGRES = {"postgres": {"postgres_url": {"env": "POSTGRES_URL_OF_THE_TEST"}}}
ITEMS, OTHER = dg.AssetKey(["second", "llm_outputs"]), dg.AssetKey("export")
PARTITIONS = dg.DynamicPartitionsDefinition(name="work_items")
KEYS = [f"item-{number}" for number in range(8)] + ["schräg, 'ß' / %"]
RUNS = {
    "aaaaaaaa-0000-0000-0000-000000000001": DagsterRunStatus.FAILURE,
    "aaaaaaaa-0000-0000-0000-000000000002": DagsterRunStatus.SUCCESS,
    "aaaaaaaa-0000-0000-0000-000000000003": DagsterRunStatus.STARTED,
}
MATERIALIZATION = dg.DagsterEventType.ASSET_MATERIALIZATION
PLANNED = dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED
OBSERVATION = dg.DagsterEventType.ASSET_OBSERVATION
CHECK_PLANNED = dg.DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED
ENGINE = dg.DagsterEventType.ENGINE_EVENT


def write_settings(home: Path, storage: dict[str, Any]) -> None:
    """The ``dagster.yaml`` of an instance with this storage."""
    home.mkdir(parents=True, exist_ok=True)
    (home / "dagster.yaml").write_text(yaml.safe_dump({"storage": storage, "telemetry": {"enabled": False}}))


def event(kind: dg.DagsterEventType, run: str, at: float, key: str | None = None, asset: dg.AssetKey = ITEMS) -> Any:
    """An event of this kind, ``at`` seconds after the beginning."""
    happened = DagsterEvent(
        kind.value, "generate", step_key="llm_outputs", event_specific_data=_data(kind, at, key, asset)
    )
    return EventLogEntry(  # type: ignore[no-untyped-call]
        None, logging.DEBUG, "", run, 1_700_000_000.0 + at, "llm_outputs", "generate", happened
    )


def _data(kind: dg.DagsterEventType, at: float, key: str | None, asset: dg.AssetKey) -> Any:
    tags = {"dagster/data_version": f"v{at}", "dagster/code_version": "1", "own": "not-indexed"}
    if kind is MATERIALIZATION:
        made = dg.AssetMaterialization(
            asset, partition=key, metadata={"at": at, "text": dg.MetadataValue.md("*ü*")}, tags=tags
        )
        return StepMaterializationData(made)
    if kind is OBSERVATION:
        return AssetObservationData(dg.AssetObservation(asset, partition=key, tags=tags))
    if kind is PLANNED:
        return AssetMaterializationPlannedData(asset, partition=key)
    if kind is CHECK_PLANNED:
        return AssetCheckEvaluationPlanned(asset_key=asset, check_name="acceptance")
    return EngineEventData({})


def history(seed: int, count: int) -> list[EventLogEntry]:
    """Events of all kinds, runs, assets and partitions; the same ones for the same seed."""
    draw = random.Random(seed)  # noqa: S311
    kinds = [MATERIALIZATION] * 6 + [PLANNED] * 6 + [OBSERVATION] * 2 + [CHECK_PLANNED, ENGINE]
    kind, made = ENGINE, list[EventLogEntry]()
    for number in range(count):
        # Runs of one kind, as they come, and no two of them alike.
        kind = draw.choice(kinds) if number % 5 == 0 else kind
        asset = draw.choices([ITEMS, OTHER], [6, 1])[0]
        key = draw.choice(KEYS) if asset == ITEMS else None
        made.append(event(kind, draw.choice(list(RUNS)), number, key, asset))
    return made


def add_runs(instance: dg.DagsterInstance) -> None:
    """The runs of the histories, and their partitions."""
    for run_id, status in RUNS.items():
        instance.add_run(DagsterRun("generate", run_id, status=status))
    instance.add_dynamic_partitions(str(PARTITIONS.name), KEYS)


def picture(instance: dg.DagsterInstance) -> dict[str, Any]:
    """What Dagster tells about the histories, by the question."""
    return dict(_answers(instance))


def _answers(instance: dg.DagsterInstance) -> Iterator[tuple[str, Any]]:
    storage = instance.event_log_storage
    # Builds the cache of statuses, and reads it then.
    for time in ("first", "second"):
        yield f"statuses, {time}", instance.get_status_by_partition(ITEMS, KEYS, PARTITIONS)
    yield "assets", sorted(instance.all_asset_keys())
    yield "asset records", instance.get_asset_records([ITEMS, OTHER])
    yield "latest materializations", dict(storage.get_latest_materialization_events([ITEMS, OTHER]))
    yield "event tags", storage.get_event_tags_for_asset(ITEMS)
    yield "event tags by filter", storage.get_event_tags_for_asset(ITEMS, {"dagster/code_version": "1"})
    yield (
        "failed or in progress",
        storage.get_latest_asset_partition_materialization_attempts_without_materializations(ITEMS),
    )
    yield from _by_kind(instance)
    yield from _by_run(instance)


def _by_kind(instance: dg.DagsterInstance) -> Iterator[tuple[str, Any]]:
    storage = instance.event_log_storage
    for kind in (MATERIALIZATION, PLANNED, OBSERVATION):
        only = dg.EventRecordsFilter(kind, asset_key=ITEMS)
        yield f"{kind.value}: all", storage.get_event_records(only)
        yield f"{kind.value}: two, the earliest first", storage.get_event_records(only, limit=2, ascending=True)
        between = dg.EventRecordsFilter(kind, after_cursor=5, before_cursor=30, asset_partitions=KEYS[:3])
        yield f"{kind.value}: between", storage.get_event_records(between)
        yield f"{kind.value}: last of each", storage.get_latest_storage_id_by_partition(ITEMS, kind, set(KEYS[:5]))
        versions = ["dagster/data_version"]
        yield (
            f"{kind.value}: tags of each",
            storage.get_latest_tags_by_partition(ITEMS, kind, versions, KEYS, after_cursor=3),
        )
    for name, fetch in {"made": instance.fetch_materializations, "seen": instance.fetch_observations}.items():
        first = fetch(ITEMS, limit=3)
        yield f"{name}: page 1", (first.records, first.cursor, first.has_more)
        yield f"{name}: page 2", fetch(ITEMS, limit=1000, cursor=first.cursor)
    yield "materialized", storage.get_materialized_partitions(ITEMS)
    yield "materialized between", storage.get_materialized_partitions(ITEMS, before_cursor=40, after_cursor=4)
    yield "planned, latest", storage.get_latest_planned_materialization_info(ITEMS)
    yield "planned, of one", storage.get_latest_planned_materialization_info(ITEMS, KEYS[0])
    yield "last of all", storage.get_latest_storage_id_by_partition(ITEMS, MATERIALIZATION)


def _by_run(instance: dg.DagsterInstance) -> Iterator[tuple[str, Any]]:
    storage = instance.event_log_storage
    for run in RUNS:
        yield f"{run}: log", storage.get_logs_for_run(run)
        page = storage.get_records_for_run(run, limit=4)
        yield f"{run}: page 1", page
        yield f"{run}: page 2", storage.get_records_for_run(run, cursor=page.cursor)
        after_three = EventLogCursor.from_storage_id(3).to_string()
        yield f"{run}: backwards", storage.get_records_for_run(run, after_three, MATERIALIZATION, ascending=False)
        yield f"{run}: counts", storage.get_stats_for_run(run)
        yield f"{run}: partitions", storage.get_asset_partitions_for_run(run, {MATERIALIZATION, PLANNED})


def in_batches(events: Sequence[EventLogEntry], seed: int) -> Iterator[Sequence[EventLogEntry]]:
    """The events in batches of all sizes."""
    draw, start = random.Random(seed), 0  # noqa: S311
    while start < len(events):
        size = draw.choice([1, 2, 3, 7, 20])
        yield events[start : start + size]
        start += size
