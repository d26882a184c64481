"""Pipelines 5 and 6 of one batch: from accepted outputs to files for people and programs."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from llmbatch_assets.adapters.exporters import Line, exporting
from llmbatch_assets.adapters.files import read_json, write_atomically
from llmbatch_assets.adapters.ledger import read_ledger
from llmbatch_assets.adapters.older_outputs import OlderOutputs
from llmbatch_assets.adapters.output_reader import OutputReader
from llmbatch_assets.adapters.output_store import known_identities
from llmbatch_assets.adapters.project import Batch
from llmbatch_assets.adapters.report_page import render_html, render_markdown
from llmbatch_assets.domain.cost import shown
from llmbatch_assets.domain.export import Column, ExportManifest, cells
from llmbatch_assets.domain.export_fields import OutputSchema
from llmbatch_assets.domain.export_manifest import (
    PREVIEW_ROWS,
    export_counts,
    export_manifest,
    is_worth_keeping,
    preview,
)
from llmbatch_assets.domain.export_records import Entry, Join, entries
from llmbatch_assets.domain.export_settings import columns_of
from llmbatch_assets.domain.ledger import Spending
from llmbatch_assets.domain.left_out import LEFT_OUT_COLUMNS, LeftOut, OlderOutput, Standing
from llmbatch_assets.domain.manifest import GenerationManifest
from llmbatch_assets.domain.report import Findings, gather, report_page
from llmbatch_assets.domain.table import Snapshot
from llmbatch_assets.domain.work import WorkItem
from llmbatch_assets.resources.generation import utc_now
from llmbatch_assets.resources.json_io_manager import artifact_path, load_artifact

# Entries that are written together.
CHUNK = 500


class Delivered(NamedTuple):
    """What the export asset tells: its manifest, and its first records as a Markdown table."""

    manifest: dict[str, Any]
    preview: str


def deliver_exports(batch: Batch, outputs: OutputReader, snapshot: Snapshot) -> Delivered:
    """Write every configured export and the file of what is in none; the counts add up to the number of items.

    Raises ``ConfigError`` where ``outputs`` names what schema or table do not have.
    """
    join = Join.of(snapshot, batch.parameters)
    run = _ExportRun(batch, join, export_columns_of(batch, join))
    run.write(entries(join, run.counted(outputs.standings(_older(batch, outputs), batch.shown))))
    return Delivered(run.manifest(), preview(run.columns, [line.cells for line in run.shown]))


def export_columns_of(batch: Batch, join: Join) -> list[Column]:
    """The columns of the batch's exports. Raises ``ConfigError`` as ``deliver_exports`` does."""
    # What a trusted module computes or writes otherwise than it reads is in this schema and not in the prompt's.
    schema = OutputSchema(batch.schema.output().model.model_json_schema(mode="serialization"))
    judge = batch.schema.judge().json_schema["properties"] if batch.judge_prompt else {}
    return columns_of(join, schema, judge, flatten=batch.parameters.outputs.nested == "flatten")


@dataclass
class _ExportRun:
    """One pass over all items of a batch."""

    batch: Batch
    join: Join
    columns: Sequence[Column]
    items: Counter[str] = field(default_factory=Counter)
    lines: Counter[str] = field(default_factory=Counter)
    changes: dict[str, Counter[str]] = field(default_factory=dict)
    shown: list[Line] = field(default_factory=list)
    set_aside: list[str] = field(default_factory=list)

    @property
    def _files(self) -> dict[str, PurePosixPath]:
        return {name: self.batch.layout.export(name) for name in self.batch.parameters.outputs.formats}

    def counted(self, standings: Iterable[Standing]) -> Iterator[Standing]:
        for standing in standings:
            self.items["exported" if standing.output else standing.reason] += 1
            yield standing

    def write(self, found: Iterator[Entry]) -> None:
        paths = {name: self.batch.path(path) for name, path in self._files.items()}
        others = {"csv": self.batch.path(self.batch.layout.not_exported)}
        escape = self.batch.parameters.outputs.escape_formulas
        with (
            exporting(paths, self.columns, self.changes, escape_formulas=escape) as export,
            exporting(others, LEFT_OUT_COLUMNS, {}, escape_formulas=escape) as leave_out,
        ):
            while chunk := list(islice(found, CHUNK)):
                export(self._made(chunk))
                leave_out(self._left_out(chunk))
            self._set_aside(list(paths.values()))

    def _made(self, chunk: Sequence[Entry]) -> list[Line]:
        made = [Line(entry, cells(entry, self.columns)) for entry in chunk if not isinstance(entry, LeftOut)]
        self.lines["exported"] += len(made)
        self.shown += made[: PREVIEW_ROWS - len(self.shown)]
        return made

    def _left_out(self, chunk: Sequence[Entry]) -> list[Line]:
        left = [entry for entry in chunk if isinstance(entry, LeftOut)]
        self.lines.update(entry.state for entry in left)
        return [Line(entry.record(), cells(entry.record(), LEFT_OUT_COLUMNS)) for entry in left]

    def _set_aside(self, paths: Sequence[Path]) -> None:
        """Keep an export with records from being replaced by one without any, or by one of made-up answers."""
        manifest = artifact_path(self.batch, "export")
        before = read_json(manifest) if manifest.is_file() else {}
        made_up = self.batch.source.provider == "offline"
        if is_worth_keeping(before) and (made_up or not self.lines["exported"]):
            kept = [path.replace(path.with_stem(f"{path.stem}_earlier")) for path in paths if path.is_file()]
            self.set_aside = [self.batch.shown(path) for path in kept]

    def manifest(self) -> dict[str, Any]:
        return export_manifest(
            self.columns,
            {name: str(path) for name, path in self._files.items()},
            str(self.batch.layout.not_exported),
            export_counts(self.items, self.lines),
            self.changes,
            self.set_aside,
            {"generated_at_utc": utc_now(), "provider": self.batch.source.provider},
        )


def _older(batch: Batch, outputs: OutputReader) -> Callable[[WorkItem], OlderOutput | None]:
    earlier = known_identities(batch.path(batch.layout.provenance))
    found = OlderOutputs(outputs.store, outputs.identity, earlier)

    def find(item: WorkItem) -> OlderOutput | None:
        known = found.find(item)
        return known and OlderOutput(str(batch.layout.llm_outputs / f"{known[0]}.json"), ", ".join(known[1]))

    return find


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
        write_atomically(batch.path(batch.layout.report(name)), render().encode())
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
