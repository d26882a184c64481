"""Open and make Dagster's SQLite files without loading the migrations.

Dagster loads its 60 migration scripts, which takes a tenth of a second, for each file that a process opens, and twice for
a new one. It needs them only for a file whose tables have no revision yet.
"""

import os
import shutil
import sqlite3
import uuid
from collections.abc import Callable, Collection
from contextlib import closing, suppress
from pathlib import Path

import dagster as dg
import sqlalchemy
from sqlalchemy.engine import URL, Engine
from sqlalchemy.pool import NullPool


def is_initialized(path: Path, tables: Collection[str] = ()) -> bool:
    """Whether the file has one revision, and these tables. Dagster then leaves it as it is."""
    if not path.is_file():
        return False
    try:
        with closing(sqlite3.connect(path)) as connection:
            (n_revisions,) = connection.execute("SELECT count(*) FROM alembic_version").fetchone()
            found = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.DatabaseError:
        # The table is missing, or this is not a database; Dagster makes it or says so.
        return False
    return n_revisions == 1 and found.issuperset(tables)


class EmptyFile:
    """An empty event log of this version of Dagster, kept in a folder and copied for each run.

    ``initialize`` makes the tables; it is only called where there is none to copy.
    """

    def __init__(self, folder: Path, initialize: Callable[[Engine], None]) -> None:
        # Not ``.db``: Dagster takes each of these for a run.
        self._path = folder / f"empty-{dg.__version__}.sqlite"
        self._initialize = initialize

    def copy_to(self, path: Path) -> None:
        """Make the file. It is never partly there, and one that another process has made in the meantime is kept.

        On a file system without hard links, it is not made.
        """
        if not self._path.is_file():
            self._make()
        copied = _beside(path)
        try:
            shutil.copyfile(self._path, copied)
            with suppress(OSError):
                os.link(copied, path)
        finally:
            copied.unlink(missing_ok=True)

    def _make(self) -> None:
        made = _beside(self._path)
        engine = sqlalchemy.create_engine(URL.create("sqlite", database=str(made)), poolclass=NullPool)
        try:
            self._initialize(engine)
            # Closing the last connection moves everything from the write-ahead log into the file.
            with made.open("rb") as file:
                os.fsync(file.fileno())
            made.replace(self._path)
        finally:
            made.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
