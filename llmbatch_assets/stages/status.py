"""The state of a batch: items by state, failures by cause, and what its calls cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from pydantic import Field

from llmbatch_assets.adapters.store.index import CacheIndex
from llmbatch_assets.adapters.store.run_records import read_ledger
from llmbatch_assets.domain.item_state import count_states
from llmbatch_assets.domain.items.work import WorkItem
from llmbatch_assets.domain.outcome import FailureClass, Stored
from llmbatch_assets.domain.run.ledger import usage_breakdown
from llmbatch_assets.domain.text import cut, flatten
from llmbatch_assets.stages.artifacts import cache_index, current_work, has_stored_work, last_run_meta, stored_work
from llmbatch_assets.stages.project import Batch

EXAMPLE_CHARS = 200


class CauseExample(Stored):
    """A failed item and its last error."""

    partition_key: str
    row_index: int | None
    message: str
    file: str


class FailuresOfCause(Stored):
    """The items whose last attempt failed for one cause. ``class`` and ``example`` are those of the first item."""

    cause: str
    failure_class: FailureClass = Field(serialization_alias="class")
    n_items: int
    example: CauseExample


class LastRun(Stored):
    """The last run as its manifest describes it."""

    generated_at_utc: Any = None
    elapsed_sec: Any = None
    model_name: Any = None
    stopped_by: Any = None


class BatchStatus(Stored):
    """The state of a batch, under the keys of ``llmbatch status --json``."""

    batch: str
    title: str
    provider: str
    model: str
    items: dict[str, int]
    items_are_from: str
    waiting_for_judge: int
    to_be_made_again: int
    outputs_of_other_settings: int
    failures: list[FailuresOfCause]
    spent: dict[str, Any]
    last_run: LastRun | None


def batch_status(batch: Batch) -> BatchStatus:
    """Read the state of a batch from its files. Raises ``InputError`` or ``ArtifactError``."""
    from_table, identity, index = not has_stored_work(batch), batch.source.identity, cache_index(batch)
    plan = current_work(batch) if from_table else stored_work(batch)
    ids = {identity.cache_id(item.work_id): item for item in plan.items}
    states = {cache_id: index.state(cache_id) for cache_id in ids}
    failed = {cache_id: item for cache_id, item in ids.items() if states[cache_id].startswith("failed")}
    return BatchStatus(
        batch=batch.name,
        title=batch.title,
        provider=batch.source.provider,
        model=identity.model_name,
        items=count_states(states.values()),
        items_are_from="the table" if from_table else "the last run",
        waiting_for_judge=len(ids.keys() & index.awaiting),
        to_be_made_again=len(ids.keys() & index.forced),
        outputs_of_other_settings=len(index.accepted - ids.keys()),
        failures=_failures_by_cause(batch, index, failed),
        spent=usage_breakdown(read_ledger(batch.path(batch.layout.ledger))),
        last_run=LastRun.model_validate(meta) if (meta := last_run_meta(batch)) else None,
    )


def _failures_by_cause(batch: Batch, index: CacheIndex, failed: Mapping[str, WorkItem]) -> list[FailuresOfCause]:
    """Group failed items by cause, the most frequent first."""
    first: dict[str, FailuresOfCause] = {}
    counts: Counter[str] = Counter()
    for cache_id, item in failed.items():
        failure = index.last_failure(cache_id)
        if failure is None:
            continue
        counts[failure.cause] += 1
        if failure.cause not in first:
            example = CauseExample(
                partition_key=item.partition_key,
                row_index=item.row_index,
                message=cut(flatten(failure.error.get("message", "")), EXAMPLE_CHARS)[0],
                file=batch.shown(index.failure_path(cache_id, index.failed[cache_id])),
            )
            first[failure.cause] = FailuresOfCause(
                cause=failure.cause, failure_class=failure.failure_class, n_items=0, example=example
            )
    ordered = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    return [first[cause].model_copy(update={"n_items": count}) for cause, count in ordered]
