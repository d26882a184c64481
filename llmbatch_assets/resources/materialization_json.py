"""The JSON of materializations that differ in few values, as Dagster serializes them, but without serializing each."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from dagster._core.definitions.data_version import DATA_VERSION_TAG


class MaterializedPartition(NamedTuple):
    """What differs between the materializations of a step: ``metadata`` has values by label, ``at`` is a Unix timestamp."""

    partition: str
    at: float
    metadata: Mapping[str, Any]
    data_version: str


class MaterializationJson:
    """Makes the JSON of materializations from that of one of them.

    Dagster's serializer visits every value of every event in Python, and most values of a step's events are the same.
    """

    def __init__(self, sample: str) -> None:
        self._entry: dict[str, Any] = json.loads(sample)
        self._made = self._entry["dagster_event"]["event_specific_data"]["materialization"]
        self._entry_data = {one["label"]: one["entry_data"] for one in self._made["metadata_entries"]}
        # The name of the field that holds the value, such as md_str.
        self._keys = {
            label: next(key for key in data if not key.startswith("__")) for label, data in self._entry_data.items()
        }

    def of(self, made: MaterializedPartition) -> str:
        """Return the JSON of a materialization with the same labels of metadata as the sample."""
        self._entry["timestamp"] = made.at
        self._made["partition"] = made.partition
        self._made["tags"][DATA_VERSION_TAG] = made.data_version
        for label, key in self._keys.items():
            self._entry_data[label][key] = made.metadata[label]
        return json.dumps(self._entry)
