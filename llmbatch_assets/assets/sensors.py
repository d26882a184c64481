"""Sensors and schedules of a batch, and the files that it reads as assets. What calls the model is off by default."""

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from llmbatch_assets.assets import STAGES
from llmbatch_assets.assets.checks import report_age
from llmbatch_assets.assets.descriptions import description
from llmbatch_assets.assets.names import Names
from llmbatch_assets.domain.items.work import WorkItems
from llmbatch_assets.errors import LlmBatchError
from llmbatch_assets.resources.instance import show_automation_as_on
from llmbatch_assets.resources.runs import failing_with_message
from llmbatch_assets.resources.versions import input_tags, observe, recorded_version, source_observation
from llmbatch_assets.stages.artifacts import load_artifact
from llmbatch_assets.stages.prepare import SOURCE_VERSIONS, has_schema, schema_file_sha
from llmbatch_assets.stages.project import Batch, BatchFile

Job: TypeAlias = dg.JobDefinition | UnresolvedAssetJobDefinition
WATCH_SEC = 10
# As often as Dagster's own daemon looks at automation conditions.
PUBLISH_SEC = 30
# The assets of the prepare stage that do not need the schema.
TABLE_ASSETS = ("input_snapshot", "group_contexts", "work_items")


def batch_sensors(
    batch_file: BatchFile,
    names: Names,
    jobs: dict[str, Job],
    sources: Sequence[str],
    input_asset: dg.AssetKey | None,
    automated: Sequence[str],
) -> list[dg.SensorDefinition]:
    """The sensors of a batch. Those that make no calls are on by default.

    ``automated`` assets are published by their automation conditions. They also follow runs of the command line, which
    usually have published by then.
    """
    prepare, generate = jobs["prepare"], jobs["generate_pending"]
    return [
        ChangeWatch(batch_file, names, sources, input_asset).sensor(prepare),
        _generate_sensor(names.own("generate_after_prepare"), prepare, generate),
        *([_publish_sensor(names, automated)] if automated else []),
    ]


def daily_schedules(names: Names, jobs: dict[str, Job], timezone: str) -> list[dg.ScheduleDefinition]:
    """Schedules for tables whose changes no sensor sees, such as those in a database. They are off by default."""
    remarks = {"prepare": "", "run_all": " This calls the model."}
    return [
        dg.ScheduleDefinition(
            name=names.own(f"{job}_daily"),
            job=jobs[job],
            cron_schedule="0 3 * * *",
            execution_timezone=timezone,
            description=f"Launches {jobs[job].name} daily at 03:00 (run.timezone).{remark}",
        )
        for job, remark in remarks.items()
    ]


def _generate_sensor(name: str, after: Job, then: Job) -> dg.SensorDefinition:
    @dg.run_status_sensor(
        name=name,
        run_status=dg.DagsterRunStatus.SUCCESS,
        monitored_jobs=[after],
        request_job=then,
        minimum_interval_seconds=5,
        description=f"Launches {then.name} when {after.name} succeeds. This calls the model.",
    )
    def chain(context: dg.RunStatusSensorContext) -> dg.RunRequest:
        return dg.RunRequest(run_key=context.dagster_run.run_id)

    return chain


def _publish_sensor(names: Names, automated: Sequence[str]) -> dg.SensorDefinition:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=dg.BetaWarning)
        return dg.AutomationConditionSensorDefinition(
            names.own("publish_automatically"),
            target=dg.AssetSelection.assets(*map(names.key, automated)),
            default_status=dg.DefaultSensorStatus.RUNNING,
            minimum_interval_seconds=PUBLISH_SEC,
            description=f"Launches {' and '.join(automated)} after items were generated in any way. Makes no calls.",
        )


