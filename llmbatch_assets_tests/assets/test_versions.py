"""Changes that make Dagster show an asset as out of date, and changes that do not."""

from __future__ import annotations

from typing import Any

import dagster as dg
import yaml
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContext

from llmbatch_assets.assets.batch import build_batch
from llmbatch_assets_tests.assets.test_batch import Rig, RigMaker, offline_rig
from llmbatch_assets_tests.project import ROWS

__all__ = ["offline_rig"]


class _Loading(LoadingContext):
    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._instance = instance
        self._loaders: dict[Any, Any] = {}

    @property
    def instance(self) -> dg.DagsterInstance:
        return self._instance

    @property
    def loaders(self) -> dict[Any, Any]:
        return self._loaders


def again(rig: Rig) -> Rig:
    """The same project with its definitions loaded anew, as after "Reload definitions"."""
    return Rig(rig.project, build_batch(rig.project.config), rig.instance)


def statuses(rig: Rig) -> dict[str, StaleStatus]:
    """Of the registered partitions, as the UI asks for them."""
    graph = rig.batch.definitions().resolve_asset_graph()
    resolver = CachingStaleStatusResolver(rig.instance, graph, _Loading(rig.instance))
    key = rig.batch.names.key("llm_outputs")
    return {one: resolver.get_status(key, one) for one in rig.instance.get_dynamic_partitions("work_items")}


def all_fresh(rig: Rig) -> bool:
    return set(statuses(rig).values()) == {StaleStatus.FRESH}


def change(rig: Rig, block: str, **values: object) -> Rig:
    config = yaml.safe_load(rig.project.config.read_text(encoding="utf-8"))
    config[block] = {**config.get(block, {}), **values}
    rig.project.config.write_text(yaml.safe_dump(config), encoding="utf-8")
    return again(rig)


def generated(offline_rig: RigMaker) -> Rig:
    rig = offline_rig()
    rig.prepare()
    assert rig.run("generate").success
    return rig


def n_events(rig: Rig) -> int:
    records = rig.instance.fetch_materializations(rig.batch.names.key("llm_outputs"), limit=1000).records
    return sum(record.partition_key is not None for record in records)


def observe_changes(rig: Rig) -> str:
    """What the sensor reports without a reload of the definitions; gives what the check says that has failed."""
    (sensor,) = (one for one in rig.batch.sensors if one.name == "prepare_after_changes")
    result = sensor(dg.build_sensor_context(instance=rig.instance))
    assert isinstance(result, dg.SensorResult)
    for event in result.asset_events:
        rig.instance.report_runless_asset_event(event)
    found = evaluation(rig)
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.WARN)
    return str(found.description)


def test_outputs_are_fresh_until_something_that_makes_them_changes(offline_rig: RigMaker) -> None:
    rig = generated(offline_rig)
    assert all_fresh(rig)

    rig = change(rig, "llm", max_workers=3)
    rig.prepare()
    assert all_fresh(rig)

    rig.project.table([("q9", "green", "Is this row new?"), *ROWS])
    rig.prepare()
    found = statuses(rig)
    assert sorted(found.values(), key=str).count(StaleStatus.MISSING) == 1
    assert list(found.values()).count(StaleStatus.FRESH) == len(ROWS)


def test_a_changed_model_or_prompt_makes_them_stale_until_they_are_made_again(offline_rig: RigMaker) -> None:
    rig = generated(offline_rig)
    change(rig, "llm", model_name="another-model")
    assert observe_changes(rig) == (
        f"{len(ROWS)} of {len(ROWS)} outputs were made with earlier settings (model or parameters changed). "
        "Run generate_pending to make them."
    )
    # Without a reload of the definitions.
    assert set(statuses(rig).values()) == {StaleStatus.STALE}
    assert rig.run("generate").success
    assert all_fresh(rig)
    assert up_to_date(rig)

    rig.project.write("prompts/generation.yaml", "user: '{context} Be brief.'")
    assert "(prompt changed)" in observe_changes(rig)
    assert set(statuses(rig).values()) == {StaleStatus.STALE}
    assert rig.run("generate", limit=2).success
    assert not up_to_date(rig)
    assert rig.run("generate").success
    assert all_fresh(rig)
    assert up_to_date(rig)


def test_items_without_an_output_are_not_up_to_date(offline_rig: RigMaker) -> None:
    rig = generated(offline_rig)
    rig.project.table([("q9", "green", "Is this row new?"), *ROWS])
    rig.prepare()
    assert not up_to_date(rig)
    assert (
        evaluation(rig).description == f"1 of {len(ROWS) + 1} items has no output. Run generate_pending to make them."
    )
    assert rig.run("generate").success
    assert up_to_date(rig)


def up_to_date(rig: Rig) -> bool:
    return evaluation(rig).passed


def evaluation(rig: Rig) -> dg.AssetCheckEvaluation:
    """The latest evaluation of the check, as the page of the asset shows it."""
    check = dg.AssetCheckKey(rig.batch.names.key("llm_outputs"), "up_to_date")
    record = rig.instance.get_latest_asset_check_evaluation_record(check)
    assert record is not None
    assert record.event is not None
    found = record.event.get_dagster_event().event_specific_data
    assert isinstance(found, dg.AssetCheckEvaluation)
    # Otherwise Dagster's pages do not show it.
    latest = rig.instance.fetch_materializations(rig.batch.names.key("llm_outputs"), limit=1).records[0]
    assert found.target_materialization_data is not None
    assert found.target_materialization_data.storage_id == latest.storage_id
    return found


def test_observing_what_a_run_has_seen_changes_nothing(offline_rig: RigMaker) -> None:
    rig = generated(offline_rig)
    observe = dg.define_asset_job("observe", dg.AssetSelection.assets("prompts", "parameters", "input_table"))
    parts = rig.batch
    job = dg.Definitions(assets=parts.assets, jobs=[observe], resources=parts.resources).resolve_job_def("observe")
    assert job.execute_in_process(instance=rig.instance).success
    assert all_fresh(rig)


def test_settings_that_leave_the_items_as_they_are_cost_a_run_of_events_and_no_call(offline_rig: RigMaker) -> None:
    rig = generated(offline_rig)
    before = n_events(rig)
    assert rig.run("generate").success
    assert n_events(rig) == before

    rig = change(rig, "context", group_footer_template="never used without groups")
    rig.prepare()
    assert set(statuses(rig).values()) == {StaleStatus.STALE}
    calls = rig.project.path("artifacts/cache/usage.jsonl").read_bytes()
    assert rig.run("generate").success
    assert all_fresh(rig)
    assert n_events(rig) == before + len(ROWS)
    assert rig.project.path("artifacts/cache/usage.jsonl").read_bytes() == calls
