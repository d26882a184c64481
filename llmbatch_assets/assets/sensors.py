"""Sensors and schedules of a batch, and the files that it reads as assets. What calls the model is off by default."""

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from llmbatch_assets.assets import STAGES
from llmbatch_assets.assets.checks import check_fields
from llmbatch_assets.assets.names import Names
from llmbatch_assets.domain.items.work import WorkItems
from llmbatch_assets.errors import LlmBatchError
from llmbatch_assets.resources.versions import input_tags, observe, recorded_version, source_observation
from llmbatch_assets.stages.artifacts import load_artifact
from llmbatch_assets.stages.plan import stored_outputs_up_to_date
from llmbatch_assets.stages.prepare import SOURCE_VERSIONS, has_schema, schema_file_sha
from llmbatch_assets.stages.project import Batch, BatchFile

Job: TypeAlias = dg.JobDefinition | UnresolvedAssetJobDefinition
WATCH_SEC = 10
# The assets of the prepare stage that do not need the schema.
TABLE_ASSETS = ("input_snapshot", "group_contexts", "work_items")


def batch_sensors(
    batch_file: BatchFile, names: Names, jobs: dict[str, Job], sources: Sequence[str], input_asset: dg.AssetKey | None
) -> list[dg.SensorDefinition]:
    """The sensors of a batch. Those that make no calls are on by default.

    ``llmbatch run`` triggers none of them to run a stage, because it runs all stages itself.
    """
    prepare, generate = jobs["prepare"], jobs["generate_pending"]
    return [
        ChangeWatch(batch_file, names, sources, input_asset).sensor(prepare),
        _generate_sensor(names.own("generate_after_prepare"), prepare, generate),
        _publish_sensor(names),
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


def _publish_sensor(names: Names) -> dg.SensorDefinition:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=dg.BetaWarning)
        return dg.AutomationConditionSensorDefinition(
            names.own("publish_automatically"),
            target=dg.AssetSelection.assets(names.key("export"), names.key("report")),
            default_status=dg.DefaultSensorStatus.RUNNING,
            minimum_interval_seconds=WATCH_SEC,
            description="Launches export and report after items were generated in any way. Makes no calls.",
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
        batch = self.batch_file.load()
        self._remove_retired(context.instance, batch)
        versions = {self.names.key(name): SOURCE_VERSIONS[name](batch) for name in self.sources}
        seen = {key: recorded_version(context.instance, key) for key in versions}
        changed = [key for key, version in versions.items() if version != seen[key]]
        # The prepare stage does not depend on the model.
        to_prepare = [key for key in changed if key != self.names.key("model_settings")]
        state = {key.path[-1]: version for key, version in versions.items()}
        state["schema"] = schema_file_sha(batch)
        if self.input_asset:
            made = recorded_version(context.instance, self.input_asset)
            if made is None:
                return dg.SkipReason(f"Materialize {self.input_asset.to_user_string()} first: it provides the table.")
            state["input_asset"] = made
        cursor = json.dumps(state, sort_keys=True)
        if context.cursor == cursor:
            return dg.SkipReason("Table, prompts, schema and configuration have not changed.")
        # Each change launches one run, even if that run fails. Whatever else has prepared these versions counts, too.
        is_prepared = not to_prepare and not self._only_other_changes(context.cursor, state)
        return dg.SensorResult(
            [] if is_prepared else [self._request(batch, to_prepare)],
            asset_events=[*(source_observation(key, versions[key]) for key in changed), *self._age(batch)],
            cursor=cursor,
        )

    def _only_other_changes(self, cursor: str | None, state: Mapping[str, str]) -> bool:
        """Return whether a file that is no source asset has changed since the last look."""
        before = json.loads(cursor) if cursor else state
        return any(before.get(name) != state.get(name) for name in ("schema", "input_asset"))

    def _request(self, batch: Batch, changed: Sequence[dg.AssetKey]) -> dg.RunRequest:
        assets = STAGES["prepare"] if has_schema(batch) else TABLE_ASSETS
        return dg.RunRequest(
            asset_selection=[self.names.key(asset) for asset in assets],
            tags={"llmbatch/changed": ",".join(key.path[-1] for key in changed) or "schema"},
        )

    def _age(self, batch: Batch) -> list[dg.AssetCheckEvaluation]:
        try:
            finding = stored_outputs_up_to_date(batch)
        except LlmBatchError:
            # Before the first run, or with a mistake in prompts or schema, which the run reports.
            return []
        return [dg.AssetCheckEvaluation(asset_key=self.names.key("llm_outputs"), **check_fields(finding))]

    def _remove_retired(self, instance: dg.DagsterInstance, batch: Batch) -> None:
        partitions = self.names.registered(instance)
        if partitions.has_retired and not partitions.is_targeted():
            items = load_artifact(batch, "work_items", WorkItems).items
            partitions.sync([item.partition_key for item in items])


_DESCRIPTIONS = {
    "input_table": "The input table file.",
    "prompts": "The prompt files. Only their messages affect outputs; name, version and purpose do not.",
    "parameters": "The configuration file of the batch.",
    "model_settings": "The settings of model and judge that affect outputs, from the configuration file.",
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
