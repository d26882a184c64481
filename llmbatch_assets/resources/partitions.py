"""Register the partition keys of a batch in Dagster, one per work item."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import dagster as dg

# Databases limit the variables of a statement, so keys are added in chunks.
KEYS_AT_ONCE = 10_000


@runtime_checkable
class BulkPartitionStorage(Protocol):
    """An event log storage that removes many partition keys at once. Dagster's own remove one at a time."""

    def delete_dynamic_partitions(self, partitions_def_name: str, partition_keys: Sequence[str]) -> None: ...


def sync_partitions(instance: dg.DagsterInstance, partitions: str, keys: Sequence[str]) -> tuple[int, int]:
    """Make ``keys`` the registered keys of ``partitions``, and return how many were added and removed.

    Dagster keeps the events of removed keys, so a key that is registered again has its previous state.
    """
    wanted, present = set(keys), set(instance.get_dynamic_partitions(partitions))
    added = [key for key in keys if key not in present]
    removed = sorted(present - wanted)
    for start in range(0, len(added), KEYS_AT_ONCE):
        instance.add_dynamic_partitions(partitions, added[start : start + KEYS_AT_ONCE])
    storage = instance.event_log_storage
    if isinstance(storage, BulkPartitionStorage):
        storage.delete_dynamic_partitions(partitions, removed)
    else:
        for key in removed:
            instance.delete_dynamic_partition(partitions, key)
    return len(added), len(removed)
