"""The artifacts of a batch, by the assets that write them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError

from llmbatch_assets.adapters.files.atomic import read_json
from llmbatch_assets.adapters.store.index import CacheFolders, CacheIndex, ignore_broken
from llmbatch_assets.adapters.store.outputs import FileStore, quarantine
from llmbatch_assets.adapters.store.provenance import kept_identities
from llmbatch_assets.domain.export.records import ItemOutcome, OutdatedOutput
from llmbatch_assets.domain.items.grouping import plan_work
from llmbatch_assets.domain.items.identity import BatchIdentity
from llmbatch_assets.domain.items.work import GroupContext, WorkItem, WorkItems
from llmbatch_assets.domain.outcome import AcceptedOutput, FailedAttempt
from llmbatch_assets.errors import ArtifactError, LlmBatchError
from llmbatch_assets.stages.project import Batch

_PATHS = {
    "input_snapshot": "snapshot",
    "group_contexts": "group_contexts",
    "work_items": "work_items",
}
_MANIFESTS = {"llm_outputs": 4, "export": 5, "report": 6}


def artifact_path(batch: Batch, asset: str) -> Path:
    """Return the path of an asset's JSON artifact."""
    layout = batch.layout
    relative = layout.manifest(_MANIFESTS[asset]) if asset in _MANIFESTS else getattr(layout, _PATHS[asset])
    return batch.path(relative)


def load_artifact(batch: Batch, asset: str, kind: Any) -> Any:
    """Load an asset's artifact as the type ``kind``. Raises ``MissingArtifactError`` or ``ArtifactError``."""
    path = artifact_path(batch, asset)
    content = read_json(path, f"{batch.command} --select {asset}")
    try:
        return TypeAdapter(kind).validate_python(content)
    except ValidationError as broken:
        first = broken.errors()[0]
        raise ArtifactError(
            f"{path} is not what {asset} writes ({'.'.join(map(str, first['loc']))}: {first['msg']}); "
            f"make it again with: {batch.command} --select {asset}"
        ) from None


def last_run_meta(batch: Batch) -> dict[str, Any]:
    """Return the ``meta`` of the last run's manifest; empty if there is none that can be read."""
    try:
        return dict(read_json(artifact_path(batch, "llm_outputs"))["meta"])
    except (LlmBatchError, LookupError, TypeError, ValueError):
        return {}


def cache_index(batch: Batch, on_broken: Callable[[Path, str], None] = ignore_broken) -> CacheIndex:
    """Return a view of the batch's output cache. By default it changes nothing."""
    layout = batch.layout
    folders = (layout.llm_outputs, layout.llm_failures, layout.forced, layout.awaiting_judge)
    return CacheIndex(
        CacheFolders(*map(batch.path, folders)),
        contract=lambda: batch.conversations.output_contract,
        manifest=artifact_path(batch, "llm_outputs"),
        on_broken=on_broken,
    )


def output_store(batch: Batch) -> FileStore:
    """Return the batch's output cache for a run, which quarantines the broken outputs that it comes across."""
    return FileStore(cache_index(batch, quarantine), batch.parameters.cache.dump_failures)


@dataclass(frozen=True)
class BatchOutputs:
    """The outputs of a batch's items under its current settings, in item order. Iterate as often as you like.

    Nothing is held here. ``earlier`` are the identities of previous runs.
    """

    index: CacheIndex
    identity: BatchIdentity
    items: list[WorkItem]
    plan_warnings: Sequence[str] = ()
    earlier: Sequence[BatchIdentity] = ()

    def __iter__(self) -> Iterator[tuple[WorkItem, AcceptedOutput]]:
        for item in self.items:
            output = self.output(item)
            if output is not None:
                yield item, output

    def output(self, item: WorkItem) -> AcceptedOutput | None:
        """Return the item's accepted output."""
        return self.index.output(self.identity.cache_id(item.work_id))

    def failure(self, item: WorkItem) -> FailedAttempt | None:
        """Return the item's last failed attempt."""
        return self.index.last_failure(self.identity.cache_id(item.work_id))

    def failures(self, item: WorkItem) -> list[FailedAttempt]:
        """Return the item's failed attempts, the latest last."""
        return list(self.index.failed_attempts(self.identity.cache_id(item.work_id)))

    def outcomes(self, shown: Callable[[Path], str] = str) -> Iterator[ItemOutcome]:
        """Yield the outcome of each item. ``shown`` turns a file into the name that people read."""
        for item in self.items:
            output = self.output(item)
            if output:
                yield ItemOutcome(item, output)
                continue
            failure, outdated = self.failure(item), self.outdated(item, shown)
            path = failure and self.index.failure_path(failure.meta["cache_id"], failure.meta["attempt_outer"])
            yield ItemOutcome(item, None, failure, shown(path) if path else "", outdated)

    def outdated(self, item: WorkItem, shown: Callable[[Path], str] = str) -> OutdatedOutput | None:
        """Return the item's output from the earlier settings that differ least from the current ones. Opens no file."""
        for differences, identity in self._earlier_by_likeness:
            cache_id = identity.cache_id(item.work_id)
            if cache_id in self.index.accepted:
                return OutdatedOutput(shown(self.index.output_path(cache_id)), ", ".join(differences))
        return None

    @cached_property
    def _earlier_by_likeness(self) -> list[tuple[list[str], BatchIdentity]]:
        if not self.index.accepted:
            return []
        others = [(other.differences(self.identity), other) for other in self.earlier if other != self.identity]
        return sorted(others, key=lambda pair: (len(pair[0]), pair[1].sha))


def batch_outputs(batch: Batch) -> BatchOutputs:
    """Return the outputs of the batch as it is configured now."""
    work_items = load_artifact(batch, "work_items", WorkItems)
    warnings = work_items.meta.get("warnings", ())
    earlier = kept_identities(batch.path(batch.layout.provenance))
    return BatchOutputs(cache_index(batch), batch.source.identity, work_items.items, warnings, earlier)


class PlannedItems(NamedTuple):
    """The items of a batch. ``from_table``: no run has written them yet, so they come from the current table."""

    items: list[WorkItem]
    contexts: list[GroupContext]
    from_table: bool


def planned_items(batch: Batch) -> PlannedItems:
    """Return the items that the last run planned or, before any run, those of the current table.

    Raises ``ArtifactError`` or, for the table, ``InputError``.
    """
    if artifact_path(batch, "work_items").is_file():
        contexts = load_artifact(batch, "group_contexts", list[GroupContext])
        return PlannedItems(load_artifact(batch, "work_items", WorkItems).items, contexts, from_table=False)
    plan = plan_work(batch.read_snapshot(), batch.parameters)
    return PlannedItems(plan.items, plan.contexts, from_table=True)
