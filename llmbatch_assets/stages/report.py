"""Pipeline 6 of one batch: introduces what is found in its outputs to those who draw and write it."""

import os
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote
from zoneinfo import ZoneInfo

from llmbatch_assets.adapters.files.atomic import write_atomically
from llmbatch_assets.adapters.pages.report_page import Link, Links, parts_of, render_html, render_markdown
from llmbatch_assets.adapters.pages.report_rows import PAGE_BYTES, RowSpool
from llmbatch_assets.adapters.store.ledger import read_ledger
from llmbatch_assets.adapters.store.reader import OutputReader
from llmbatch_assets.adapters.store.run_history import read_runs
from llmbatch_assets.domain.export.columns import ExportManifest
from llmbatch_assets.domain.items.table import Snapshot
from llmbatch_assets.domain.items.work import WorkItem
from llmbatch_assets.domain.ledger import last_runs, usage_by_run, usage_of_all_runs
from llmbatch_assets.domain.manifest import GenerationManifest
from llmbatch_assets.domain.outcome import AcceptedOutput
from llmbatch_assets.domain.report.counted import Counted, counted_columns
from llmbatch_assets.domain.report.findings import Findings, gather
from llmbatch_assets.domain.report.item import in_order
from llmbatch_assets.domain.report.page import About, report_page
from llmbatch_assets.domain.report.quality import quality
from llmbatch_assets.domain.report.samples import Sample, sample_of
from llmbatch_assets.stages.artifacts import load_artifact
from llmbatch_assets.stages.project import Batch
from llmbatch_assets.stages.runtime import utc_now

MOST_RUNS = 12


class Delivered(NamedTuple):
    """A report that was written: its manifest, and its contents for whoever shows them elsewhere."""

    manifest: dict[str, Any]
    page: dict[str, Any]


def deliver_report(
    batch: Batch, outputs: OutputReader, export: ExportManifest, snapshot: Snapshot, page_bytes: int = PAGE_BYTES
) -> Delivered:
    """Write the report. Raises ``ConfigError`` for a column that ``report.count_by`` names and nothing has."""
    settings = batch.parameters.report
    fields = _output_fields(batch)

    def output_of(item: WorkItem) -> AcceptedOutput | None:
        output = outputs.output(item)
        return output and in_order(output, fields)

    findings = Findings(settings, check_counted(batch, snapshot.columns), snapshot.rows)
    with RowSpool(page_bytes) as spool:
        gather(findings, outputs.items, output_of, outputs.failures, spool.add)
        page = report_page(findings, _about(batch, outputs, findings, snapshot), _samples(output_of, findings))
        files = _markdown(batch, page, export)
        if settings.write_html:
            files |= _html(batch, page, export, spool)
    meta = {"pipeline": 6, "generated_at_utc": utc_now()}
    return Delivered({"meta": meta, "counts": findings.counts(), "files": files}, page)


def check_counted(batch: Batch, columns: Sequence[str]) -> list[Counted]:
    """What ``report.count_by`` names of a table with these columns, and of the output. Raises ``ConfigError``."""
    names = batch.parameters.report.count_by
    if not names:
        return []
    return counted_columns(names, columns, _output_fields(batch))


def _output_fields(batch: Batch) -> list[str]:
    """The fields of an output, in the order of the schema."""
    return list(batch.schema.output().json_schema.get("properties", {}))


def _samples(output_of: Callable[[WorkItem], AcceptedOutput | None], findings: Findings) -> list[Sample]:
    full = findings.settings.include_full_examples
    picked = ((item, output_of(item)) for item in findings.samples.items())
    return [sample_of(item, output, full=full) for item, output in picked if output is not None]


def _about(batch: Batch, outputs: OutputReader, findings: Findings, snapshot: Snapshot) -> About:
    costs = usage_by_run(read_ledger(batch.path(batch.layout.ledger)))
    # Every call since the ledger was begun: those that failed, and those of earlier settings, too.
    spent = usage_of_all_runs(costs.values())
    records = list(read_runs(batch.path(batch.layout.run_history)))
    return About(
        title=batch.title,
        facts=_facts(batch, records[-1].run_id if records else None),
        calls=f"{spent.requests:,}, {spent.total_tokens:,} tokens, {spent}",
        spent=str(spent),
        config=batch.parameters.model_dump(mode="json"),
        quality=quality(snapshot.meta, outputs.plan_warnings, findings),
        runs=last_runs(records, costs, MOST_RUNS),
    )


