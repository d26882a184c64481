"""Finds and deletes the files of a batch that the current settings do not use."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

from llmbatch_assets.adapters.store.claims import claiming_all
from llmbatch_assets.adapters.store.index import CacheIndex, read_meta
from llmbatch_assets.adapters.store.run_records import kept_identities
from llmbatch_assets.domain.canonical import canonical_json
from llmbatch_assets.domain.items.identity import BatchIdentity
from llmbatch_assets.domain.items.work import WorkItem, WorkItems
from llmbatch_assets.errors import ArtifactError, ConfigError, InputError
from llmbatch_assets.stages.artifacts import cache_index, current_work, has_stored_work, load_artifact
from llmbatch_assets.stages.project import Batch, BatchFile

_OUTPUT = re.compile(r"([0-9a-f]{40})\.json")
_FAILURE = re.compile(r"([0-9a-f]{40})__a\d+\.json")
_BROKEN = re.compile(r"([0-9a-f]{40})\.json\.broken\d*")
_MARKER = re.compile(r"([0-9a-f]{40})")
_TEXT = re.compile(r"((?:identity_)?[0-9a-f]{40})\.json")
_SCHEMA_ANSWER = re.compile(r"(schema__a\d+)\.json")


class Unused(NamedTuple):
    """An unused file and its kind."""

    kind: str
    path: Path


@dataclass(frozen=True)
class Pruning:
    """The files to delete, and the number of files kept for rows that are no longer in the table."""

    unused: list[Unused]
    n_gone_rows_kept: int


def find_unused(batch_file: BatchFile, *, gone_rows: bool = False) -> Pruning:
    """Find the files of a batch that it no longer uses. Raises ``InputError`` if that is unknown.

    No other batch uses them: batches never share a cache folder. Outputs of the current settings for rows that have left
    the table are included only with ``gone_rows``.
    """
    batch = batch_file.load()
    uses = CurrentUses(cache_index(batch), batch.source.identity, {item.work_id for item in _items(batch)})
    search = _Search(batch, uses, gone_rows)
    return Pruning(list(search.unused()), search.n_kept)


def delete(batch: Batch, unused: Sequence[Unused]) -> None:
    """Delete the files. Raises ``BusyError`` while a run is working on the batch."""
    with claiming_all(batch.path(batch.layout.claims)):
        for file in unused:
            file.path.unlink(missing_ok=True)


def _items(batch: Batch) -> list[WorkItem]:
    """Return the items of the last run and those of the current table, as far as either can be read."""
    items: list[WorkItem] = []
    try:
        items += load_artifact(batch, "work_items", WorkItems).items if has_stored_work(batch) else []
    except ArtifactError as broken:
        raise ConfigError(f"the work items are unknown, so nothing is pruned: {broken}") from broken
    try:
        items += current_work(batch).items
    except InputError:
        if not items:
            raise
    return items


@dataclass
class _Search:
    batch: Batch
    uses: CurrentUses
    gone_rows: bool
    n_kept: int = 0

    def unused(self) -> Iterator[Unused]:
        folders, layout = self.uses.index.folders, self.batch.layout
        yield from self._artifacts(folders.outputs, _OUTPUT, "outputs")
        yield from self._artifacts(folders.failures, _FAILURE, "failed attempts")
        for folder in (folders.outputs, folders.awaiting_judge):
            yield from _all_of("broken files that were set aside", folder, _BROKEN)
        yield from self._left_over(folders.awaiting_judge, _OUTPUT, "answers that await another judge")
        yield from self._left_over(folders.forced, _MARKER, "pending --force markers")
        yield from self._texts(self.batch.path(layout.provenance))
        yield from _all_of("rejected schema answers", self.batch.path(layout.schema_failures), _SCHEMA_ANSWER)
        yield from _all_of("archived schema files", self.batch.path(layout.archive), self._archived())

    def _artifacts(self, folder: Path, pattern: re.Pattern[str], what: str) -> Iterator[Unused]:
        for path, cache_id in _matching(folder, pattern):
            use = self.uses.use_of(cache_id, path)
            if use == "gone_row" and not self.gone_rows:
                self.n_kept += 1
            elif use in ("gone_row", "old"):
                yield Unused(f"{what} of {'other settings' if use == 'old' else 'rows that have gone'}", path)

    def _left_over(self, folder: Path, pattern: re.Pattern[str], kind: str) -> Iterator[Unused]:
        """Yield the files of known settings that are no longer current. These files do not name their settings."""
        for path, cache_id in _matching(folder, pattern):
            if cache_id in self._old_ids or (self.gone_rows and cache_id not in self.uses.cache_ids):
                yield Unused(kind, path)

    @cached_property
    def _old_ids(self) -> set[str]:
        old = [other for other in self._known if other != self.uses.identity]
        return {identity.cache_id(work_id) for identity in old for work_id in self.uses.work_ids}

    @cached_property
    def _known(self) -> list[BatchIdentity]:
        return kept_identities(self.batch.path(self.batch.layout.provenance))

    def _texts(self, folder: Path) -> Iterator[Unused]:
        """Yield prompts and schemas used neither by current settings nor by outputs that only await another judge."""
        used = set(self.batch.provenance())
        for identity in self._known:
            if identity.differs_only_in_judge(self.uses.identity):
                judge = identity.judge or {}
                used |= {f"identity_{identity.sha}", str(identity.judge_prompt_sha), str(judge.get("schema_sha"))}
        for path, name in _matching(folder, _TEXT):
            if name not in used:
                yield Unused("prompts and schemas of other settings", path)

    def _archived(self) -> re.Pattern[str]:
        stems = {path.stem for path in (self.batch.layout.schema_py, self.batch.layout.schema_txt)}
        return re.compile(rf"({'|'.join(map(re.escape, sorted(stems)))})_\d{{8}}_\d{{6}}(?:_\d+)?\.(?:py|txt)")


def _all_of(kind: str, folder: Path, pattern: re.Pattern[str]) -> Iterator[Unused]:
    return (Unused(kind, path) for path, _ in _matching(folder, pattern))


def _matching(folder: Path, pattern: re.Pattern[str]) -> list[tuple[Path, str]]:
    """List the files of a folder whose names match, with the pattern's first group. Folders are somebody else's."""
    found = ((path, pattern.fullmatch(path.name)) for path in sorted(folder.iterdir() if folder.is_dir() else ()))
    return [(path, match[1]) for path, match in found if match and not path.is_dir()]


FileUse = Literal["current", "gone_row", "to_judge", "old"]
_JUDGE_PARTS = {"judge_enabled", "judge_prompt_sha", "judge"}


@dataclass(frozen=True)
class CurrentUses:
    """The cache ids that the current settings refer to. ``work_ids`` are those of the existing rows."""

    index: CacheIndex
    identity: BatchIdentity
    work_ids: set[str]

    @cached_property
    def cache_ids(self) -> set[str]:
        return {self.identity.cache_id(work_id) for work_id in self.work_ids}

    @cached_property
    def _settings(self) -> str:
        return _settings(self.identity.parts(""))

    def use_of(self, cache_id: str, path: Path) -> FileUse:
        """Return the use of an artifact.

        ``to_judge``: an output that the current judge has not seen. It will be judged instead of generated again.
        """
        if cache_id in self.cache_ids:
            return "current"
        parts = read_meta(path).get("identity")
        if not isinstance(parts, dict):
            return "old"
        if _settings(parts) == self._settings:
            return "gone_row"
        return "to_judge" if self._is_to_judge(parts) else "old"

    def _is_to_judge(self, parts: Mapping[str, Any]) -> bool:
        work_id = parts.get("work_id")
        if not isinstance(work_id, str) or work_id not in self.work_ids:
            return False
        generation = {name: value for name, value in parts.items() if name not in _JUDGE_PARTS}
        is_same = generation == self.identity.generation_parts(work_id)
        return is_same and not self.index.output(self.identity.cache_id(work_id))


def _settings(parts: Mapping[str, Any]) -> str:
    return canonical_json({name: value for name, value in parts.items() if name != "work_id"})
