"""The assets of the publish stage: ``export`` and ``report``."""

from typing import Any

import dagster as dg
from dagster._core.storage.tags import AUTOMATION_CONDITION_TAG
from pydantic import Field

from llmbatch_assets.assets.checks import require_passed_checks
from llmbatch_assets.assets.descriptions import description
from llmbatch_assets.assets.names import Names
from llmbatch_assets.domain.export.manifest import ExportManifest, export_notes
from llmbatch_assets.domain.export.records import export_warnings
from llmbatch_assets.domain.run.quality import ACCEPTANCE, OUTPUT_CHECKS
from llmbatch_assets.domain.text import visible
from llmbatch_assets.resources.runs import failing_with_message
from llmbatch_assets.stages.artifacts import BatchOutputs, StoredSnapshot
from llmbatch_assets.stages.project import BatchFile
from llmbatch_assets.stages.publish.export import current_export, write_exports
from llmbatch_assets.stages.publish.report import ReportManifest, charts_as_markdown, current_report, write_report


class ExportConfig(dg.Config):
    """Configuration of ``export``."""

    force: bool = Field(default=False, description="Write the files again even if they are up to date.")


class ReportConfig(dg.Config):
    """Configuration of ``report``."""

    force: bool = Field(default=False, description="Write the files again even if they are up to date.")


def publish_condition(names: Names) -> dg.AutomationCondition[dg.AssetKey]:
    """The default condition of the export: a run of ``llm_outputs`` has ended, whichever way it was launched.

    Every such run ends with a check, even if items failed. Updated partitions would be noticed in the middle of it.
    """
    condition, outputs = dg.AutomationCondition, names.key("llm_outputs")
    last_check = dg.AssetSelection.checks(dg.AssetCheckKey(outputs, ACCEPTANCE))
    run_ended = condition.any_deps_match(
        condition.any_checks_match(condition.newly_updated()).allow(last_check).with_label("a run has ended")
    ).allow(dg.AssetSelection.assets(outputs))
    # Checks have no time for Dagster, so a run that ended during a publication looks as if it had been published by it.
    ended_meanwhile = run_ended & condition.executed_with_tags(tag_keys={AUTOMATION_CONDITION_TAG})
    made = (condition.newly_requested() & ~run_ended) | (condition.newly_updated() & ~ended_meanwhile)
    return _once_after(run_ended, made)


def report_condition(names: Names) -> dg.AutomationCondition[dg.AssetKey]:
    """The default condition of the report, and of the export as a table: the export was written."""
    condition = dg.AutomationCondition
    exported = condition.any_deps_updated().allow(dg.AssetSelection.assets(names.key("export")))
    return _once_after(exported, condition.newly_requested() | condition.newly_updated())


def _once_after(
    event: dg.AutomationCondition[dg.AssetKey], made: dg.AutomationCondition[Any]
) -> dg.AutomationCondition[dg.AssetKey]:
    """Request the asset after the event, until it is made, when nothing is running that it depends on or that makes it."""
    condition = dg.AutomationCondition
    waiting = event.since(made)
    return waiting & ~condition.any_deps_in_progress() & ~condition.in_progress()


def publish_assets(batch_file: BatchFile, names: Names) -> list[dg.AssetsDefinition]:
    inputs = {
        "llm_outputs": dg.AssetIn(key=names.key("llm_outputs"), partition_mapping=dg.AllPartitionMapping()),
        "input_snapshot": dg.AssetIn(key=names.key("input_snapshot")),
    }
    return [_export_asset(batch_file, names, inputs), _report_asset(batch_file, names, inputs)]