def _facts(batch: Batch, last_run: str | None) -> dict[str, Any]:
    identity = batch.source.identity
    generation = load_artifact(batch, "llm_outputs", GenerationManifest)
    meta, counts = generation.meta, generation.counts
    zone = batch.parameters.run.timezone
    generated = datetime.fromisoformat(meta.generated_at_utc).astimezone(ZoneInfo(zone))
    judged = {
        "judge_prompt_sha": identity.judge_prompt_sha,
        "model of the judge": batch.parameters.judge_llm().model_name,
    }
    facts = {
        "last generation": f"{generated:%Y-%m-%d %H:%M:%S} {zone}, {meta.elapsed_sec} s, "
        f"{counts.n_cache_skipped:,} of {counts.n_total:,} items from the cache",
        "Dagster run of the last generation with work to do": last_run or "not recorded",
        "command": batch.command,
        "provider": batch.source.provider,
        "model": identity.model_name,
        "temperature": identity.temperature,
        "grouping": batch.parameters.grouping.effective_mode,
        "judge": "on" if identity.judge_enabled else "off",
        "prompt_sha": identity.prompt_sha,
        "schema_sha": identity.schema_sha,
        "schema module": "imported as it is (llm_schema.trust)" if batch.parameters.llm_schema.trust else "vetted",
    }
    return facts | (judged if identity.judge_enabled else {}) | {"configuration_sha": batch.config_sha()}


def _markdown(batch: Batch, page: dict[str, Any], export: ExportManifest) -> dict[str, str]:
    path = batch.layout.report("md")
    text = render_markdown(page, _pointers(batch, export, batch.path(path)))
    write_atomically(batch.path(path), text.encode("utf-8", "replace"))
    return {"md": str(path)}


def _html(batch: Batch, page: dict[str, Any], export: ExportManifest, spool: RowSpool) -> dict[str, str]:
    layout, first = batch.layout, batch.layout.report("html")
    slices = spool.slices()
    paths = [first, *(first.with_name(f"{first.stem}.part{n}{first.suffix}") for n in range(2, len(slices) + 1))]
    parts = parts_of(slices, [quote(path.name) for path in paths])
    folders = (_address(batch, str(folder), batch.path(first)) for folder in (layout.llm_outputs, layout.llm_failures))
    links = Links(*(f"{address}/" if address else "" for address in folders))
    pointers = _pointers(batch, export, batch.path(first))
    # The first page last: it is the one that is looked at, and points to the others.
    for path, part in reversed(list(zip(paths, parts, strict=True))):
        write_atomically(batch.path(path), render_html(page, pointers, links, parts, part, spool))
    _remove_further_parts(batch.path(first), {batch.path(path).name for path in paths})
    return {"html": str(first)} | {
        f"html part {part.number}": str(path) for path, part in zip(paths[1:], parts[1:], strict=True)
    }


def _remove_further_parts(first: Path, kept: set[str]) -> None:
    """Remove what an earlier, larger report has left."""
    for path in first.parent.glob("*"):
        if (
            re.fullmatch(re.escape(first.stem) + r"\.part\d+" + re.escape(first.suffix), path.name)
            and path.name not in kept
        ):
            path.unlink()


def _pointers(batch: Batch, export: ExportManifest, report: Path) -> dict[str, Link]:
    layout = batch.layout
    fixed = {
        "input table": batch.parameters.input.path,
        "input snapshot": layout.snapshot,
        "work items": layout.work_items,
        "group contexts": layout.group_contexts,
        "schema": layout.schema_py,
        "schema as text": layout.schema_txt,
        "generation prompt": batch.parameters.prompts.generation.path,
        "outputs": layout.llm_outputs,
        "failures": layout.llm_failures,
        "what is in no export, and why": layout.not_exported,
        "generation manifest": layout.manifest(4),
        "export manifest": layout.manifest(5),
        "report manifest": layout.manifest(6),
        "ledger of all calls": layout.ledger,
        "history of runs": layout.run_history,
        "prompts and schemas by their fingerprints": layout.provenance,
    }
    if not batch.path(layout.llm_failures).is_dir():
        # Made by the first failure.
        del fixed["failures"]
    if batch.parameters.prompts.judge.enabled:
        fixed["judge's prompt"] = batch.parameters.prompts.judge.path
    paths = {name: str(path) for name, path in fixed.items()} | {f"{k} export": v for k, v in export.files.items()}
    return {name: Link(path, _address(batch, path, report)) for name, path in paths.items()}


def _address(batch: Batch, path: str, report: Path) -> str | None:
    """The way from the report to a file of the project; None where one of them lies elsewhere."""
    target, root = batch.path(path).resolve(), batch.root.resolve()
    if not (target.is_relative_to(root) and report.resolve().is_relative_to(root)):
        return None
    return quote(Path(os.path.relpath(target, report.resolve().parent)).as_posix())
