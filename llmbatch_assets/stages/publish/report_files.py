"""The files of the report: the Markdown, and the HTML in one or more parts, with links to the files of the batch."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import quote

from llmbatch_assets.adapters.files.atomic import write_atomically
from llmbatch_assets.adapters.pages import rendering
from llmbatch_assets.adapters.pages.report_rows import RowSpool
from llmbatch_assets.domain.export.manifest import ExportManifest
from llmbatch_assets.domain.report.page import ReportPage
from llmbatch_assets.stages.project import Batch


def write_files(batch: Batch, page: ReportPage, export: ExportManifest, spool: RowSpool) -> tuple[dict[str, str], str]:
    """Write the files that the configuration asks for. Return their paths, and the key tables as Markdown."""
    files = _markdown(batch, page, export)
    if batch.parameters.report.write_html:
        files |= _html(batch, page, export, spool)
    return files, rendering.render_summary(page)


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
        **{f"Export ({name})": path for name, path in sorted(export.files.items())},
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