def _export_asset(batch_file: BatchFile, names: Names, inputs: dict[str, dg.AssetIn]) -> dg.AssetsDefinition:
    @dg.asset(
        key=names.key("export"),
        group_name=names.group,
        ins=inputs,
        deps=[names.key("work_items")],
        io_manager_key=names.io_manager,
        automation_condition=publish_condition(names),
        kinds={"table"},
        description=description("export"),
    )
    @failing_with_message()
    def export(
        context: dg.AssetExecutionContext,
        config: ExportConfig,
        llm_outputs: BatchOutputs,
        input_snapshot: StoredSnapshot,
    ) -> dg.Output[dict[str, Any]]:
        batch = batch_file.load()
        if batch.parameters.checks.block_export:
            repair = f"{batch.command} --select llm_outputs"
            require_passed_checks(context.instance, names.key("llm_outputs"), OUTPUT_CHECKS, repair)
        for warning in export_warnings(batch.parameters):
            context.log.warning(visible(warning))
        manifest = None if config.force else current_export(batch, llm_outputs)
        if manifest:
            context.log.info(f"Unchanged since {manifest.meta.generated_at_utc}: nothing was written")
        else:
            manifest = write_exports(batch, llm_outputs, input_snapshot.load())
        for note in export_notes(manifest):
            context.log.warning(visible(note))
        return dg.Output(manifest.model_dump(), metadata=export_metadata(manifest))

    return export


def _report_asset(batch_file: BatchFile, names: Names, inputs: dict[str, dg.AssetIn]) -> dg.AssetsDefinition:
    @dg.asset(
        key=names.key("report"),
        group_name=names.group,
        ins={"export": dg.AssetIn(key=names.key("export")), **inputs},
        deps=[names.key("work_items"), names.key("group_contexts"), names.key("llm_schema_txt")],
        io_manager_key=names.io_manager,
        automation_condition=report_condition(names),
        kinds={"markdown"},
        output_required=False,
        description=description("report"),
    )
    def report(
        context: dg.AssetExecutionContext,
        config: ReportConfig,
        export: ExportManifest,
        llm_outputs: BatchOutputs,
        input_snapshot: StoredSnapshot,
    ) -> Any:
        with failing_with_message():
            batch = batch_file.load()
            if not batch.parameters.report.enabled:
                context.log.info("report.enabled is false; nothing to do")
                return
            manifest = None if config.force else current_report(batch, llm_outputs)
            if manifest:
                context.log.info(f"Unchanged since {manifest.meta.generated_at_utc}: nothing was written")
            else:
                manifest = write_report(batch, llm_outputs, export, input_snapshot.load()).manifest
            charts = charts_as_markdown(batch, manifest)
            yield dg.Output(manifest.model_dump(), metadata=report_metadata(manifest, charts))

    return report


def export_metadata(manifest: ExportManifest) -> dict[str, Any]:
    columns = [
        dg.TableColumn(visible(column["name"]), column["type"], visible(column["from"])) for column in manifest.columns
    ]
    return {
        **_explained(manifest.counts),
        "dagster/row_count": manifest.counts["n_records"],
        "dagster/column_schema": dg.TableSchema(columns=columns),
        **_file_metadata(manifest.files),
        "not_exported_file": dg.MetadataValue.path(visible(manifest.not_exported_file)),
        "preview": dg.MetadataValue.md(manifest.preview),
    }


def _explained(counts: dict[str, int]) -> dict[str, int]:
    """Leave out the counts that are 0, except for those that every export has."""
    return {name: count for name, count in counts.items() if count or name in {"n_records", "n_items"}}


def report_metadata(manifest: ReportManifest, charts: str) -> dict[str, Any]:
    # Dagster plots the numbers over time.
    numbers = {**manifest.counts, **manifest.numbers}
    return {
        **{name: number for name, number in numbers.items() if number is not None},
        "summary": dg.MetadataValue.md(manifest.summary),
        "charts": dg.MetadataValue.md(charts),
        **_file_metadata(manifest.files),
    }


def _file_metadata(files: dict[str, str]) -> dict[str, dg.PathMetadataValue]:
    return {f"{name.replace(' ', '_')}_file": dg.MetadataValue.path(visible(path)) for name, path in files.items()}
