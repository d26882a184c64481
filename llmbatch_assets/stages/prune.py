"""Files of a batch that the present settings do not use, and deleting them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from llmbatch_assets.adapters.store.claims import claiming_all
from llmbatch_assets.adapters.store.listing import OutputListing, list_outputs, read_mapping
from llmbatch_assets.domain.items.grouping import plan_work
from llmbatch_assets.domain.items.identity import BatchIdentity
from llmbatch_assets.domain.items.work import WorkItem, WorkItems
from llmbatch_assets.domain.pruning import Use, Uses
from llmbatch_assets.errors import ArtifactError, ConfigError, InputError
from llmbatch_assets.stages.artifacts import artifact_path, load_artifact, output_store
from llmbatch_assets.stages.project import Batch, BatchFile, config_files

_OUTPUT = re.compile(r"([0-9a-f]{40})\.json")
_FAILURE = re.compile(r"([0-9a-f]{40})__a\d+\.json")
_BROKEN = re.compile(r"[0-9a-f]{40}\.json\.broken\d*")
_MARK = re.compile(r"([0-9a-f]{40})")
_TEXT = re.compile(r"((?:identity_)?[0-9a-f]{40})\.json")
_SCHEMA_ANSWER = re.compile(r"schema__a\d+\.json")


class Unused(NamedTuple):
    """A file that nothing points at, and of which kind it is."""

    kind: str
    path: Path


@dataclass(frozen=True)
class Pruning:
    """What can be deleted, and how many files of rows that have gone are kept unless they were asked for."""

    unused: list[Unused]
    n_gone_rows_kept: int


def find_unused(batch_file: BatchFile, *, gone_rows: bool = False) -> Pruning:
    """The files of a batch that no batch of the project points at. Raises an ``InputError`` where that cannot be told.

    Outputs that were made by the present settings for rows that the table no longer has count only with ``gone_rows``.
    """
    batch = batch_file.load()
    sharing = [other for other in _all_batches(batch_file) if _cache(other) == _cache(batch)]
    listing = list_outputs(output_store(batch))
    uses = Uses(
        [other.source.identity for other in sharing],
        frozenset(item.work_id for other in sharing for item in _items(other)),
        listing.accepted,
    )
    search = _Search(batch, sharing, listing, uses, gone_rows)
    return Pruning(list(search.unused()), search.n_kept)


def delete(batch: Batch, unused: Sequence[Unused]) -> None:
    """Delete the files. Raises ``BusyError`` while a run is at work on the batch."""
    with claiming_all(batch.path(batch.layout.claims)):
        for file in unused:
            file.path.unlink(missing_ok=True)


def _all_batches(batch_file: BatchFile) -> list[Batch]:
    """Every batch of the project, with its prompts and schema read: what one of them uses must be known."""
    batches = []
    for path in dict.fromkeys([batch_file.path, *config_files(batch_file.path)]):
        try:
            batches.append(BatchFile(path).load())
            _ = batches[-1].source
        except InputError as unknown:
            raise ConfigError(
                f"what {path.name} uses cannot be told, so nothing is pruned; mend it, or take it out of configs/: {unknown}"
            ) from unknown
    return batches


def _cache(batch: Batch) -> Path:
    return batch.path(batch.layout.cache).resolve()


def _items(batch: Batch) -> list[WorkItem]:
    """The items of the last run and those of the table as it is now, as far as either can be read."""
    items: list[WorkItem] = []
    if artifact_path(batch, "work_items").is_file():
        try:
            items += load_artifact(batch, "work_items", WorkItems).items
        except ArtifactError as broken:
            raise ConfigError(f"which items there are cannot be told, so nothing is pruned: {broken}") from broken
    try:
        items += plan_work(batch.read_snapshot(), batch.parameters).items
    except InputError:
        if not items:
            raise
    return items


@dataclass
class _Search:
    batch: Batch
    sharing: list[Batch]
    listing: OutputListing
    uses: Uses
    gone_rows: bool
    n_kept: int = 0

    def unused(self) -> Iterator[Unused]:
        store, layout = self.listing.store, self.batch.layout
        yield from self._artifacts(store.outputs, _OUTPUT, "outputs")
        yield from self._artifacts(store.failures, _FAILURE, "failed attempts")
        for folder in (store.outputs, store.awaiting_judge):
            yield from (Unused("broken files that were set aside", path) for path, _ in _matching(folder, _BROKEN))
        yield from self._left_over(store.awaiting_judge, _OUTPUT, "answers that wait for another judge")
        yield from self._left_over(store.forced, _MARK, "marks of --force")
        yield from self._texts(self.batch.path(layout.provenance))
        for path, _ in _matching(self.batch.path(layout.schema_failures), _SCHEMA_ANSWER):
            yield Unused("refused schema answers", path)
        for path, _ in _matching(self.batch.path(layout.archive), self._archived()):
            yield Unused("archived schema files", path)

    def _artifacts(self, folder: Path, pattern: re.Pattern[str], what: str) -> Iterator[Unused]:
        for path, cache_id in _matching(folder, pattern):
            if cache_id in self.uses.cache_ids:
                continue
            use = self._use(cache_id, path)
            if use == "gone_row":
                self.n_kept += not self.gone_rows
            if use == "old" or (use == "gone_row" and self.gone_rows):
                yield Unused(f"{what} of {'other settings' if use == 'old' else 'rows that have gone'}", path)

    def _use(self, cache_id: str, path: Path) -> Use:
        meta = read_mapping(path).get("meta")
        parts = meta.get("identity") if isinstance(meta, dict) else None
        return self.uses.of(cache_id, parts if isinstance(parts, dict) else {})

    def _left_over(self, folder: Path, pattern: re.Pattern[str], kind: str) -> Iterator[Unused]:
        """Files that do not say what they belong to: those of settings that are known, and not in force."""
        for path, cache_id in _matching(folder, pattern):
            if cache_id in self._old_ids or (self.gone_rows and cache_id not in self.uses.cache_ids):
                yield Unused(kind, path)

    @cached_property
    def _old_ids(self) -> set[str]:
        old = [other for other in self._known if other not in self._current]
        return {identity.cache_id(work_id) for identity in old for work_id in self.uses.work_ids}

    @cached_property
    def _current(self) -> list[BatchIdentity]:
        return [batch.source.identity for batch in self.sharing]

    @cached_property
    def _known(self) -> list[BatchIdentity]:
        known = []
        for path in sorted(self.batch.path(self.batch.layout.provenance).glob("identity_*.json")):
            try:
                known.append(BatchIdentity.model_validate(read_mapping(path)))
            except ValueError:
                continue
        return known

    def _texts(self, folder: Path) -> Iterator[Unused]:
        """Texts that neither the present settings refer to nor those whose outputs only wait for another judge."""
        used = {name for batch in self.sharing for name in batch.provenance()}
        for identity in self._known:
            if any(identity.differs_only_in_judge(current) for current in self._current):
                judge = identity.judge or {}
                used |= {f"identity_{identity.sha}", str(identity.judge_prompt_sha), str(judge.get("schema_sha"))}
        for path, name in _matching(folder, _TEXT):
            if name not in used:
                yield Unused("prompts and schemas of other settings", path)

    def _archived(self) -> re.Pattern[str]:
        stems = {path.stem for path in (self.batch.layout.schema_py, self.batch.layout.schema_txt)}
        return re.compile(rf"(?:{'|'.join(map(re.escape, sorted(stems)))})_\d{{8}}_\d{{6}}(?:_\d+)?\.(?:py|txt)")


def _matching(folder: Path, pattern: re.Pattern[str]) -> list[tuple[Path, Any]]:
    """The files of a folder whose names are of our making, with what the pattern finds in them."""
    if not folder.is_dir():
        return []
    found = ((path, pattern.fullmatch(path.name)) for path in sorted(folder.iterdir()))
    return [(path, match.group(1) if pattern.groups else path.name) for path, match in found if match]
