"""Marks in Dagster's records, by which the next run from the command line sees that nobody else has written there."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from llmbatch_assets.domain.canonical import sha1_text
from llmbatch_assets.resources.sqlite_storage import OWN_RUN_ENV, BatchingEventLogStorage
from llmbatch_assets.stages.unchanged.records import RecordMark


@contextmanager
def marking_records(instance: dg.DagsterInstance, asset: dg.AssetKey) -> Iterator[RecordMark]:
    """Set the mark of the batch with this asset. The events of the block, and of its child processes, leave it.

    Only our own storage removes marks, so with another one there is none.
    """
    storage = instance.event_log_storage
    if not isinstance(storage, BatchingEventLogStorage):
        yield RecordMark(None, "")
        return
    mark = RecordMark(storage.marks / sha1_text(asset.to_user_string()), secrets.token_hex(16))
    assert mark.path is not None
    mark.path.parent.mkdir(exist_ok=True)
    mark.path.write_text(mark.token, encoding="ascii")
    before = os.environ.get(OWN_RUN_ENV)
    os.environ[OWN_RUN_ENV] = "1"
    try:
        yield mark
    finally:
        if before is None:
            del os.environ[OWN_RUN_ENV]
        else:
            os.environ[OWN_RUN_ENV] = before
