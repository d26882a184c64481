"""A fault of any storage of Dagster's is told in one line; everything else stays what it is."""

from __future__ import annotations

import sqlite3

import pytest
from dagster_postgres.utils import DagsterPostgresException
from sqlalchemy.exc import OperationalError

from llmbatch_assets.errors import RunPermanentError
from llmbatch_assets.resources.storage_faults import translating_storage_errors

REFUSED = OperationalError("SELECT 1", {}, sqlite3.OperationalError("connection refused\n\tIs the server running?"))


def test_what_the_database_says_is_told_whatever_dagster_puts_in_front_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "/project/dagster_home")
    behind = DagsterPostgresException("too many retries for DB connection")
    behind.__cause__ = REFUSED
    for fault in (REFUSED, behind):
        with pytest.raises(RunPermanentError) as told, translating_storage_errors():
            raise fault
        assert told.value.cause == "dagster_storage"
        assert "/project/dagster_home) cannot be used: connection refused. Is" in str(told.value)


def test_other_faults_are_no_fault_of_the_storage() -> None:
    ours = ZeroDivisionError("ours")
    ours.__context__ = REFUSED
    with pytest.raises(ZeroDivisionError), translating_storage_errors():
        raise ours
