"""Pipelines 5 and 6 of one batch: from accepted outputs to files for people and programs."""

from datetime import datetime
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

from llmbatch_assets.adapters.artifacts import load_artifact
from llmbatch_assets.adapters.exporters import export_file
from llmbatch_assets.adapters.files import write_atomically
from llmbatch_assets.adapters.ledger import read_ledger
from llmbatch_assets.adapters.output_reader import OutputReader
from llmbatch_assets.adapters.project import Batch
from llmbatch_assets.adapters.report_page import render_html, render_markdown
from llmbatch_assets.domain.cost import shown
from llmbatch_assets.domain.export import ExportManifest, export_columns, export_manifest, records
from llmbatch_assets.domain.ledger import Spending
from llmbatch_assets.domain.manifest import GenerationManifest
from llmbatch_assets.domain.report import Findings, gather, report_page
from llmbatch_assets.domain.table import Snapshot
from llmbatch_assets.resources.generation import utc_now


def deliver_exports(batch: Batch, outputs: OutputReader, snapshot: Snapshot) -> dict[str, Any]:
    """Write every configured export; gives the manifest, whose counts add up to the number of items."""
    grouping = batch.parameters.grouping
    grouped = grouping.effective_mode == "group_output"
    column = grouping.column if grouped else None
    fields = batch.schema.output().json_schema.get("properties", {})
    columns = export_columns([column] if column else snapshot.columns, fields)
    files: dict[str, str] = {}
    for file_format in batch.parameters.outputs.formats:
        path = batch.layout.export(file_format)
        export_file(batch.path(path), file_format, records(snapshot, column, outputs), columns)
        files[file_format] = str(path)
    n_records = sum(1 for _ in records(snapshot, column, outputs))
    return export_manifest(columns, files, n_records, _counts(outputs), utc_now())


def _counts(outputs: OutputReader) -> dict[str, int]:
    states = [outputs.store.state(outputs.identity.cache_id(item.work_id)) for item in outputs.items]
    accepted, missing = states.count("accepted"), states.count("missing")
    return {
        "n_items": len(states),
        "n_exported": accepted,
        "n_failed": len(states) - accepted - missing,
        "n_missing": missing,
    }


def deliver_report(batch: Batch, outputs: OutputReader, export: ExportManifest) -> dict[str, Any]:
    """Write the report; gives its manifest."""
    settings = batch.parameters.report
    findings = Findings(settings.sample_per_group, settings.max_reason_examples, settings.include_full_examples)
    gather(findings, outputs.items, outputs.output, outputs.failure)
    page = report_page(
        findings,
        title=batch.title,
        config=batch.parameters.model_dump(mode="json"),
        facts=_facts(batch),
        pointers=_pointers(batch, export),
    )
    renderers = {"md": partial(render_markdown, page)}
    if settings.write_html:
        renderers["html"] = partial(render_html, page)
    for name, render in renderers.items():
        # A model's words can hold half a surrogate pair, which is no UTF-8.
        write_atomically(batch.path(batch.layout.report(name)), render().encode(errors="backslashreplace"))
    files = {name: str(batch.layout.report(name)) for name in renderers}
    return {"meta": {"pipeline": 6, "generated_at_utc": utc_now()}, "counts": findings.counts(), "files": files}


def _facts(batch: Batch) -> dict[str, Any]:
    identity = batch.source.identity
    meta = load_artifact(batch, "llm_outputs", GenerationManifest).meta
    zone = batch.parameters.run.timezone
    generated = datetime.fromisoformat(meta.generated_at_utc).astimezone(ZoneInfo(zone))
    facts = {
        "last generation": f"{generated:%Y-%m-%d %H:%M:%S} {zone}, {meta.elapsed_sec} s",
        "provider": batch.source.provider,
        "model": identity.model_name,
        "temperature": identity.temperature,
        "grouping": batch.parameters.grouping.effective_mode,
        "judge": "on" if identity.judge_enabled else "off",
        "prompt_sha": identity.prompt_sha,
        "schema_sha": identity.schema_sha,
        "all calls so far": _spent(batch),
        "schema module": "imported as it is (llm_schema.trust)" if batch.parameters.llm_schema.trust else "vetted",
    }
    return facts | ({"judge_prompt_sha": identity.judge_prompt_sha} if identity.judge_enabled else {})


def _spent(batch: Batch) -> str:
    """What every call since the ledger was begun came to: those that failed, and earlier settings, too."""
    spending = Spending(read_ledger(batch.path(batch.layout.ledger)))
    usage = spending.usage
    return f"{usage.requests}, {usage.total_tokens} tokens, {shown(usage.cost_usd, spending.unknown)}"


def _pointers(batch: Batch, export: ExportManifest) -> dict[str, str]:
    layout = batch.layout
    fixed = {
        "input snapshot": layout.snapshot,
        "work items": layout.work_items,
        "group contexts": layout.group_contexts,
        "outputs": layout.llm_outputs,
        "failures": layout.llm_failures,
        "generation manifest": layout.manifest(4),
        "ledger of all calls": layout.ledger,
        "schema": layout.schema_py,
    }
    return {name: str(path) for name, path in fixed.items()} | {f"{k} export": v for k, v in export.files.items()}
