"""Data versions and code versions, by which Dagster decides whether an asset is stale.

Dagster tags its own events with them. Events that we log ourselves need the same tags from here.
"""

from collections.abc import Iterable, Mapping

import dagster as dg
from dagster._core.definitions.data_version import (
    CODE_VERSION_TAG,
    DATA_VERSION_IS_USER_PROVIDED_TAG,
    DATA_VERSION_TAG,
    DEFAULT_DATA_VERSION,
    INPUT_EVENT_POINTER_TAG_PREFIX,
    NULL_DATA_VERSION,
    NULL_EVENT_POINTER,
    extract_data_version_from_entry,
    get_input_data_version_tag,
    get_input_event_pointer_tag,
)

from llmbatch_assets.domain.canonical import sha1_named


def recorded_version(instance: dg.DagsterInstance, key: dg.AssetKey) -> str | None:
    """The data version of an asset's latest event in Dagster; None if there is no event."""
    return _version_of(instance.get_latest_data_version_record(key))


def _version_of(record: dg.EventLogRecord | None) -> str | None:
    if record is None:
        return None
    return (extract_data_version_from_entry(record.event_log_entry) or DEFAULT_DATA_VERSION).value


def observe(context: dg.OpExecutionContext | dg.AssetExecutionContext, sources: Mapping[dg.AssetKey, str]) -> None:
    """Log an observation of each source whose data version differs from Dagster's latest record."""
    for key, version in sources.items():
        if recorded_version(context.instance, key) != version:
            context.log_event(source_observation(key, version))


def source_observation(key: dg.AssetKey, version: str) -> dg.AssetObservation:
    """The observation that a source has this data version."""
    return dg.AssetObservation(key, tags={DATA_VERSION_TAG: version, DATA_VERSION_IS_USER_PROVIDED_TAG: "true"})


def input_tags(instance: dg.DagsterInstance, keys: Iterable[dg.AssetKey]) -> dict[str, str]:
    """The tags that name the versions of an event's inputs: the latest ones in Dagster."""
    tags: dict[str, str] = {}
    for key in keys:
        record = instance.get_latest_data_version_record(key)
        tags[get_input_data_version_tag(key)] = _version_of(record) or NULL_DATA_VERSION.value
        tags[get_input_event_pointer_tag(key)] = str(record.storage_id) if record else NULL_EVENT_POINTER
    return tags


def run_tags(instance: dg.DagsterInstance, code_version: str, inputs: Iterable[dg.AssetKey]) -> dict[str, str]:
    """The version tags that all outputs of a run share."""
    provided = {CODE_VERSION_TAG: code_version, DATA_VERSION_IS_USER_PROVIDED_TAG: "true"}
    return provided | input_tags(instance, inputs)


def versions_sha(tags: Mapping[str, str]) -> str:
    """Fingerprint of the versions in the tags, without the pointers to events."""
    return sha1_named(
        **{name: value for name, value in tags.items() if not name.startswith(INPUT_EVENT_POINTER_TAG_PREFIX)}
    )
