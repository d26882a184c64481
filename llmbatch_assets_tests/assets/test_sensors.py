"""Sensors prepare after changes and publish after runs; what calls the model is started by none unless turned on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import dagster as dg
import pytest
from dagster._core.storage.tags import AUTOMATION_CONDITION_TAG
from dagster._daemon.asset_daemon import get_auto_materialize_paused

from llmbatch_assets_tests.assets.test_batch import Rig, RigMaker, offline_rig
from llmbatch_assets_tests.project import ROWS

__all__ = ["offline_rig"]


def sensor(rig: Rig, name: str) -> dg.SensorDefinition:
    return next(one for one in rig.batch.sensors if one.name == name)


def watch(rig: Rig, cursor: str | None = None) -> dg.SensorResult | dg.SkipReason:
    """One look of the sensor; Dagster stores the events that it returns."""
    context = dg.build_sensor_context(instance=rig.instance, cursor=cursor)
    got = sensor(rig, "prepare_after_changes")(context)
    assert isinstance(got, dg.SensorResult | dg.SkipReason)
    for event in got.asset_events if isinstance(got, dg.SensorResult) else ():
        rig.instance.report_runless_asset_event(event)
    return got


def requested(got: dg.SensorResult | dg.SkipReason) -> list[tuple[list[str], Mapping[str, str]]]:
    """The assets and tags of the runs that a look asks for."""
    assert isinstance(got, dg.SensorResult)
    return [
        (sorted(key.path[-1] for key in request.asset_selection or ()), request.tags)
        for request in got.run_requests or ()
    ]


def cursor_of(got: dg.SensorResult | dg.SkipReason) -> str:
    assert isinstance(got, dg.SensorResult)
    assert got.cursor
    return got.cursor


PREPARED = ["group_contexts", "input_snapshot", "llm_schema_py", "llm_schema_txt", "work_items"]


def test_what_costs_nothing_is_on_and_what_calls_the_model_is_off(offline_rig: RigMaker) -> None:
    on = {one.name: one.default_status for one in offline_rig().batch.sensors}
    running, stopped = dg.DefaultSensorStatus.RUNNING, dg.DefaultSensorStatus.STOPPED
    assert on == {
        "prepare_after_changes": running,
        "publish_automatically": running,
        "generate_after_prepare": stopped,
    }
    schedules = {one.name: one.default_status for one in offline_rig().batch.schedules}
    assert schedules == dict.fromkeys(("prepare_daily", "run_all_daily"), dg.DefaultScheduleStatus.STOPPED)


def test_generating_follows_each_run_of_prepare(offline_rig: RigMaker) -> None:
    rig = offline_rig()
    ended = rig.run("prepare")
    event = next(one for one in ended.all_events if one.event_type_value == "PIPELINE_SUCCESS")
    one = sensor(rig, "generate_after_prepare")
    got = one(dg.build_run_status_sensor_context(one.name, event, rig.instance, ended.dagster_run))
    assert isinstance(got, dg.RunRequest)
    # Once for each run, however often the sensor looks.
    assert got.run_key == ended.run_id


def test_a_new_project_is_prepared_once(offline_rig: RigMaker) -> None:
    rig = offline_rig()
    first = watch(rig)
    assert requested(first) == [
        (PREPARED, {"llmbatch/changed": "input_table,prompts,parameters,schema"}),
    ]
    # The run that was asked for failed, or is still to come.
    assert isinstance(watch(rig, cursor_of(first)), dg.SkipReason)


def test_the_pages_do_not_say_that_automation_is_off(offline_rig: RigMaker) -> None:
    rig = offline_rig()
    assert get_auto_materialize_paused(rig.instance)
    watch(rig)
    assert not get_auto_materialize_paused(rig.instance)


def test_a_run_that_has_seen_a_change_counts(offline_rig: RigMaker) -> None:
    rig = offline_rig()
    rig.prepare()
    assert requested(watch(rig)) == []
    rig.project.write("prompts/generation.yaml", "user: '{context} Be brief.'")
    first = watch(rig)
    assert requested(first) == [(PREPARED, {"llmbatch/changed": "prompts"})]


def test_a_change_is_prepared_even_if_something_else_has_observed_it(offline_rig: RigMaker) -> None:
    rig = offline_rig()
    rig.prepare()
    first = watch(rig)
    rig.project.table(ROWS[1:])
    # Observed here without a run, as by "Observe" in the pages.
    watch(rig)
    assert requested(watch(rig, cursor_of(first))) == [(PREPARED, {"llmbatch/changed": "input_table"})]


def test_an_edited_schema_is_a_change(offline_rig: RigMaker) -> None:
    rig = offline_rig()
    rig.prepare()
    first = watch(rig)
    schema = rig.project.path("schema/llm_schema.py")
    schema.write_text(schema.read_text(encoding="utf-8") + "\n# A comment.\n", encoding="utf-8")
    assert requested(watch(rig, cursor_of(first))) == [(PREPARED, {"llmbatch/changed": "schema"})]


def test_a_schema_that_was_edited_before_the_first_look_is_a_change(offline_rig: RigMaker) -> None:
    rig = offline_rig()
    rig.prepare()
    schema = rig.project.path("schema/llm_schema.py")
    schema.write_text(schema.read_text(encoding="utf-8").replace("max_length=80", "max_length=90"), encoding="utf-8")
    assert requested(watch(rig)) == [(PREPARED, {"llmbatch/changed": "schema"})]


def test_a_schema_that_the_model_would_write_is_left_to_a_run_of_the_user(offline_rig: RigMaker) -> None:
    rig = offline_rig(llm={"provider": "openai", "model_name": "m", "base_url": "http://127.0.0.1:9/v1"})
    rig.project.path("schema/llm_schema.py").unlink()
    ((assets, _),) = requested(watch(rig))
    assert assets == ["group_contexts", "input_snapshot", "work_items"]


def test_a_mistake_in_a_file_is_told_and_nothing_is_run(offline_rig: RigMaker) -> None:
    rig = offline_rig()
    rig.project.config.write_text("llm: {provider: nobody}", encoding="utf-8")
    told = watch(rig)
    assert isinstance(told, dg.SkipReason)
    assert "llm.provider" in str(told.skip_message)


class Ticks:
    """The automation of a rig's export and report, tick by tick."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._cursor: dg.AssetDaemonCursor | None = None
        self.tick()

    def tick(self) -> set[str]:
        """Evaluate the conditions; gives what they ask for."""
        result = dg.evaluate_automation_conditions(
            self._rig.batch.definitions(),
            self._rig.instance,
            asset_selection=dg.AssetSelection.assets("export", "report"),
            cursor=self._cursor,
        )
        self._cursor = result.cursor
        return {one.key.path[-1] for one in result.results if result.get_num_requested(one.key)}


