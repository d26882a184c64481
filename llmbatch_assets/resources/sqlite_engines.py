"""Open databases of SQLite, kept for the next transaction."""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import sqlalchemy
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from sqlalchemy.engine import URL, Connection, Engine
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry, NullPool, QueuePool

MOST_OPEN = 16


class _Open(NamedTuple):
    engine: Engine
    inode: int | None


# Engines inherited through a fork. SQLite forbids a child process even to close them, so they are kept here forever.
_INHERITED: list[OrderedDict[Path, _Open]] = []


class SqliteEngines:
    """Engines of open databases, one per file. The least recently used are closed first.

    Opening a connection costs several times as much as a small write, so connections are kept. Engines are never used
    after a fork or after their file was replaced. ``prepare`` creates the tables of a newly opened file; it gets a
    temporary engine.
    """

    def __init__(self, prepare: Callable[[Engine], None]) -> None:
        self._prepare = prepare
        self._reset()

    def _reset(self) -> None:
        self._open: OrderedDict[Path, _Open] = OrderedDict()
        self._lock = threading.Lock()
        self._pid = os.getpid()

    @contextmanager
    def transaction(self, path: Path) -> Iterator[Connection]:
        """A transaction on a database, committed at the end of the block. One at a time in this process."""
        if self._pid != os.getpid():
            _INHERITED.append(self._open)
            self._reset()
        with self._lock, self._engine(path).begin() as connection:
            yield connection

    def _engine(self, path: Path) -> Engine:
        found = self._open.get(path)
        if found is None or found.inode != _inode(path):
            self._close(path)
            self._open[path] = found = self._open_database(path)
            # The most recently used come last.
            for unused in list(self._open)[:-MOST_OPEN]:
                self._close(unused)
        self._open.move_to_end(path)
        return found.engine

    def _open_database(self, path: Path) -> _Open:
        url = URL.create("sqlite", database=str(path))
        timeout = {"timeout": SQLITE_BUSY_TIMEOUT_SECONDS}
        temporary = sqlalchemy.create_engine(url, poolclass=NullPool, connect_args=timeout)
        # Each table and index is a commit of its own, so the pragmas matter here too.
        sqlalchemy.event.listen(temporary, "connect", set_pragmas)
        self._prepare(temporary)
        engine = sqlalchemy.create_engine(
            url,
            poolclass=QueuePool,
            # One connection is enough, since transactions take turns. There is no upper limit, because a connection
            # lost to an interrupt would block all later transactions.
            pool_size=1,
            max_overflow=-1,
            connect_args={**timeout, "check_same_thread": False},
        )
        sqlalchemy.event.listen(engine, "connect", set_pragmas)
        return _Open(engine, _inode(path))

    def _close(self, path: Path) -> None:
        found = self._open.pop(path, None)
        if found is not None:
            found.engine.dispose()

    def close(self) -> None:
        """Close all databases. The next transaction opens its own again."""
        if self._pid == os.getpid():
            for path in list(self._open):
                self._close(path)


def _inode(path: Path) -> int | None:
    """Identifies a file, to notice that it was replaced; None if it does not exist."""
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def set_pragmas(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    """Prepare a new connection for many small writes."""
    cursor = connection.cursor()
    # With a write-ahead log, a commit need not wait for the disk: a killed process loses nothing, a power cut at most
    # the last commits, and the database stays consistent.
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.close()
