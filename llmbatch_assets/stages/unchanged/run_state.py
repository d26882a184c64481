"""The state of a batch's files when its last run ended: by their versions, without their content.

It is true on one machine only, and a run that finds none does all of its work.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from pydantic import BaseModel, ValidationError

from llmbatch_assets.adapters.files.atomic import read_json, write_json
from llmbatch_assets.adapters.files.checksums import code_sha
from llmbatch_assets.adapters.files.file_version import FileVersion, file_version
from llmbatch_assets.domain.file_uses import schema_module, user_files
from llmbatch_assets.errors import LlmBatchError
from llmbatch_assets.stages.checking.batch_check import TableCheck
from llmbatch_assets.stages.project import Batch

Versions = dict[str, FileVersion | None]
TABLE, SCHEMA = "input.path", "llm_schema.py_path"
_PREPARED = ("schema_txt", "snapshot", "group_contexts", "work_items")


class Sources(BaseModel):
    """What a run reads: code and configuration by their fingerprints, other files of the user by key and version."""

    code: str
    config_sha: str
    files: Versions

    @classmethod
    def of(cls, batch: Batch) -> Sources:
        """Return the sources as they are now."""
        uses = [*user_files(batch.layout, PurePosixPath()), schema_module(batch.layout)]
        files = versions(batch, {use.key: use.path for use in uses if use.key})
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


class RecordMark(NamedTuple):
    """A file in Dagster's records that holds the token until somebody else writes there. Without a path there is none."""

    path: Path | None
    token: str

    @property
    def holds(self) -> bool:
        """Whether nobody else has written since."""
        try:
            return self.path is not None and self.path.read_text(encoding="ascii") == self.token
        except (OSError, ValueError):
            return False


class RunState(BaseModel):
    """What was true when a run ended.

    ``prepared`` are the files that the prepare stage wrote, ``named_columns`` those that the prompts name; ``mark`` and
    ``token`` are those of its ``RecordMark``.
    """

    sources: Sources
    prepared: Versions
    table: TableCheck
    named_columns: list[str]
    mark: str
    token: str
    settled: Settled | None = None

    @property
    def is_recorded(self) -> bool:
        """Whether Dagster's records are as that run has left them."""
        return RecordMark(Path(self.mark), self.token).holds


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
    """Replace the state."""
    write_json(batch.path(batch.layout.run_state), state.model_dump(mode="json"))
