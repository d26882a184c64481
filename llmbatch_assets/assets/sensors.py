"""Sensors and the schedule of a batch. They launch stages automatically, and are off by default."""

import json
from collections.abc import Sequence
from typing import TypeAlias

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from llmbatch_assets.assets.names import Names
from llmbatch_assets.errors import LlmBatchError
from llmbatch_assets.resources.versions import input_tags, observe, recorded_version
from llmbatch_assets.stages.prepare import SOURCE_VERSIONS
from llmbatch_assets.stages.project import Batch, BatchFile

Job: TypeAlias = dg.JobDefinition | UnresolvedAssetJobDefinition
WATCH_SEC = 30
CALLS_THE_MODEL = " This calls the model."


def batch_sensors(
    batch_file: BatchFile, names: Names, jobs: dict[str, Job], sources: Sequence[str]
) -> list[dg.SensorDefinition]:
    """Sensors that launch the next stage after each one, and one that launches the first stage when a source changes.

    ``llmbatch run`` triggers none of them, because it runs all stages itself.
    """
    generate, publish = jobs["generate"], jobs["publish"]
    generating = [generate, jobs["generate_pending"]]
    success, failure = dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE
    return [
        _chaining_sensor(names.own("generate_after_prepare"), success, [jobs["prepare"]], generate, CALLS_THE_MODEL),
        _chaining_sensor(names.own("publish_after_generate"), success, generating, publish),
        _chaining_sensor(names.own("publish_after_failed_items"), failure, generating, publish),
        _watching_sensor(batch_file, names, jobs["prepare"], sources),
    ]


def daily_schedule(names: Names, prepare: Job, timezone: str) -> dg.ScheduleDefinition:
    """Launches the first stage daily, for tables whose changes no sensor sees; the sensors launch the other stages."""
    return dg.ScheduleDefinition(
        name=names.own("prepare_daily"),
        job=prepare,
        cron_schedule="0 3 * * *",
        execution_timezone=timezone,
        description=f"Launches {prepare.name} daily at 03:00 (run.timezone).",
    )


def _chaining_sensor(
    name: str, status: dg.DagsterRunStatus, after: Sequence[Job], then: Job, remark: str = ""
) -> dg.SensorDefinition:
    ended = "succeeds" if status is dg.DagsterRunStatus.SUCCESS else "fails"

    @dg.run_status_sensor(
        name=name,
        run_status=status,
        monitored_jobs=list(after),
        request_job=then,
        minimum_interval_seconds=5,
        description=f"Launches {then.name} when {' or '.join(job.name for job in after)} {ended}.{remark}",
    )
    def chain(context: dg.RunStatusSensorContext) -> dg.RunRequest:
        return dg.RunRequest(run_key=context.dagster_run.run_id)

    return chain


def _watching_sensor(batch_file: BatchFile, names: Names, prepare: Job, sources: Sequence[str]) -> dg.SensorDefinition:
    @dg.sensor(
        name=names.own("prepare_after_changes"),
        job=prepare,
        minimum_interval_seconds=WATCH_SEC,
        description=f"Launches {prepare.name} when the table, a prompt or the configuration differs from the last run.",
    )
    def watch(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        try:
            batch = batch_file.load()
            now = {name: SOURCE_VERSIONS[name](batch) for name in sources}
        except (LlmBatchError, OSError) as mistake:
            return dg.SkipReason(f"fix this first: {mistake}")
        seen = {name: recorded_version(context.instance, names.key(name)) for name in now}
        changed = [name for name, version in now.items() if version != seen[name]]
        cursor = json.dumps(now, sort_keys=True)
        # Each change launches one run, even if that run fails.
        if not changed or context.cursor == cursor:
            return dg.SkipReason("table, prompts and configuration have not changed since the last run")
        return dg.SensorResult([dg.RunRequest(tags={"llmbatch/changed": ",".join(changed)})], cursor=cursor)

    return watch


_DESCRIPTIONS = {
    "input_table": "The input table file.",
    "prompts": "The prompt files. Only their messages affect outputs; name, version and purpose do not.",
    "parameters": "The configuration file of the batch.",
}


def source_assets(batch_file: BatchFile, names: Names, sources: Sequence[str]) -> list[dg.SourceAsset]:
    """The files that a batch reads, as assets. Their data versions are fingerprints of their content."""
    return [_source_asset(batch_file, names, name) for name in sources]


def _source_asset(batch_file: BatchFile, names: Names, name: str) -> dg.SourceAsset:
    @dg.observable_source_asset(key=names.key(name), group_name=names.group, description=_DESCRIPTIONS[name])
    def source() -> dg.DataVersion:
        return dg.DataVersion(SOURCE_VERSIONS[name](batch_file.load()))

    return source


def use_sources(
    context: dg.OpExecutionContext | dg.AssetExecutionContext, batch: Batch, names: Names, *sources: str
) -> dict[str, str]:
    """Record the sources as the run uses them, and return the tags that link its outputs to these versions.

    Users therefore need not observe sources first, and a later observation of the same files makes nothing stale.
    """
    versions = {names.key(name): SOURCE_VERSIONS[name](batch) for name in sources}
    observe(context, versions)
    return input_tags(context.instance, versions)
