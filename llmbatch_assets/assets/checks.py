"""Checks: whether what was made is good enough, complete, and still what would be delivered now."""

from collections.abc import Iterator, Sequence

import dagster as dg

from llmbatch_assets.assets.names import Names
from llmbatch_assets.domain.export.export_check import expected_outputs, not_once, out_of_date
from llmbatch_assets.domain.items.work import GroupContext, WorkItems, unresolved
from llmbatch_assets.domain.quality import ABOUT_OUTPUTS, Finding
from llmbatch_assets.domain.schema.json_schema import open_objects
from llmbatch_assets.stages.artifacts import batch_outputs, load_artifact
from llmbatch_assets.stages.exported import exported_outputs
from llmbatch_assets.stages.project import BatchFile

MAX_NAMED = 10


def output_check_specs(names: Names) -> list[dg.AssetCheckSpec]:
    """The checks that a run of ``llm_outputs`` makes itself, since it knows what it did."""
    return [
        dg.AssetCheckSpec(name, asset=names.key("llm_outputs"), description=what)
        for name, what in ABOUT_OUTPUTS.items()
    ]


def check_results(findings: Iterator[Finding]) -> Iterator[dg.AssetCheckResult]:
    """The findings as Dagster takes them."""
    for finding in findings:
        yield dg.AssetCheckResult(
            check_name=finding.name,
            passed=finding.passed,
            severity=dg.AssetCheckSeverity.WARN if finding.warning else dg.AssetCheckSeverity.ERROR,
            description=finding.told,
            metadata=finding.facts,
        )


def evaluation(asset_key: dg.AssetKey, result: dg.AssetCheckResult) -> dg.AssetCheckEvaluation:
    """A result as an event, for runs that are not the asset's own."""
    return dg.AssetCheckEvaluation(
        asset_key=asset_key,
        check_name=str(result.check_name),
        passed=result.passed,
        severity=result.severity,
        description=result.description,
        metadata=result.metadata,
    )


def batch_checks(batch_file: BatchFile, names: Names) -> list[dg.AssetChecksDefinition]:
    """The checks that look at files, each a step of its own that can be run again at any time."""

    @dg.asset_check(
        asset=names.key("llm_schema_py"),
        name="schema_strict",
        description="No model of the schema takes a field that it does not name.",
    )
    def schema_strict() -> dg.AssetCheckResult:
        return _result("takes further fields", open_objects(batch_file.load().schema.output().json_schema))

    @dg.asset_check(
        asset=names.key("work_items"),
        name="contexts_resolve",
        additional_deps=[names.key("group_contexts")],
        description="Every work item has its context, and every group context that it refers to is there.",
    )
    def contexts_resolve() -> dg.AssetCheckResult:
        batch = batch_file.load()
        work_items = load_artifact(batch, "work_items", WorkItems)
        contexts = load_artifact(batch, "group_contexts", list[GroupContext])
        return _result("has no context", unresolved(work_items.items, contexts))

    return [schema_strict, contexts_resolve, *_export_checks(batch_file, names)]


def _export_checks(batch_file: BatchFile, names: Names) -> list[dg.AssetChecksDefinition]:
    """Those that read the first exported file back: what was written says nothing of what is there."""

    @dg.asset_check(
        asset=names.key("export"),
        name="every_row_once",
        description="Every row or group that has an accepted output is in the exported file exactly once.",
    )
    def every_row_once() -> dg.AssetCheckResult:
        batch = batch_file.load()
        found = not_once(expected_outputs(batch_outputs(batch)), exported_outputs(batch))
        return _result("not in the export exactly once; run export again", found)

    @dg.asset_check(
        asset=names.key("export"),
        name="matches_outputs",
        description="Every exported record is of the output that is accepted now. Dagster does not look past 100 "
        "partitions, so it does not tell when the export is out of date.",
    )
    def matches_outputs() -> dg.AssetCheckResult:
        batch = batch_file.load()
        found = out_of_date(expected_outputs(batch_outputs(batch)), exported_outputs(batch))
        return _result("not of the outputs that are accepted now; run export again", found)

    return [every_row_once, matches_outputs]


def _result(problem: str, names: Sequence[str]) -> dg.AssetCheckResult:
    """A check that passes where nothing is named."""
    shown = ", ".join(names[:MAX_NAMED]) + (", ..." if len(names) > MAX_NAMED else "")
    return dg.AssetCheckResult(
        passed=not names, metadata={"n_found": len(names)}, description=f"{shown} {problem}" if names else None
    )
