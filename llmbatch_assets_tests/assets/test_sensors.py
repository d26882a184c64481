"""Sensors run the next stage, and the first one when a file has changed; a run of the command line starts none."""

from __future__ import annotations

import dagster as dg

from llmbatch_assets_tests.assets.test_batch import Rig, RigMaker, offline_rig

__all__ = ["offline_rig"]


def sensor(rig: Rig, name: str) -> dg.SensorDefinition:
    return next(one for one in rig.batch.sensors if one.name == name)


def watch(rig: Rig, cursor: str | None = None) -> dg.SensorResult | dg.SkipReason:
    context = dg.build_sensor_context(instance=rig.instance, cursor=cursor)
    got = sensor(rig, "prepare_after_changes")(context)
    assert isinstance(got, dg.SensorResult | dg.SkipReason)
    return got


def test_each_end_of_a_stage_requests_the_next_one(offline_rig: RigMaker) -> None:
    rig = offline_rig()
    for name, stage in (
        ("generate_after_prepare", "prepare"),
        ("publish_after_generate", "generate"),
        ("publish_after_failed_items", "generate"),
    ):
        ended = rig.run(stage)
        event = next(one for one in ended.all_events if one.event_type_value == "PIPELINE_SUCCESS")
        one = sensor(rig, name)
        context = dg.build_run_status_sensor_context(name, event, rig.instance, ended.dagster_run)
        requested = one(context)
        assert isinstance(requested, dg.RunRequest)
        # Once for each run, however often the sensor looks.
        assert requested.run_key == ended.run_id


def test_a_change_is_acted_upon_once_and_not_where_a_run_has_already_seen_it(offline_rig: RigMaker) -> None:
    rig = offline_rig()
    first = watch(rig)
    assert isinstance(first, dg.SensorResult)
    assert first.run_requests is not None
    assert len(first.run_requests) == 1
    # The run that was asked for failed, or is still to come.
    assert isinstance(watch(rig, first.cursor), dg.SkipReason)

    rig.prepare()
    assert isinstance(watch(rig), dg.SkipReason)

    rig.project.write("prompts/generation.yaml", "user: '{context} Be brief.'")
    changed = watch(rig, first.cursor)
    assert isinstance(changed, dg.SensorResult)
    assert changed.run_requests is not None
    assert changed.run_requests[0].tags["llmbatch/changed"] == "prompts"
    # By the command line or otherwise.
    rig.prepare()
    assert isinstance(watch(rig, first.cursor), dg.SkipReason)


def test_a_mistake_in_a_file_is_told_and_nothing_is_run(offline_rig: RigMaker) -> None:
    rig = offline_rig()
    rig.project.config.write_text("llm: {provider: nobody}", encoding="utf-8")
    told = watch(rig)
    assert isinstance(told, dg.SkipReason)
    assert "llm.provider" in str(told.skip_message)
