"""The work that a run need not do again, because nothing that it depends on has changed since the last run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from llmbatch_assets.adapters.files.atomic import read_json
from llmbatch_assets.adapters.files.checksums import file_checksum
from llmbatch_assets.adapters.files.file_version import file_version
from llmbatch_assets.domain.canonical import sha1_named
from llmbatch_assets.errors import InputError, LlmBatchError
from llmbatch_assets.stages.artifacts import artifact_path, cache_index
from llmbatch_assets.stages.checking.batch_check import TableCheck
from llmbatch_assets.stages.project import Batch, BatchFile
from llmbatch_assets.stages.unchanged.records import RecordMark, Records, dagster_home
from llmbatch_assets.stages.unchanged.run_state import (
    CONFIG,
    SCHEMA,
    TABLE,
    RunState,
    Settled,
    Sources,
    Versions,
    load_state,
    prepared_files,
    save_state,
    versions,
)
from llmbatch_assets.stages.write_schema import reason_to_write

_SCHEMA_ASSETS = {"llm_schema_py", "llm_schema_txt"}
_ITEM_ASSETS = {"group_contexts", "work_items"}
_TABLE_ASSETS = {"input_snapshot", *_ITEM_ASSETS}
_MANIFESTS = ("llm_outputs", "export", "report")


@dataclass
class SinceLastRun:
    """The state after the last run, compared with what a run finds now. Look before the run reads anything."""

    batch_file: BatchFile
    batch: Batch
    now: Sources
    state: RunState | None
    # Whether Dagster shows what that run has left.
    is_recorded: bool
    # The result of the check before the run.
    table: TableCheck | None = None
    warnings: list[str] = field(default_factory=list)
    _prepared: Versions | None = field(default=None, init=False)
    _generated: str = field(default="", init=False)

    @classmethod
    def of(cls, batch_file: BatchFile) -> SinceLastRun:
        """Return the last run of a batch. Raises ``InputError`` if the batch cannot be loaded."""
        batch = batch_file.load()
        now, state = Sources.of(batch, batch_file.path), load_state(batch)
        records = state.records if state else None
        is_recorded = records is not None and records.are_unchanged(dagster_home(batch.root))
        return cls(batch_file, batch, now, state, is_recorded)

    @cached_property
    def _changed(self) -> set[str]:
        """Name the sources that have changed: all of them if the last run is not known."""
        if self.state is None or self.batch.parameters.llm_schema.trust:
            # A trusted module may import other files, which nobody knows.
            return {"code", "config", *self.now.files}
        return self.now.changed(self.state.sources)

    def settled(self) -> Settled | None:
        """Return the end of the last run if a run now would do nothing; opens no output that is known."""
        state = self.state
        if state is None or state.settled is None or self._changed or not self.is_recorded:
            return None
        if prepared_files(self.batch) != state.prepared or _published_files(self.batch) != state.settled.files:
            return None
        return state.settled if self._outputs_sha() == state.settled.outputs_sha else None

    def _outputs_sha(self) -> str:
        """Return a fingerprint of the outputs that the last manifest lists; "" if any has to be made again."""
        index = cache_index(self.batch)
        try:
            names = read_json(artifact_path(self.batch, "llm_outputs"))["outputs"]["success_files"]
        except (LlmBatchError, LookupError, TypeError):
            return ""
        ids = [str(name).removesuffix(".json") for name in names]
        shas = [index.output_sha(cache_id) for cache_id in ids]
        index.remember()
        return sha1_named(ids=ids, shas=shas) if all(shas) and index.forced.isdisjoint(ids) else ""

    def table_check(self) -> TableCheck | None:
        """Return the result of the last check of the table, if it would be the same now."""
        if self.state is None or self._changed & {"code", "config", CONFIG, TABLE, SCHEMA} or self._needs_other_items:
            return None
        return self.state.table if prepared_files(self.batch) == self.state.prepared else None

    @property
    def _needs_other_items(self) -> bool:
        """Whether the prompts name other columns than before."""
        state = self.state
        return state is not None and self.batch.columns_of_prompts(state.table.columns) != state.named_columns

    def due(self, assets: Sequence[str]) -> list[str]:
        """Return those assets of the prepare stage that are not as a run would make them now."""
        if self.state is None or not self.is_recorded or self._changed & {"code", "config", CONFIG}:
            return list(assets)
        if prepared_files(self.batch) != self.state.prepared:
            return list(assets)
        due = set[str]()
        if TABLE in self._changed:
            due |= _TABLE_ASSETS
        if self._needs_other_items:
            due |= _ITEM_ASSETS
        # The prompts belong to the sources of the schema in Dagster, too.
        if self._changed - {TABLE} or reason_to_write(self.batch):
            due |= _SCHEMA_ASSETS
        return [asset for asset in assets if asset in due]

    def note_prepared(self) -> None:
        """Note the files that the prepare stage has just written, or left as they were."""
        self._prepared = prepared_files(self.batch)
        if self.now.files[SCHEMA] is None:
            # The model has written it.
            self.now.files |= {SCHEMA: file_version(self.batch.path(self.batch.layout.schema_py))}

    def note_generated(self) -> None:
        """Note the outputs before they are published."""
        self._generated = self._outputs_sha()

    def save(self, mark: RecordMark, n_accepted: int | None) -> None:
        """Keep the state after the run. ``n_accepted`` is the number of items if the run has left nothing to do."""
        records = Records.of(mark, dagster_home(self.batch.root))
        if self._prepared is not None and self.table is not None:
            state = RunState(
                sources=self.now,
                prepared=self._prepared,
                table=self.table,
                named_columns=self.batch.columns_of_prompts(self.table.columns),
                records=records,
                settled=None if n_accepted is None else self._settled_now(n_accepted),
            )
        elif self.state is not None:
            # A run of some stages leaves the rest as it was recorded, or not recorded, before.
            left = records if self.is_recorded else None
            state = self.state.model_copy(update={"records": left, "settled": None})
        else:
            return
        save_state(self.batch, state)

    def _settled_now(self, n_items: int) -> Settled | None:
        """Return the end of this run; None if the next one has something to do, or if somebody has edited files since."""
        parameters, files = self.batch.parameters, _published_files(self.batch)
        does_something = (
            parameters.cache.force or not parameters.cache.enabled or parameters.llm_schema.force_regenerate
        )
        if does_something or files is None or not self._generated or not self._sources_stayed():
            return None
        return Settled(files=files, outputs_sha=self._generated, warnings=self.warnings, n_items=n_items)

    def _sources_stayed(self) -> bool:
        try:
            return Sources.of(self.batch_file.load(), self.batch_file.path) == self.now
        except InputError:
            return False


def _published_files(batch: Batch) -> Versions | None:
    """Return the versions of the manifests, of the files that they list, and of those that the report shows.

    None if somebody has edited a file since it was written.
    """
    layout = batch.layout
    shown = (layout.ledger, layout.run_history, layout.llm_failures, layout.forced)
    found = versions(batch, {str(path): path for path in shown})
    for asset in _MANIFESTS:
        path = artifact_path(batch, asset)
        found[asset] = manifest = file_version(path)
        content = _content(path)
        for name in [*content.get("files", {}).values(), *filter(None, [content.get("not_exported_file")])]:
            found[name] = version = file_version(batch.path(name))
            # A manifest is written last. Only a file that is younger, as after a copy, has to be read.
            is_younger = version and manifest and version.changed_ns > manifest.changed_ns
            if is_younger and content.get("checksums", {}).get(name) != _checksum(batch.path(name)):
                return None
    return found


def _checksum(path: Path) -> dict[str, Any] | None:
    checksum = file_checksum(path)
    return checksum.model_dump() if checksum else None


def _content(manifest: Path) -> dict[str, Any]:
    try:
        content = read_json(manifest)
    except LlmBatchError:
        return {}
    return content if isinstance(content, dict) else {}