@pytest.fixture
def prepared(offline_rig: RigMaker) -> Rig:
    rig = offline_rig()
    rig.prepare()
    return rig


def run_job(rig: Rig, keys: Sequence[str]) -> None:
    assert rig.run("generate", select="keys", keys=keys).success


def run_range(rig: Rig, keys: Sequence[str]) -> None:
    assert rig.run_range(keys[0], keys[-1]).success


def run_one(rig: Rig, keys: Sequence[str]) -> None:
    assert rig.run("generate", key=keys[0]).success


@pytest.mark.parametrize("make", [run_job, run_range, run_one])
def test_export_and_report_follow_every_way_of_making_items(prepared: Rig, make: object) -> None:
    ticks = Ticks(prepared)
    assert callable(make)
    make(prepared, prepared.project.partition_keys()[:2])
    assert ticks.tick() == {"export", "report"}
    assert prepared.run("publish").success
    assert ticks.tick() == set()


def test_outputs_that_are_made_while_earlier_ones_are_exported_are_exported_next(prepared: Rig) -> None:
    ticks, keys = Ticks(prepared), prepared.project.partition_keys()
    run_job(prepared, keys[:2])
    assert ticks.tick() == {"export", "report"}
    # All of it before the next look.
    names = prepared.batch.names
    job = prepared.batch.definitions().resolve_job_def(names.own("publish"))
    assert job.execute_in_process(instance=prepared.instance, tags={AUTOMATION_CONDITION_TAG: "true"}).success
    run_job(prepared, keys[2:])
    # The report follows the export.
    assert ticks.tick() == {"export"}


def test_export_and_report_follow_a_run_with_failed_items(prepared: Rig) -> None:
    ticks = Ticks(prepared)
    change = {"provider": "openai", "model_name": "m", "base_url": "http://127.0.0.1:9/v1", "transport_retries": 0}
    prepared.project.parameters(llm=change)
    assert not prepared.run("generate", limit=1).success
    assert ticks.tick() == {"export", "report"}


def test_nothing_follows_preparation_or_a_changed_prompt(prepared: Rig) -> None:
    ticks = Ticks(prepared)
    prepared.project.table(ROWS[1:])
    prepared.prepare()
    prepared.project.write("prompts/generation.yaml", "user: '{context} Be brief.'")
    watch(prepared)
    assert ticks.tick() == set()


def test_a_run_of_all_stages_needs_nothing_to_follow(offline_rig: RigMaker) -> None:
    rig = offline_rig()
    ticks = Ticks(rig)
    assert rig.run("run_all").success
    assert rig.project.path("artifacts/outputs/output.csv").is_file()
    assert ticks.tick() == set()
