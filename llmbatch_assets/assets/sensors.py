"""Sensors and the schedule of a batch, off until somebody turns them on: they run the stages without a command."""

import json
from collections.abc import Sequence
from typing import TypeAlias

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from llmbatch_assets.assets.names import Names
from llmbatch_assets.assets.sources import FINGERPRINTS
from llmbatch_assets.errors import LlmBatchError
from llmbatch_assets.resources.versions import recorded_version
from llmbatch_assets.stages.project import BatchFile

Job: TypeAlias = dg.JobDefinition | UnresolvedAssetJobDefinition
WATCH_SEC = 30


def batch_sensors(
    batch_file: BatchFile, names: Names, jobs: dict[str, Job], *, table: bool
) -> list[dg.SensorDefinition]:
    """What chains the stages, and what begins with the first one when a file has changed.

    A run of the command line starts none of them: it brings its own next stage. ``table`` says that the table is a file.
    """
    generate, publish = jobs["generate"], jobs["publish"]
    generating = [generate, jobs["generate_pending"]]
    success, failure = dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE
    return [
        _chain(names.own("generate_after_prepare"), success, [jobs["prepare"]], generate),
        _chain(names.own("publish_after_generate"), success, generating, publish),
        _chain(names.own("publish_after_failed_items"), failure, generating, publish),
        _watch(batch_file, names, jobs["prepare"], [name for name in FINGERPRINTS if table or name != "input_table"]),
    ]


def daily_schedule(names: Names, prepare: Job, timezone: str) -> dg.ScheduleDefinition:
    """The first stage once a day, for a table whose changes no sensor sees; the sensors chain the rest to it."""
    return dg.ScheduleDefinition(
        name=names.own("prepare_daily"),
        job=prepare,
        cron_schedule="0 3 * * *",
        execution_timezone=timezone,
        description=f"Runs {prepare.name} at three in the morning of run.timezone.",
    )


def _chain(name: str, status: dg.DagsterRunStatus, after: Sequence[Job], then: Job) -> dg.SensorDefinition:
    @dg.run_status_sensor(
        name=name,
        run_status=status,
        monitored_jobs=list(after),
        request_job=then,
        minimum_interval_seconds=5,
        description=f"Runs {then.name} after {' or '.join(job.name for job in after)} has ended as {status.value}.",
    )
    def chain(context: dg.RunStatusSensorContext) -> dg.RunRequest:
        return dg.RunRequest(run_key=context.dagster_run.run_id)

    return chain


def _watch(batch_file: BatchFile, names: Names, prepare: Job, sources: Sequence[str]) -> dg.SensorDefinition:
    @dg.sensor(
        name=names.own("prepare_after_changes"),
        job=prepare,
        minimum_interval_seconds=WATCH_SEC,
        description=f"Runs {prepare.name} when the table, a prompt or the configuration is not what the last run saw.",
    )
    def watch(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        try:
            batch = batch_file.load()
            now = {name: FINGERPRINTS[name](batch) for name in sources}
        except (LlmBatchError, OSError) as mistake:
            return dg.SkipReason(f"nothing is run until this is mended: {mistake}")
        seen = {name: recorded_version(context.instance, names.key(name)) for name in now}
        changed = [name for name, version in now.items() if version != seen[name]]
        cursor = json.dumps(now, sort_keys=True)
        # A change is acted upon once, also if that run fails.
        if not changed or context.cursor == cursor:
            return dg.SkipReason("table, prompts and configuration are what the last run saw")
        return dg.SensorResult([dg.RunRequest(tags={"llmbatch/changed": ",".join(changed)})], cursor=cursor)

    return watch
