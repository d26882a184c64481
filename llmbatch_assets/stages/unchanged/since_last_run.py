"""The work that a run need not do again, because nothing that it depends on has changed since the last run."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property

from llmbatch_assets.adapters.files.atomic import read_json
from llmbatch_assets.adapters.files.file_version import file_version
from llmbatch_assets.domain.canonical import sha1_named
from llmbatch_assets.errors import LlmBatchError
from llmbatch_assets.stages.artifacts import artifact_path, cache_index
from llmbatch_assets.stages.checking.batch_check import TableCheck
from llmbatch_assets.stages.project import Batch
from llmbatch_assets.stages.unchanged.run_state import (
    SCHEMA,
    TABLE,
    RecordMark,
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

    batch: Batch
    now: Sources
    state: RunState | None
    # Whether Dagster shows what that run has left.
    is_recorded: bool
    # The result of the check before the run.
    table: TableCheck | None = None
    warnings: list[str] = field(default_factory=list)
    _prepared: Versions | None = field(default=None, init=False)

    @classmethod
    def of(cls, batch: Batch) -> SinceLastRun:
        """Return the last run of a batch."""
        state = load_state(batch)
        return cls(batch, Sources.of(batch), state, is_recorded=state is not None and state.is_recorded)

    @cached_property
    def _changed(self) -> set[str]:
        """Name the sources that have changed: all of them if the last run is not known."""
        return self.now.changed(self.state.sources) if self.state else {"code", "config", *self.now.files}

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
        if self.state is None or self._changed & {"code", "config", TABLE, SCHEMA} or self._needs_other_items:
            return None
        return self.state.table if prepared_files(self.batch) == self.state.prepared else None

    @property
    def _needs_other_items(self) -> bool:
        """Whether the prompts name other columns than before."""
        state = self.state
        return state is not None and self.batch.columns_of_prompts(state.table.columns) != state.named_columns

    def due(self, assets: Sequence[str]) -> list[str]:
        """Return those assets of the prepare stage that are not as a run would make them now."""
        if self.state is None or not self.is_recorded or self._changed & {"code", "config"}:
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

    def save(self, mark: RecordMark, n_accepted: int | None) -> None:
        """Keep the state after the run. ``n_accepted`` is the number of items if the run has left nothing to do."""
        recorded = {"mark": str(mark.path), "token": mark.token} if mark.holds else {"mark": "", "token": ""}
        if self._prepared is not None and self.table is not None:
            state = RunState(
                sources=self.now,
                prepared=self._prepared,
                table=self.table,
                named_columns=self.batch.columns_of_prompts(self.table.columns),
                settled=None if n_accepted is None else self._settled_now(n_accepted),
                **recorded,
            )
        elif self.state is not None:
            # A run of some stages leaves the rest as it was recorded, or not recorded, before.
            state = self.state.model_copy(update={**(recorded if self.is_recorded else {"token": ""}), "settled": None})
        else:
            return
        save_state(self.batch, state)

    def _settled_now(self, n_items: int) -> Settled | None:
        parameters = self.batch.parameters
        if parameters.cache.force or not parameters.cache.enabled or parameters.llm_schema.force_regenerate:
            # The next run does something even if nothing changes.
            return None
        files, outputs_sha = _published_files(self.batch), self._outputs_sha()
        return Settled(files=files, outputs_sha=outputs_sha, warnings=self.warnings, n_items=n_items)


def _published_files(batch: Batch) -> Versions:
    """Return the versions of the manifests, and of the files that they list."""
    found: Versions = {}
    for asset in _MANIFESTS:
        path = artifact_path(batch, asset)
        found[asset] = file_version(path)
        with suppress(LlmBatchError, LookupError, TypeError, AttributeError):
            manifest = read_json(path)
            listed = [*manifest.get("files", {}).values(), *filter(None, [manifest.get("not_exported_file")])]
            found |= versions(batch, {str(name): str(name) for name in listed})
    return found
