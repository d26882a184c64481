"""Report stage: collect findings about the outputs and write them as HTML and Markdown."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple
from urllib.parse import quote
from zoneinfo import ZoneInfo

from pydantic import BaseModel

from llmbatch_assets.adapters.pages.report_charts import load_drawings, render_charts, save_drawings
from llmbatch_assets.adapters.pages.report_rows import PAGE_BYTES, RowSpool
from llmbatch_assets.adapters.store.run_records import read_ledger, read_runs
from llmbatch_assets.domain.export.manifest import ExportManifest, FileChecksum
from llmbatch_assets.domain.items.table import Snapshot
from llmbatch_assets.domain.items.work import WorkItem
from llmbatch_assets.domain.outcome import AcceptedOutput
from llmbatch_assets.domain.report.charts import Chart
from llmbatch_assets.domain.report.findings import Findings
from llmbatch_assets.domain.report.items import Sample, in_schema_order, sample_of
from llmbatch_assets.domain.report.page import About, ReportPage, data_quality, report_page
from llmbatch_assets.domain.report.value_counts import CountedColumn, counted_columns
from llmbatch_assets.domain.run.ledger import RunRecord, last_runs, usage_by_run, usage_of_all_runs
from llmbatch_assets.domain.text import counted
from llmbatch_assets.errors import MissingArtifactError
from llmbatch_assets.stages.artifacts import BatchOutputs, artifact_path
from llmbatch_assets.stages.own_files import require_own_files
from llmbatch_assets.stages.project import Batch
from llmbatch_assets.stages.publish.fingerprints import checksums_of, report_fingerprint, up_to_date_manifest
from llmbatch_assets.stages.runtime import YOUNG_OBJECTS_OF_TABLES, rare_collections, utc_now

MOST_RUNS = 12


class ReportMeta(BaseModel):
    """The ``meta`` of the manifest. ``fingerprint`` identifies everything that the report was made from."""

    pipeline: Literal[6] = 6
    generated_at_utc: str
    fingerprint: str = ""


class ReportManifest(BaseModel):
    """The manifest: ``pipeline6_manifest.json``.

    ``numbers`` and ``summary``, the key tables as Markdown, are for Dagster. ``checksums`` are by path.
    """

    meta: ReportMeta
    counts: dict[str, int]
    files: dict[str, str]
    numbers: dict[str, int | float | None] = {}
    summary: str = ""
    charts: list[Chart] = []
    checksums: dict[str, FileChecksum] = {}


class ReportResult(NamedTuple):
    """The manifest of a report that was written, and the report's contents."""

    manifest: ReportManifest
    page: ReportPage


def current_report(batch: Batch, outputs: BatchOutputs) -> ReportManifest | None:
    """The manifest of the last report if writing it again would change nothing, else None."""
    fingerprint = report_fingerprint(batch, outputs)
    found: ReportManifest | None = up_to_date_manifest(batch, "report", ReportManifest, fingerprint)
    return found


def charts_as_markdown(batch: Batch, manifest: ReportManifest) -> str:
    """The charts of the report as Markdown with embedded images."""
    load_drawings(batch.path(batch.layout.report_charts))
    return render_charts(manifest.charts)


def write_report(
    batch: Batch, outputs: BatchOutputs, export: ExportManifest, snapshot: Snapshot, page_bytes: int = PAGE_BYTES
) -> ReportResult:
    """Write the report.

    Raises ``ConfigError`` if ``report.count_by`` has a name that is neither column nor field, or if a file is in the place
    of the report that no run has written, and ``MissingArtifactError`` if nothing was generated yet.
    """
    settings = batch.parameters.report
    _require_generation(batch)
    require_own_files(batch, "report")
    # First, so that an output that changes meanwhile makes the next report show it.
    fingerprint = report_fingerprint(batch, outputs)
    load_drawings(batch.path(batch.layout.report_charts))
    fields = _output_fields(batch)

    def output_of(item: WorkItem) -> AcceptedOutput | None:
        output = outputs.output(item)
        return output and in_schema_order(output, fields)

    findings = Findings(settings, columns_to_count(batch, snapshot.columns), snapshot.rows)
    with rare_collections(YOUNG_OBJECTS_OF_TABLES), RowSpool(page_bytes) as spool:
        for item in outputs.items:
            spool.add(findings.add(item, output_of(item), outputs.failures(item)))
        page = report_page(findings, _about(batch, outputs, findings, snapshot), _samples(output_of, findings))
        # Imported late: only reports that are written need the templates.
        from llmbatch_assets.stages.publish.report_files import write_files

        files, summary = write_files(batch, page, export, spool)
    save_drawings(batch.path(batch.layout.report_charts), page.all_charts)
    manifest = ReportManifest(
        meta=ReportMeta(generated_at_utc=utc_now(), fingerprint=fingerprint),
        counts=page.counts,
        numbers=page.numbers,
        charts=page.all_charts,
        files=files,
        summary=summary,
        checksums=checksums_of(batch, [*files.values(), batch.layout.report_charts]),
    )
    return ReportResult(manifest, page)


