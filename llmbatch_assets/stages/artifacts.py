"""The artifacts of a batch, by the assets that write them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError

from llmbatch_assets.adapters.files.atomic import read_json
from llmbatch_assets.adapters.files.file_version import file_version
from llmbatch_assets.adapters.store.index import CacheFolders, CacheIndex, ignore_broken
from llmbatch_assets.adapters.store.kept_values import KEPT
from llmbatch_assets.adapters.store.outputs import FileStore, quarantine
from llmbatch_assets.adapters.store.run_records import kept_identities
from llmbatch_assets.domain.export.records import ItemOutcome, OutdatedOutput
from llmbatch_assets.domain.items.grouping import plan_work
from llmbatch_assets.domain.items.identity import BatchIdentity
from llmbatch_assets.domain.items.prompt_columns import missing_columns
from llmbatch_assets.domain.items.table import Snapshot
from llmbatch_assets.domain.items.work import GroupContext, WorkItem, WorkItems, WorkPlan
from llmbatch_assets.domain.outcome import AcceptedOutput, FailedAttempt
from llmbatch_assets.domain.placeholders import braced
from llmbatch_assets.domain.prompt_warnings import empty_prompt_warnings
from llmbatch_assets.errors import ArtifactError, LlmBatchError, MissingArtifactError, PromptError
from llmbatch_assets.stages.project import Batch

_MANIFESTS = {"llm_outputs": 4, "export": 5, "report": 6}


def artifact_path(batch: Batch, asset: str) -> Path:
    """Return the path of an asset's JSON artifact."""
    if asset in _MANIFESTS:
        return batch.path(batch.layout.manifest(_MANIFESTS[asset]))
    return batch.path(getattr(batch.layout, asset.removeprefix("input_")))


def load_artifact(batch: Batch, asset: str, kind: Any) -> Any:
    """Load an asset's artifact as the type ``kind``, once per process. Raises ``MissingArtifactError`` or ``ArtifactError``.

    All readers share the value: never modify it.
    """
    path = artifact_path(batch, asset)
    if (kept := KEPT.get(path, repr(kind))) is not None:
        return kept
    version, content = file_version(path), read_json(path, f"{batch.command} --select {asset}")
    try:
        value = TypeAdapter(kind).validate_python(content)
    except ValidationError as broken:
        first = broken.errors()[0]
        raise ArtifactError(
            f"{path} is not what {asset} writes ({'.'.join(map(str, first['loc']))}: {first['msg']}); "
            f"make it again with: {batch.command} --select {asset}"
        ) from None
    KEPT.keep(path, repr(kind), version, value)
    return value


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
        known_file=batch.path(layout.known_outputs),
    )


def output_store(batch: Batch) -> FileStore:
    """Return the batch's output cache for a run, which quarantines the broken outputs that it comes across."""
    return FileStore(cache_index(batch, quarantine), batch.parameters.cache.dump_failures)


@dataclass(frozen=True)
class StoredSnapshot:
    """The snapshot that the last run wrote. It is parsed when it is needed."""

    batch: Batch

    def load(self) -> Snapshot:
        """Raises ``MissingArtifactError`` or ``ArtifactError``."""
        snapshot: Snapshot = load_artifact(self.batch, "input_snapshot", Snapshot)
        return snapshot


class OlderOutput(NamedTuple):
    """An output made with other settings, and the settings that differ."""

    cache_id: str
    differs_in: str


