"""The database of known outputs. What it means for the state of outputs is tested with the index."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from llmbatch_assets.adapters.files.file_version import FileVersion
from llmbatch_assets.adapters.store.known_outputs import KnownOutput, KnownOutputs

ONE = KnownOutput(FileVersion(10, 2**62, 2**62 + 1, 2**63 - 1), "a" * 40, 90.0)
OTHER = ONE._replace(sha="b" * 40, score=None)


def test_entries_come_back_as_they_were_stored(tmp_path: Path) -> None:
    known = KnownOutputs(tmp_path / "known")
    assert known.get("one") is None
    known.store({"one": ONE, "other": OTHER})
    known.store({"one": ONE._replace(score=7.0)})
    for again in (known, KnownOutputs(tmp_path / "known")):
        assert [again.get(name) for name in ("one", "other", "third")] == [ONE._replace(score=7.0), OTHER, None]


def test_what_another_process_stores_is_seen(tmp_path: Path) -> None:
    KnownOutputs(tmp_path / "known").store({"one": ONE})
    reader = KnownOutputs(tmp_path / "known")
    assert reader.get("one") == ONE
    KnownOutputs(tmp_path / "known").store({"one": OTHER})
    assert reader.get("one") == OTHER


def test_entries_of_a_locked_database_are_kept(tmp_path: Path) -> None:
    known = KnownOutputs(tmp_path / "known", busy_sec=0.01)
    known.store({"one": ONE})
    with closing(sqlite3.connect(tmp_path / "known")) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        known.store({"one": OTHER})
        assert known.get("one") is None
    assert KnownOutputs(tmp_path / "known").get("one") == ONE