def _require_generation(batch: Batch) -> None:
    if not (path := artifact_path(batch, "llm_outputs")).is_file():
        raise MissingArtifactError(f"{path} does not exist; make it with: {batch.command} --select llm_outputs")


def columns_to_count(batch: Batch, columns: Sequence[str]) -> list[CountedColumn]:
    """The columns and output fields that ``report.count_by`` names. Raises ``ConfigError``."""
    names = batch.parameters.report.count_by
    return counted_columns(names, columns, _output_fields(batch)) if names else []


def _output_fields(batch: Batch) -> list[str]:
    """The fields of an output in schema order."""
    return list(batch.schema.output().json_schema.get("properties", {}))


def _samples(output_of: Callable[[WorkItem], AcceptedOutput | None], findings: Findings) -> list[Sample]:
    full = findings.settings.include_full_examples
    picked = ((item, output_of(item)) for item in findings.samples.items())
    return [sample_of(item, output, full=full) for item, output in picked if output is not None]


def report_address(batch: Batch) -> str:
    """Return the address of the HTML report; empty if none is written."""
    settings = batch.parameters.report
    if not (settings.enabled and settings.write_html):
        return ""
    path = batch.path(batch.layout.report("html"))
    return f"{settings.base_url.rstrip('/')}/{quote(path.name)}" if settings.base_url else path.resolve().as_uri()


def _about(batch: Batch, outputs: BatchOutputs, findings: Findings, snapshot: Snapshot) -> About:
    costs = usage_by_run(read_ledger(batch.path(batch.layout.ledger)))
    # All calls in the ledger, including failed ones and those with earlier settings.
    total = usage_of_all_runs(costs.values())
    records = list(read_runs(batch.path(batch.layout.run_history)))
    return About(
        title=batch.title,
        facts=_facts(batch, records[-1] if records else None),
        calls=f"{counted(total.requests, 'call')}, {total.total_tokens:,} tokens, {total}",
        spent=str(total),
        config=batch.parameters.model_dump(mode="json"),
        quality=data_quality(snapshot.meta, outputs.plan_warnings, findings),
        runs=last_runs(records, costs, MOST_RUNS),
    )


def _facts(batch: Batch, last_run: RunRecord | None) -> dict[str, Any]:
    identity = batch.source.identity
    trusted = batch.parameters.llm_schema.trust
    facts = {
        "Last generation": _last_generation(batch, last_run) if last_run else "not recorded",
        "Last Dagster run with work to do": last_run.run_id if last_run else "not recorded",
        "Command": batch.command,
        "Provider": batch.source.provider,
        "Model": identity.model_name,
        "Temperature": identity.temperature,
        "Grouping": batch.parameters.grouping.active_mode.name,
        "Judge": "on" if identity.judge_enabled else "off",
        "prompt_sha": identity.prompt_sha,
        "schema_sha": identity.schema_sha,
        "Schema module": "imported unchanged (llm_schema.trust)" if trusted else "checked, not executed",
    }
    if identity.judge_enabled:
        facts["judge_prompt_sha"] = identity.judge_prompt_sha
        facts["Judge model"] = batch.parameters.judge_llm().model_name
    return facts | {"configuration_sha": batch.config_sha()}


def _last_generation(batch: Batch, run: RunRecord) -> str:
    """The last run that had items to run. Others change nothing, so the report stays as it is."""
    zone = batch.parameters.run.timezone
    at = datetime.fromisoformat(run.ended_at_utc).astimezone(ZoneInfo(zone))
    return f"{at:%Y-%m-%d %H:%M:%S} {zone}, {run.elapsed_sec} s, {run.n_to_run:,} of {run.n_total:,} items"