@dataclass(frozen=True)
class BatchOutputs:
    """The outputs of a batch's items under its current settings, in item order. Iterate as often as you like.

    Each iteration reads the files again, unless they are still in memory. ``earlier`` are the identities of previous runs.
    """

    index: CacheIndex
    identity: BatchIdentity
    items: list[WorkItem]
    plan_warnings: Sequence[str] = ()
    earlier: Sequence[BatchIdentity] = ()

    def __iter__(self) -> Iterator[tuple[WorkItem, AcceptedOutput]]:
        for item in self.items:
            if output := self.output(item):
                yield item, output

    def output(self, item: WorkItem) -> AcceptedOutput | None:
        """Return the item's accepted output."""
        return self.index.output(self.identity.cache_id(item.work_id))

    def has_file(self, item: WorkItem) -> bool:
        """Return whether there is a file of an output, which may be broken."""
        return self.identity.cache_id(item.work_id) in self.index.accepted

    def failure(self, item: WorkItem) -> FailedAttempt | None:
        """Return the item's last failed attempt."""
        return self.index.last_failure(self.identity.cache_id(item.work_id))

    def failures(self, item: WorkItem) -> list[FailedAttempt]:
        """Return the item's failed attempts, the latest last."""
        return list(self.index.failed_attempts(self.identity.cache_id(item.work_id)))

    def outcomes(self, shown: Callable[[Path], str] = str) -> Iterator[ItemOutcome]:
        """Yield the outcome of each item. ``shown`` turns a file into the name that people read."""
        for item in self.items:
            yield self.outcome(item, shown)

    def outcome(self, item: WorkItem, shown: Callable[[Path], str] = str) -> ItemOutcome:
        """Return the item's outcome."""
        cache_id = self.identity.cache_id(item.work_id)
        output, sha = self.index.output_and_sha(cache_id)
        if output:
            return ItemOutcome(item, output, output_sha=sha)
        failure, outdated = self.index.last_failure(cache_id), self.outdated(item, shown)
        path = failure and self.index.failure_path(failure.meta["cache_id"], failure.meta["attempt_outer"])
        return ItemOutcome(item, None, failure, shown(path) if path else "", outdated)

    def outdated(self, item: WorkItem, shown: Callable[[Path], str] = str) -> OutdatedOutput | None:
        """Return the file of ``older``, and the settings that differ."""
        older = self.older(item)
        return older and OutdatedOutput(shown(self.index.output_path(older.cache_id)), older.differs_in)

    def older(self, item: WorkItem) -> OlderOutput | None:
        """Return the item's output from the earlier settings that differ least from the current ones. Opens no file."""
        if self.has_file(item):
            # Only a broken output makes anyone ask.
            return _older_outputs((item.work_id,), self._earlier_by_likeness, self.index.accepted).get(item.work_id)
        return self._older.get(item.work_id)

    @cached_property
    def _older(self) -> Mapping[str, OlderOutput]:
        """The older output of each item that has no file."""
        own = {item.work_id: self.identity.cache_id(item.work_id) for item in self.items}
        without = tuple(work_id for work_id, cache_id in own.items() if cache_id not in self.index.accepted)
        return _kept_older_outputs(without, self._earlier_by_likeness, self.index.accepted.difference(own.values()))

    @cached_property
    def _earlier_by_likeness(self) -> tuple[tuple[str, BatchIdentity], ...]:
        others = [(other.differences(self.identity), other) for other in self.earlier if other != self.identity]
        return tuple(
            (", ".join(names), other) for names, other in sorted(others, key=lambda pair: (len(pair[0]), pair[1].sha))
        )


def _older_outputs(
    work_ids: tuple[str, ...], identities: tuple[tuple[str, BatchIdentity], ...], cache_ids: frozenset[str]
) -> Mapping[str, OlderOutput]:
    """Return the first output of each item, by work id, if the items are looked for under each identity in turn."""
    found: dict[str, OlderOutput] = {}
    for differs_in, identity in identities if cache_ids else ():
        for work_id in work_ids:
            if work_id not in found and (cache_id := identity.cache_id(work_id)) in cache_ids:
                found[work_id] = OlderOutput(cache_id, differs_in)
    return found


# Kept for the next view of the same outputs, since hashing the ids of all items under all earlier settings takes a while.
_kept_older_outputs = lru_cache(maxsize=1)(_older_outputs)


def batch_outputs(batch: Batch) -> BatchOutputs:
    """Return the outputs of the batch as it is configured now."""
    work_items = load_artifact(batch, "work_items", WorkItems)
    warnings = work_items.meta.get("warnings", ())
    earlier = kept_identities(batch.path(batch.layout.provenance))
    return BatchOutputs(cache_index(batch), batch.source.identity, work_items.items, warnings, earlier)


def work_of(batch: Batch, snapshot: Snapshot) -> WorkPlan:
    """Return the work of a table. Raises ``InputError``; mistakes in prompts are left to ``Batch.check_prompts``."""
    plan = plan_work(snapshot, batch.parameters, batch.columns_of_prompts(snapshot.columns))
    plan.warnings.extend(prompt_gaps(batch, snapshot.columns, plan.items))
    return plan


def prompt_gaps(batch: Batch, columns: Sequence[str], items: Sequence[WorkItem]) -> list[str]:
    """Return a warning if columns that the prompts name are empty for some items."""
    return [*empty_prompt_warnings(batch.generation_prompt, items)] if batch.columns_of_prompts(columns) else []


def current_work(batch: Batch) -> WorkPlan:
    """Return the work of the current table. Raises ``InputError``."""
    return work_of(batch, batch.read_snapshot())


def require_columns(batch: Batch, items: Collection[WorkItem]) -> None:
    """Raise ``PromptError`` if stored items lack a value for a placeholder of the prompts."""
    missing = missing_columns(batch.generation_prompt, batch.judge_prompt, items)
    if missing:
        batch.check_prompts(load_artifact(batch, "input_snapshot", Snapshot).columns)
        raise PromptError(
            f"the work items have no values for {braced(missing)}, which the prompts now name; recreate them with: "
            f"{batch.command} --select work_items"
        )


def stored_work(batch: Batch) -> WorkPlan:
    """Return the work items and group contexts that the last run wrote. Raises ``ArtifactError``."""
    contexts = load_artifact(batch, "group_contexts", list[GroupContext])
    return WorkPlan(load_artifact(batch, "work_items", WorkItems).items, contexts, [])


def has_stored_work(batch: Batch) -> bool:
    return artifact_path(batch, "work_items").is_file()


def require_schema(batch: Batch) -> None:
    """Raise ``MissingArtifactError`` if there is no schema."""
    if not batch.path(batch.layout.schema_py).is_file():
        force = "" if batch.parameters.llm_schema.auto_generate else " --force"
        raise MissingArtifactError(
            f"{batch.layout.schema_py} does not exist; write it, or let the model write it: "
            f"{batch.command} --select llm_schema_py{force}"
        )
