"""Checks: whether what was made is good enough, complete, and still what would be delivered now."""

from collections.abc import Iterator, Sequence

import dagster as dg

from llmbatch_assets.adapters.artifacts import load_artifact
from llmbatch_assets.adapters.project import BatchFile
from llmbatch_assets.assets.keys import Names
from llmbatch_assets.domain.json_schema import open_objects
from llmbatch_assets.domain.quality import ABOUT_OUTPUTS, Finding
from llmbatch_assets.domain.work import GroupContext, WorkItems, unresolved

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

    return [schema_strict, contexts_resolve]


def _result(problem: str, names: Sequence[str]) -> dg.AssetCheckResult:
    """A check that passes where nothing is named."""
    shown = ", ".join(names[:MAX_NAMED]) + (", ..." if len(names) > MAX_NAMED else "")
    return dg.AssetCheckResult(
        passed=not names, metadata={"n_found": len(names)}, description=f"{shown} {problem}" if names else None
    )
