"""The state of a batch's files when its last run ended: by their versions, without their content.

It is true on one machine only, and a run that finds none does all of its work.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath

from pydantic import BaseModel, ValidationError

from llmbatch_assets.adapters.files.atomic import read_json, write_json
from llmbatch_assets.adapters.files.checksums import code_sha
from llmbatch_assets.adapters.files.file_version import FileVersion, file_version
from llmbatch_assets.domain.file_uses import schema_module, user_files
from llmbatch_assets.errors import LlmBatchError
from llmbatch_assets.stages.checking.batch_check import TableCheck
from llmbatch_assets.stages.project import Batch
from llmbatch_assets.stages.unchanged.records import Records

Versions = dict[str, FileVersion | None]
TABLE, SCHEMA, CONFIG = "input.path", "llm_schema.py_path", "the configuration"
_PREPARED = ("schema_txt", "snapshot", "group_contexts", "work_items")


class Sources(BaseModel):
    """What a run reads: code and configuration by their fingerprints, other files of the user by key and version."""

    code: str
    config_sha: str
    files: Versions

    @classmethod
    def of(cls, batch: Batch, config: Path) -> Sources:
        """Return the sources as they are now. ``config`` is the path of the configuration file."""
        uses = [*user_files(batch.layout, PurePosixPath()), schema_module(batch.layout)]
        files = versions(batch, {use.key: use.path for use in uses if use.key})
        # An edit that was taken back may have been read in between.
        files[CONFIG] = file_version(config)
        return cls(code=code_sha(), config_sha=batch.config_sha(), files=files)

    def changed(self, before: Sources) -> set[str]:
        """Name what differs: ``code``, ``config``, and the keys of files."""
        changed = {name for name in self.files if self.files[name] != before.files.get(name)}
        changed |= {"code"} if self.code != before.code else set()
        return changed | ({"config"} if self.config_sha != before.config_sha else set())


class Settled(BaseModel):
    """The end of a run that left nothing to do: the files that it wrote, its outputs, and what it said."""

    files: Versions
    outputs_sha: str
    warnings: list[str]
    n_items: int


class RunState(BaseModel):
    """What was true when a run ended.

    ``prepared`` are the files that the prepare stage wrote, ``named_columns`` those that the prompts name. ``records`` is
    None if Dagster may show something else than this run has left.
    """

    sources: Sources
    prepared: Versions
    table: TableCheck
    named_columns: list[str]
    records: Records | None
    settled: Settled | None = None


def versions(batch: Batch, paths: Mapping[str, PurePosixPath | str]) -> Versions:
    """Return the present version of each file."""
    return {name: file_version(batch.path(path)) for name, path in paths.items()}


def prepared_files(batch: Batch) -> Versions:
    """Return the versions of the files that the prepare stage writes."""
    return versions(batch, {name: getattr(batch.layout, name) for name in _PREPARED})


def load_state(batch: Batch) -> RunState | None:
    """Return the state after the last run; None if there is none that can be read."""
    try:
        return RunState.model_validate(read_json(batch.path(batch.layout.run_state)))
    except (LlmBatchError, ValidationError):
        return None


def save_state(batch: Batch, state: RunState) -> None:
    """Replace the state. Without it, as on a full disk, the next run does all of its work."""
    with suppress(OSError):
        write_json(batch.path(batch.layout.run_state), state.model_dump(mode="json"))