@dataclass(frozen=True)
class ChangeWatch:
    """Notices changes of the files that a batch reads: registers new items, and shows which outputs are out of date.

    ``sources`` are the names of the source assets; ``input_asset`` is the user's own asset in place of the table.
    """

    batch_file: BatchFile
    names: Names
    sources: Sequence[str]
    input_asset: dg.AssetKey | None

    def sensor(self, prepare: Job) -> dg.SensorDefinition:
        """The sensor, which launches the job ``prepare``."""

        @dg.sensor(
            name=self.names.own("prepare_after_changes"),
            job=prepare,
            default_status=dg.DefaultSensorStatus.RUNNING,
            minimum_interval_seconds=WATCH_SEC,
            description=f"Launches {prepare.name} when the table, a prompt, the schema or the configuration has changed, and "
            "updates the check up_to_date. Makes no calls: a missing schema is left to your own runs.",
        )
        def watch(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
            try:
                return self._look(context)
            except (LlmBatchError, OSError) as mistake:
                return dg.SkipReason(f"Fix this first: {mistake}")

        return watch

    def _look(self, context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        batch, instance = self.batch_file.load(), context.instance
        self._remove_retired(instance, batch)
        now = {name: SOURCE_VERSIONS[name](batch) for name in self.sources} | {"schema": schema_file_sha(batch)}
        if self.input_asset:
            made = recorded_version(instance, self.input_asset)
            if made is None:
                return dg.SkipReason(f"Materialize {self.input_asset.to_user_string()} first: it provides the table.")
            now["input_asset"] = made
        cursor = json.dumps(now, sort_keys=True)
        if not context.cursor:
            show_automation_as_on(instance)
        if context.cursor == cursor:
            return dg.SkipReason("Table, prompts, schema and configuration have not changed.")
        report_age(instance, batch, self.names)
        observed = {name: recorded_version(instance, self.names.key(name)) for name in self.sources}
        return dg.SensorResult(
            self._requests(batch, self._changes(batch, instance, context.cursor, now, observed)),
            asset_events=[
                source_observation(self.names.key(name), now[name])
                for name in self.sources
                if now[name] != observed[name]
            ],
            cursor=cursor,
        )

    def _changes(
        self,
        batch: Batch,
        instance: dg.DagsterInstance,
        cursor: str | None,
        now: Mapping[str, str],
        observed: Mapping[str, str | None],
    ) -> list[str]:
        """Return what has changed since the last look or, at the first one, since the last run that has used it."""
        if cursor:
            before: Mapping[str, str | None] = json.loads(cursor)
        elif recorded_version(instance, self.names.key("work_items")) is None:
            before = {}
        else:
            before = {**now, **observed} | ({} if self._has_used_schema(batch, instance) else {"schema": None})
        return [name for name in now if now[name] != before.get(name)]

    def _has_used_schema(self, batch: Batch, instance: dg.DagsterInstance) -> bool:
        """Return whether the last run has used the schema as it is now; true if there is none."""
        if not has_schema(batch):
            return True
        return recorded_version(instance, self.names.key("llm_schema_py")) == batch.schema.output().sha

    def _requests(self, batch: Batch, changed: Sequence[str]) -> list[dg.RunRequest]:
        # Each change launches one run, even if that run fails. The prepare stage does not depend on the model.
        to_prepare = [name for name in changed if name != "model_settings"]
        if not to_prepare:
            return []
        assets = STAGES["prepare"] if has_schema(batch) else TABLE_ASSETS
        selection = [self.names.key(asset) for asset in assets]
        return [dg.RunRequest(asset_selection=selection, tags={"llmbatch/changed": ",".join(to_prepare)})]

    def _remove_retired(self, instance: dg.DagsterInstance, batch: Batch) -> None:
        partitions = self.names.registered(instance)
        if partitions.has_retired and not partitions.is_targeted():
            items = load_artifact(batch, "work_items", WorkItems).items
            partitions.sync([item.partition_key for item in items])


def source_assets(batch_file: BatchFile, names: Names, sources: Sequence[str]) -> list[dg.SourceAsset]:
    """The files that a batch reads, as assets. Their data versions are fingerprints of their content."""
    return [_source_asset(batch_file, names, name) for name in sources]


def _source_asset(batch_file: BatchFile, names: Names, name: str) -> dg.SourceAsset:
    @dg.observable_source_asset(key=names.key(name), group_name=names.group, description=description(name))
    @failing_with_message()
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
