"""Report stage: collect findings about the outputs and write them as HTML and Markdown."""

import os
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import quote
from zoneinfo import ZoneInfo

from pydantic import BaseModel

from llmbatch_assets.adapters.files.atomic import write_atomically
from llmbatch_assets.adapters.pages import rendering
from llmbatch_assets.adapters.pages.report_charts import load_drawings, save_drawings
from llmbatch_assets.adapters.pages.report_rows import PAGE_BYTES, RowSpool
from llmbatch_assets.adapters.store.run_records import read_ledger, read_runs
from llmbatch_assets.domain.export.manifest import ExportManifest
from llmbatch_assets.domain.items.table import Snapshot
from llmbatch_assets.domain.items.work import WorkItem
from llmbatch_assets.domain.outcome import AcceptedOutput
from llmbatch_assets.domain.report.findings import Findings
from llmbatch_assets.domain.report.items import Sample, in_schema_order, sample_of
from llmbatch_assets.domain.report.page import About, ReportPage, data_quality, report_page
from llmbatch_assets.domain.report.value_counts import CountedColumn, counted_columns
from llmbatch_assets.domain.run.ledger import last_runs, usage_by_run, usage_of_all_runs
from llmbatch_assets.domain.run.manifest import GenerationManifest
from llmbatch_assets.domain.text import counted
from llmbatch_assets.stages.artifacts import BatchOutputs, load_artifact
from llmbatch_assets.stages.own_files import require_own_files
from llmbatch_assets.stages.project import Batch
from llmbatch_assets.stages.runtime import utc_now

MOST_RUNS = 12


class ReportMeta(BaseModel):
    pipeline: Literal[6] = 6
    generated_at_utc: str


class ReportManifest(BaseModel):
    """The manifest: ``pipeline6_manifest.json``."""

    meta: ReportMeta
    counts: dict[str, int]
    files: dict[str, str]


class ReportResult(NamedTuple):
    """The manifest of a report that was written, and the report's contents. ``charts`` are Markdown."""

    manifest: ReportManifest
    page: ReportPage
    charts: str

    @property
    def summary(self) -> str:
        """The key tables as Markdown."""
        return rendering.render_summary(self.page)


def write_report(
    batch: Batch, outputs: BatchOutputs, export: ExportManifest, snapshot: Snapshot, page_bytes: int = PAGE_BYTES
) -> ReportResult:
    """Write the report.

    Raises ``ConfigError`` if ``report.count_by`` has a name that is neither column nor field, or if a file is in the place
    of the report that no run has written.
    """
    settings = batch.parameters.report
    require_own_files(batch, "report")
    drawings = batch.path(batch.layout.report_charts)
    load_drawings(drawings)
    fields = _output_fields(batch)

    def output_of(item: WorkItem) -> AcceptedOutput | None:
        output = outputs.output(item)
        return output and in_schema_order(output, fields)

    findings = Findings(settings, columns_to_count(batch, snapshot.columns), snapshot.rows)
    with RowSpool(page_bytes) as spool:
        for item in outputs.items:
            spool.add(findings.add(item, output_of(item), outputs.failures(item)))
        page = report_page(findings, _about(batch, outputs, findings, snapshot), _samples(output_of, findings))
        files = _markdown(batch, page, export)
        if settings.write_html:
            files |= _html(batch, page, export, spool)
    charts = rendering.render_charts(page.all_charts)
    save_drawings(drawings, page.all_charts)
    meta = ReportMeta(generated_at_utc=utc_now())
    return ReportResult(ReportManifest(meta=meta, counts=page.counts, files=files), page, charts)


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
        facts=_facts(batch, records[-1].run_id if records else None),
        calls=f"{counted(total.requests, 'call')}, {total.total_tokens:,} tokens, {total}",
        spent=str(total),
        config=batch.parameters.model_dump(mode="json"),
        quality=data_quality(snapshot.meta, outputs.plan_warnings, findings),
        runs=last_runs(records, costs, MOST_RUNS),
    )


