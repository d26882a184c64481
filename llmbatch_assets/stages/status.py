"""How a batch stands, gathered from its files without opening an output."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llmbatch_assets.adapters.store.ledger import read_ledger
from llmbatch_assets.adapters.store.listing import OutputListing, list_outputs, read_mapping
from llmbatch_assets.domain.items.work import WorkItem
from llmbatch_assets.domain.plan.selection import State
from llmbatch_assets.domain.status import LastFailure, Spent, counts_of, failures_by_cause
from llmbatch_assets.stages.artifacts import artifact_path, output_store, planned
from llmbatch_assets.stages.project import Batch


def batch_status(batch: Batch) -> dict[str, Any]:
    """Everything that ``llmbatch status`` tells. Raises an ``InputError`` or ``ArtifactError``."""
    plan, identity = planned(batch), batch.source.identity
    listing = list_outputs(output_store(batch))
    ids = {item.partition_key: identity.cache_id(item.work_id) for item in plan.items}
    states = {key: listing.state(cache_id) for key, cache_id in ids.items()}
    current = set(ids.values())
    return {
        "batch": batch.name,
        "title": batch.title,
        "provider": batch.source.provider,
        "model": identity.model_name,
        "items": counts_of(states.values()),
        "items_are_from": "the table" if plan.from_table else "the last run",
        "waiting_for_judge": len(current & listing.awaiting),
        "to_be_made_again": len(current & listing.forced),
        "outputs_of_other_settings": len(listing.accepted - current),
        "failures": failures_by_cause(_last_failures(batch, plan.items, ids, states, listing)),
        "spent": Spent(read_ledger(batch.path(batch.layout.ledger))).shown(),
        "last_run": _last_run(batch),
    }


def _last_failures(
    batch: Batch,
    items: Sequence[WorkItem],
    ids: Mapping[str, str],
    states: Mapping[str, State],
    listing: OutputListing,
) -> Iterator[LastFailure]:
    for item in items:
        if states[item.partition_key].startswith("failed"):
            cache_id = ids[item.partition_key]
            path = listing.store.failure_path(cache_id, listing.attempts[cache_id])
            yield LastFailure(item.partition_key, item.row_index, batch.shown(path), listing.last_failure(cache_id))


def _last_run(batch: Batch) -> dict[str, Any] | None:
    meta = read_mapping(artifact_path(batch, "llm_outputs")).get("meta")
    if not isinstance(meta, dict):
        return None
    return {name: meta.get(name) for name in ("generated_at_utc", "elapsed_sec", "model_name", "stopped_by")}
