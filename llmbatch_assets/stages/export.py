"""Pipeline 5 of one batch: from accepted outputs to files for people and programs."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from llmbatch_assets.adapters.files.atomic import read_json
from llmbatch_assets.adapters.store.older_outputs import OlderOutputs
from llmbatch_assets.adapters.store.provenance import kept_identities
from llmbatch_assets.adapters.store.reader import OutputReader
from llmbatch_assets.adapters.tables.exporters import Line, exporting
from llmbatch_assets.domain.export.columns import Column, cells
from llmbatch_assets.domain.export.fields import OutputSchema
from llmbatch_assets.domain.export.manifest import (
    PREVIEW_ROWS,
    export_counts,
    export_manifest,
    is_worth_keeping,
    preview,
)
from llmbatch_assets.domain.export.not_exported import LEFT_OUT_COLUMNS, LeftOut, OlderOutput, Standing
from llmbatch_assets.domain.export.records import Entry, Join, entries
from llmbatch_assets.domain.export.settings import columns_of
from llmbatch_assets.domain.items.table import Snapshot
from llmbatch_assets.domain.items.work import WorkItem
from llmbatch_assets.stages.artifacts import artifact_path
from llmbatch_assets.stages.project import Batch
from llmbatch_assets.stages.runtime import utc_now

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
    verdict = OutputSchema(batch.schema.judge().json_schema).fields(flatten=False) if batch.judge_prompt else ()
    judge = {field.path[0]: field.type for field in verdict if field.path}
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
    earlier = kept_identities(batch.path(batch.layout.provenance))
    found = OlderOutputs(outputs.store, outputs.identity, earlier)

    def find(item: WorkItem) -> OlderOutput | None:
        known = found.find(item)
        return known and OlderOutput(str(batch.layout.llm_outputs / f"{known[0]}.json"), ", ".join(known[1]))

    return find
