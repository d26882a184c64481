"""Asset checks: output quality, complete artifacts, and an export that matches the current outputs."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationTargetMaterializationData
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

from llmbatch_assets.assets.names import Names
from llmbatch_assets.domain.items.work import GroupContext, WorkItems, unresolved
from llmbatch_assets.domain.run.quality import OUTPUT_CHECKS, UP_TO_DATE, UP_TO_DATE_DESCRIPTION, CheckFinding
from llmbatch_assets.domain.schema.json_schema import open_objects
from llmbatch_assets.errors import LlmBatchError
from llmbatch_assets.resources.runs import failing_with_message
from llmbatch_assets.stages.artifacts import load_artifact
from llmbatch_assets.stages.plan import stored_outputs_up_to_date
from llmbatch_assets.stages.project import Batch, BatchFile
from llmbatch_assets.stages.publish.export_check import export_problems

MAX_NAMED = 10
_EVALUATED = {AssetCheckExecutionRecordStatus.SUCCEEDED, AssetCheckExecutionRecordStatus.FAILED}


def output_check_specs(names: Names) -> list[dg.AssetCheckSpec]:
    """The checks that a run of ``llm_outputs`` evaluates itself."""
    return [
        dg.AssetCheckSpec(name, asset=names.key("llm_outputs"), description=description)
        for name, description in {**OUTPUT_CHECKS, UP_TO_DATE: UP_TO_DATE_DESCRIPTION}.items()
    ]


def check_evaluation(instance: dg.DagsterInstance, key: dg.AssetKey, finding: CheckFinding) -> dg.AssetCheckEvaluation:
    """The finding as an event about the asset, from outside of it.

    Dagster shows a check only if it is about the asset's latest materialization. Without being told, it compares times,
    those of its database in whole seconds.
    """
    latest = instance.fetch_materializations(key, limit=1).records
    target = [
        AssetCheckEvaluationTargetMaterializationData(
            storage_id=one.storage_id, run_id=one.run_id, timestamp=one.timestamp
        )
        for one in latest
    ]
    fields = check_fields(finding)
    return dg.AssetCheckEvaluation(asset_key=key, target_materialization_data=target[0] if target else None, **fields)


def report_age(instance: dg.DagsterInstance, batch: Batch, names: Names) -> None:
    """Evaluate the check ``up_to_date`` from the files that the last runs have left."""
    try:
        finding = stored_outputs_up_to_date(batch)
    except LlmBatchError:
        # Without a schema, or with a mistake in it or the prompts, which the next run reports.
        return
    report_check(instance, names.key("llm_outputs"), finding)


def report_check(instance: dg.DagsterInstance, key: dg.AssetKey, finding: CheckFinding) -> None:
    """Record the finding outside of a run of the asset."""
    instance.report_runless_asset_event(check_evaluation(instance, key, finding))


def check_fields(finding: CheckFinding) -> dict[str, Any]:
    """The finding as the arguments of a check result."""
    return {
        "check_name": finding.name,
        "passed": finding.passed,
        "severity": dg.AssetCheckSeverity.WARN if finding.warning else dg.AssetCheckSeverity.ERROR,
        "description": finding.message,
        "metadata": finding.facts,
    }


def require_passed_checks(
    instance: dg.DagsterInstance, asset_key: dg.AssetKey, checks: Iterable[str], repair: str
) -> None:
    """Raise ``Failure`` if one of the asset's checks failed or was never evaluated.

    Only the latest evaluation counts, whichever run made it. Failed checks with severity WARN are ignored. ``repair``
    is the command that evaluates the checks again.
    """
    found = (_check_problem(instance, dg.AssetCheckKey(asset_key, name)) for name in checks)
    problems = [problem for problem in found if problem]
    if problems:
        raise dg.Failure(
            f"not exported, because checks.block_export is set: {'; '.join(problems)}. Fix the cause and run {repair}, "
            "or unset checks.block_export",
            metadata={"n_checks": len(problems)},
            allow_retries=False,
        )


def _check_problem(instance: dg.DagsterInstance, key: dg.AssetCheckKey) -> str:
    # An interrupted run leaves planned checks without a result; then the earlier evaluation still holds.
    records = instance.event_log_storage.get_asset_check_execution_history(key, limit=1, status=_EVALUATED)
    event = records[0].event if records else None
    latest = event.dagster_event.asset_check_evaluation_data if event and event.dagster_event else None
    if latest is None:
        return f"{key.name} has not been checked yet"
    if latest.passed or latest.severity is not dg.AssetCheckSeverity.ERROR:
        return ""
    return f"{key.name} failed ({latest.description})"


def batch_checks(batch_file: BatchFile, names: Names) -> list[dg.AssetChecksDefinition]:
    """The checks that read files. Each is a separate step and can be rerun at any time."""

    @dg.asset_check(
        asset=names.key("llm_schema_py"),
        name="schema_strict",
        description="Every model of the schema rejects fields that it does not declare.",
    )
    @failing_with_message()
    def schema_strict() -> dg.AssetCheckResult:
        return _result("accepts undeclared fields", open_objects(batch_file.load().schema.output().json_schema))

    @dg.asset_check(
        asset=names.key("work_items"),
        name="contexts_resolve",
        additional_deps=[names.key("group_contexts")],
        description="Every work item has a context, and every group context that it refers to exists.",
    )
    @failing_with_message()
    def contexts_resolve() -> dg.AssetCheckResult:
        batch = batch_file.load()
        work_items = load_artifact(batch, "work_items", WorkItems)
        contexts = load_artifact(batch, "group_contexts", list[GroupContext])
        return _result("has no context", unresolved(work_items.items, contexts))

    return [schema_strict, contexts_resolve, _export_checks(batch_file, names)]


_EXPORT_CHECKS = {
    "every_row_once": "Every row or group with an accepted output is in the exported file exactly once.",
    "matches_outputs": "Every exported record is from the currently accepted output. Dagster does not track staleness "
    "across 100 or more partitions, so it does not mark an old export as stale.",
}


def _export_checks(batch_file: BatchFile, names: Names) -> dg.AssetChecksDefinition:
    """Both checks of the export in one step, since they compare the same files."""
    export = names.key("export")

    @dg.multi_asset_check(
        name=names.own("export_checks"),
        specs=[dg.AssetCheckSpec(name, asset=export, description=text) for name, text in _EXPORT_CHECKS.items()],
        can_subset=True,
    )
    def export_checks(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        with failing_with_message():
            problems = export_problems(batch_file.load())
        results = {
            "every_row_once": _result("not exported exactly once; run export again", problems.not_once),
            "matches_outputs": _result("not from the currently accepted output; run export again", problems.outdated),
        }
        for key in context.op_execution_context.selected_asset_check_keys:
            yield results[key.name]._replace(check_name=key.name, asset_key=export)

    return export_checks


def _result(problem: str, names: Sequence[str]) -> dg.AssetCheckResult:
    """A check result that passes if there are no names."""
    shown = ", ".join(names[:MAX_NAMED]) + (", ..." if len(names) > MAX_NAMED else "")
    return dg.AssetCheckResult(
        passed=not names, metadata={"n_found": len(names)}, description=f"{shown} {problem}" if names else None
    )
