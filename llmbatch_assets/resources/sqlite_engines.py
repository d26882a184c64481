"""Open SQLite databases: a bounded number of them, reused, never carried over a fork, never of a file that is gone."""

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


# SQLite forbids a child process even to close what its parent opened, so these are kept from being collected.
_OF_THE_PARENT: list[OrderedDict[Path, _Open]] = []


class SqliteEngines:
    """One engine per database file, the least used closed first.

    Opening a connection costs several times what a small write does, which is why they are kept. ``prepare`` makes the
    tables of a file that is opened; it is given an engine for that alone.
    """

    def __init__(self, prepare: Callable[[Engine], None]) -> None:
        self._prepare = prepare
        self._start_afresh()

    def _start_afresh(self) -> None:
        self._open: OrderedDict[Path, _Open] = OrderedDict()
        self._lock = threading.Lock()
        self._pid = os.getpid()

    @contextmanager
    def transaction(self, path: Path) -> Iterator[Connection]:
        """A transaction on a database, committed at the end of the block. One at a time in this process."""
        if self._pid != os.getpid():
            _OF_THE_PARENT.append(self._open)
            self._start_afresh()
        with self._lock, self._engine(path).begin() as connection:
            yield connection

    def _engine(self, path: Path) -> Engine:
        found = self._open.get(path)
        if found is None or found.inode != _inode(path):
            self._close(path)
            self._open[path] = found = self._opened(path)
            self._close_least_used()
        self._open.move_to_end(path)
        return found.engine

    def _opened(self, path: Path) -> _Open:
        once = sqlalchemy.create_engine(
            _url(path), poolclass=NullPool, connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS}
        )
        # Each table and index is a commit of its own.
        sqlalchemy.event.listen(once, "connect", _set_up)
        self._prepare(once)
        return _Open(_pooled_engine(path), _inode(path))

    def _close_least_used(self) -> None:
        # The one just opened is the last.
        for path in list(self._open)[:-MOST_OPEN]:
            self._close(path)

    def _close(self, path: Path) -> None:
        found = self._open.pop(path, None)
        if found is not None:
            found.engine.dispose()

    def close(self) -> None:
        """Close them all. The next transaction opens what it needs."""
        if self._pid == os.getpid():
            for path in list(self._open):
                self._close(path)


def _inode(path: Path) -> int | None:
    """What tells a file from another one of its name; None where there is none."""
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def _url(path: Path) -> URL:
    return URL.create("sqlite", database=str(path))


def _pooled_engine(path: Path) -> Engine:
    engine = sqlalchemy.create_engine(
        _url(path),
        poolclass=QueuePool,
        # One serves, since transactions take turns. No limit, or a connection lost to an interrupt would block the rest.
        pool_size=1,
        max_overflow=-1,
        connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS, "check_same_thread": False},
    )
    sqlalchemy.event.listen(engine, "connect", _set_up)
    return engine


def _set_up(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    # With the write-ahead log a commit need not wait for the disk: a killed process loses nothing, a power cut at most
    # the last commits, and the database stays whole either way.
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.close()
