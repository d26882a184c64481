"""The registered partition keys of a batch, made what its table says."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import dagster as dg

# Keys are added in statements of this size: databases limit the variables of one.
KEYS_AT_ONCE = 10_000


@runtime_checkable
class RemovesMany(Protocol):
    """An event log storage that removes many partition keys at once. Dagster's own remove one."""

    def delete_dynamic_partitions(self, partitions_def_name: str, partition_keys: Sequence[str]) -> None: ...


def sync_partitions(instance: dg.DagsterInstance, partitions: str, keys: Sequence[str]) -> tuple[int, int]:
    """Make the registered keys of ``partitions`` exactly ``keys``; gives how many were added and removed.

    Dagster keeps the events of a removed key: registered again, it is what it was.
    """
    wanted, present = set(keys), set(instance.get_dynamic_partitions(partitions))
    added = [key for key in keys if key not in present]
    removed = sorted(present - wanted)
    for start in range(0, len(added), KEYS_AT_ONCE):
        instance.add_dynamic_partitions(partitions, added[start : start + KEYS_AT_ONCE])
    _remove(instance, partitions, removed)
    return len(added), len(removed)


def _remove(instance: dg.DagsterInstance, partitions: str, keys: Sequence[str]) -> None:
    storage = instance.event_log_storage
    if isinstance(storage, RemovesMany):
        storage.delete_dynamic_partitions(partitions, keys)
        return
    for key in keys:
        instance.delete_dynamic_partition(partitions, key)
