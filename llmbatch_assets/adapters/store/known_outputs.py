"""Facts about accepted outputs, known without opening their files: an SQLite database beside them.

The files remain the truth. An entry counts only for the version of the file that it was made from, so a wrong, foreign or
missing entry costs one look into the file. A database that cannot be used is replaced, and one that cannot be written is
done without.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

from llmbatch_assets.adapters.files.checksums import code_sha
from llmbatch_assets.adapters.files.file_version import FileVersion

# "llmb"; tells our databases from others.
_APPLICATION = 0x6C6C6D62
_CREATE = (
    "CREATE TABLE IF NOT EXISTS outputs (cache_id TEXT PRIMARY KEY, size INTEGER, modified_ns INTEGER, changed_ns INTEGER, "
    "inode INTEGER, sha TEXT, score REAL) WITHOUT ROWID"
)
_SELECT = "SELECT size, modified_ns, changed_ns, inode, sha, score FROM outputs WHERE cache_id = ?"
_STORE = "REPLACE INTO outputs VALUES (?, ?, ?, ?, ?, ?, ?)"


class KnownOutput(NamedTuple):
    """An accepted output as it was when its file had this version.

    ``sha`` is the SHA-1 of the file's bytes, ``score`` the judge's; None without one.
    """

    version: FileVersion
    sha: str
    score: float | None


class KnownOutputs:
    """The database of one output cache, opened on first use. Another process's lock on it is waited for ``busy_sec``."""

    def __init__(self, path: Path, busy_sec: float = 5.0) -> None:
        self._path, self._busy_sec = path, busy_sec
        self._opened: sqlite3.Connection | None = None
        self._is_usable = path.is_file()

    def get(self, cache_id: str) -> KnownOutput | None:
        """Return what is known about an output; None if nothing is."""
        if not self._is_usable:
            return None
        try:
            row = self._connection.execute(_SELECT, (cache_id,)).fetchone()
            return row and KnownOutput(FileVersion(*row[:4]), str(row[4]), row[5])
        except (sqlite3.Error, TypeError):
            self._is_usable = False
            return None

    def store(self, outputs: Mapping[str, KnownOutput]) -> None:
        """Store entries by cache id, in a new database if the present one cannot be used."""
        self.close()
        rows = [(cache_id, *known.version, known.sha, known.score) for cache_id, known in outputs.items()]
        # An inode may be larger than the integers of SQLite.
        with suppress(sqlite3.Error, OSError, OverflowError):
            try:
                _write(self._path, rows, self._busy_sec)
            except sqlite3.OperationalError:
                # It is locked, or nothing can be written there.
                raise
            except sqlite3.DatabaseError:
                self._path.unlink()
                _write(self._path, rows, self._busy_sec)
            self._is_usable = True

    def close(self) -> None:
        """Close the database. It is opened again when it is needed."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def __del__(self) -> None:
        self.close()

    @property
    def _connection(self) -> sqlite3.Connection:
        if self._opened is None:
            self._opened = sqlite3.connect(f"{self._path.as_uri()}?mode=ro", timeout=self._busy_sec, uri=True)
            _require_format(self._opened)
        return self._opened


def _write(path: Path, rows: Sequence[tuple[object, ...]], busy_sec: float) -> None:
    """Write rows in one transaction, into a new database if there is none. Raises ``sqlite3.DatabaseError``."""
    with closing(sqlite3.connect(path, timeout=busy_sec)) as connection:
        # After a power failure the database may be damaged, and is replaced.
        connection.execute("PRAGMA synchronous=OFF")
        if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            connection.execute(f"PRAGMA application_id={_APPLICATION}")
            connection.execute(f"PRAGMA user_version={_format()}")
            connection.execute(_CREATE)
        _require_format(connection)
        with connection:
            connection.executemany(_STORE, rows)


def _format() -> int:
    """Return a number that changes with the code, and so with the rules by which an output is accepted."""
    return int(code_sha()[:7], 16)


def _require_format(connection: sqlite3.Connection) -> None:
    """Raise ``sqlite3.DatabaseError`` for a database that another program or version made."""
    found = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")]
    if found != [_APPLICATION, _format()]:
        raise sqlite3.DatabaseError("another program or version made this database")