def _facts(batch: Batch, last_run: str | None) -> dict[str, Any]:
    identity = batch.source.identity
    trusted = batch.parameters.llm_schema.trust
    facts = {
        "Last generation": _last_generation(batch),
        "Last Dagster run with work to do": last_run or "not recorded",
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


def _last_generation(batch: Batch) -> str:
    manifest = load_artifact(batch, "llm_outputs", GenerationManifest)
    zone = batch.parameters.run.timezone
    at = datetime.fromisoformat(manifest.meta.generated_at_utc).astimezone(ZoneInfo(zone))
    counts = manifest.counts
    return (
        f"{at:%Y-%m-%d %H:%M:%S} {zone}, {manifest.meta.elapsed_sec} s, "
        f"{counts.n_cache_skipped:,} of {counts.n_total:,} items from the cache"
    )


def _markdown(batch: Batch, page: ReportPage, export: ExportManifest) -> dict[str, str]:
    path = batch.layout.report("md")
    text = rendering.render_markdown(page, _file_links(batch, export, batch.path(path)))
    write_atomically(batch.path(path), text.encode())
    return {"md": str(path)}


def _html(batch: Batch, page: ReportPage, export: ExportManifest, spool: RowSpool) -> dict[str, str]:
    layout, first = batch.layout, batch.layout.report("html")
    slices = spool.slices()
    paths = [first, *(first.with_name(f"{first.stem}.part{n}{first.suffix}") for n in range(2, len(slices) + 1))]
    parts = rendering.parts_of(slices, [quote(path.name) for path in paths])
    hrefs = (_href(batch, str(folder), batch.path(first)) for folder in (layout.llm_outputs, layout.llm_failures))
    folders = rendering.Folders(*(f"{href}/" if href else "" for href in hrefs))
    files = _file_links(batch, export, batch.path(first))
    # The first page links to the others, so write it last.
    for path, part in reversed(list(zip(paths, parts, strict=True))):
        write_atomically(batch.path(path), rendering.render_html(page, files, folders, parts, part, spool))
    _remove_old_parts(batch.path(first), {path.name for path in paths})
    return {"html": str(first)} | {f"html part {n}": str(path) for n, path in enumerate(paths[1:], start=2)}


def _remove_old_parts(first: Path, kept: set[str]) -> None:
    """Remove the parts of an earlier, larger report."""
    part_name = re.compile(re.escape(first.stem) + r"\.part\d+" + re.escape(first.suffix))
    for path in first.parent.glob("*"):
        if part_name.fullmatch(path.name) and path.name not in kept:
            path.unlink()


def _file_links(batch: Batch, export: ExportManifest, report: Path) -> dict[str, rendering.Link]:
    layout, prompts = batch.layout, batch.parameters.prompts
    paths = {
        "Input table": batch.parameters.input.path,
        "Input snapshot": layout.snapshot,
        "Work items": layout.work_items,
        "Group contexts": layout.group_contexts,
        "Schema module": layout.schema_py,
        "JSON Schema": layout.schema_txt,
        "Generation prompt": prompts.generation.path,
        "Judge prompt": prompts.judge.path if prompts.judge.enabled else None,
        "Outputs": layout.llm_outputs,
        # The folder is created by the first failure.
        "Failed attempts": layout.llm_failures if batch.path(layout.llm_failures).is_dir() else None,
        "Items not exported, with reasons": layout.not_exported,
        "Generation manifest": layout.manifest(4),
        "Export manifest": layout.manifest(5),
        "Report manifest": layout.manifest(6),
        "All calls": layout.ledger,
        "Run history": layout.run_history,
        "Prompt and schema archive": layout.provenance,
        **{f"Export ({name})": path for name, path in export.files.items()},
    }
    return {
        name: rendering.Link(str(path), _href(batch, str(path), report))
        for name, path in paths.items()
        if path is not None
    }


def _href(batch: Batch, path: str, report: Path) -> str | None:
    """The relative address of a project file seen from the report; None if either is outside the project."""
    target, root = batch.path(path).resolve(), batch.root.resolve()
    if not (target.is_relative_to(root) and report.resolve().is_relative_to(root)):
        return None
    return quote(Path(os.path.relpath(target, report.resolve().parent)).as_posix())
