"""Errors of Dagster's storage, whichever database it uses, translated into ours."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError

from llmbatch_assets.errors import LlmBatchError, RunPermanentError, StopCause


@contextmanager
def translating_storage_errors() -> Iterator[None]:
    """Raise ``RunPermanentError`` if Dagster's storage cannot be used."""
    try:
        yield
    except LlmBatchError:
        raise
    except Exception as error:
        database_error = _database_error(error)
        if database_error is None:
            raise
        reason = str(database_error.orig).partition("\n")[0]
        raise RunPermanentError(
            StopCause.DAGSTER_STORAGE,
            f"Dagster's storage (dagster.yaml in {os.environ.get('DAGSTER_HOME')}) cannot be used: {reason}. Is the disk full, "
            "or the database server down? Accepted outputs are kept, and the next run continues from there",
        ) from error


def _database_error(error: BaseException) -> DBAPIError | None:
    """Return the database's error. Dagster's PostgreSQL storage wraps it in one of its own."""
    link: BaseException | None = error
    while link is not None and not isinstance(link, DBAPIError):
        link = link.__cause__
    return link
