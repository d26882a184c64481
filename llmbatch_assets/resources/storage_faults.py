"""Faults of Dagster's storage, whichever it is, as an error of ours."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError

from llmbatch_assets.errors import LlmBatchError, RunPermanentError


@contextmanager
def telling_storage_faults() -> Iterator[None]:
    """Raise ``RunPermanentError`` where Dagster's storage cannot be used."""
    try:
        yield
    except LlmBatchError:
        raise
    except Exception as trouble:
        fault = _database_fault(trouble)
        if fault is None:
            raise
        reason = str(fault.orig).partition("\n")[0]
        raise RunPermanentError(
            "dagster_storage",
            f"Dagster's storage (dagster.yaml in {os.environ.get('DAGSTER_HOME')}) cannot be used: {reason}. Is the disk full, "
            "or the database's server down? What was accepted is kept, and the next run goes on from there",
        ) from trouble


def _database_fault(trouble: BaseException) -> DBAPIError | None:
    """What the database said. Dagster's PostgreSQL storage has an error of its own in front of it."""
    link: BaseException | None = trouble
    while link is not None and not isinstance(link, DBAPIError):
        link = link.__cause__
    return link
