"""Dagster's SQLite files are opened and made without its migrations, and are the files that Dagster makes."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import dagster as dg
import pytest
from alembic.script import ScriptDirectory

from llmbatch_assets.resources.sqlite_files import EmptyFile, is_initialized
from llmbatch_assets_tests.event_history import DEFAULT, MATERIALIZATION, OURS, event, write_settings

Opened = Callable[[], dg.DagsterInstance]
MARK = "CREATE TABLE alembic_version (version_num TEXT)"
REVISION = "INSERT INTO alembic_version VALUES ('29b539ebc72a')"


@pytest.fixture
def migrations(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders of migrations that were loaded, one entry per time."""
    loaded: list[str] = []
    original = ScriptDirectory._load_revisions

    def counting(self: ScriptDirectory) -> object:
        loaded.append(str(self.dir))
        return original(self)

    monkeypatch.setattr(ScriptDirectory, "_load_revisions", counting)
    return loaded


def home_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, storage: dict[str, object] = OURS) -> Path:
    home = tmp_path / "home"
    write_settings(home, storage)
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    return home


def store_in_new_run(home: Path, run_id: str) -> None:
    with dg.DagsterInstance.from_config(str(home)) as instance:
        instance.event_log_storage.store_event(event(MATERIALIZATION, run_id, 1, "one"))
        assert len(instance.all_logs(run_id)) == 1
        assert instance.get_runs() == []
        assert instance.all_instigator_state() == []


def contents(path: Path) -> set[tuple[str, str]]:
    """The tables, indices and revision of a database."""
    with closing(sqlite3.connect(path)) as connection:
        made = {(name, sql) for name, sql in connection.execute("SELECT name, sql FROM sqlite_master")}
        (revision,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
    return made | {("revision", revision), ("journal", mode)}


def test_only_the_first_command_loads_migrations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, migrations: list[str]
) -> None:
    home = home_with(tmp_path, monkeypatch)
    store_in_new_run(home, "first")
    assert migrations
    migrations.clear()
    for run_id in ("second", "third"):
        store_in_new_run(home, run_id)
    assert migrations == []


def test_the_file_of_a_run_is_the_one_that_dagster_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = home_with(tmp_path, monkeypatch)
    for run_id in ("first", "second"):
        store_in_new_run(home, run_id)
    write_settings(home, DEFAULT)
    # Dagster's own storage goes on in the same files.
    store_in_new_run(home, "third")
    first, second, third = (contents(home / f"history/runs/{name}.db") for name in ("first", "second", "third"))
    assert first == second == third
    with dg.DagsterInstance.from_config(str(home)) as instance:
        assert [len(instance.all_logs(run_id)) for run_id in ("first", "second", "third")] == [1, 1, 1]
    assert [path.name for path in (home / "history/runs").iterdir() if path.name.endswith(".tmp")] == []


def test_another_version_of_dagster_gets_an_empty_file_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, migrations: list[str]
) -> None:
    home = home_with(tmp_path, monkeypatch)
    store_in_new_run(home, "first")
    migrations.clear()
    monkeypatch.setattr(dg, "__version__", "99.0")
    store_in_new_run(home, "second")
    assert migrations
    assert (home / "history/runs/empty-99.0.sqlite").is_file()


def test_without_hard_links_dagster_makes_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("no hard links here")

    home = home_with(tmp_path, monkeypatch)
    monkeypatch.setattr(os, "link", refuse)
    store_in_new_run(home, "first")
    assert is_initialized(home / "history/runs/first.db")


def test_a_file_that_another_process_has_made_is_kept(tmp_path: Path) -> None:
    (tmp_path / f"empty-{dg.__version__}.sqlite").write_bytes(b"empty")
    (tmp_path / "run.db").write_bytes(b"theirs")
    EmptyFile(tmp_path, lambda engine: None).copy_to(tmp_path / "run.db")
    assert (tmp_path / "run.db").read_bytes() == b"theirs"
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("statements", "expected"),
    [
        ([], False),
        ([MARK], False),
        ([MARK, REVISION], False),
        ([MARK, REVISION, "CREATE TABLE runs (id TEXT)"], True),
        ([MARK, REVISION, REVISION, "CREATE TABLE runs (id TEXT)"], False),
    ],
    ids=["no tables", "no revision", "a table is missing", "initialized", "two revisions"],
)
def test_a_file_is_initialized_if_dagster_would_leave_it_as_it_is(
    tmp_path: Path, statements: list[str], expected: bool
) -> None:
    path = tmp_path / "runs.db"
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()
    assert is_initialized(path, ["runs"]) == expected


def test_a_file_that_is_missing_or_no_database_is_not_initialized(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("This is no database. " * 100)
    assert not is_initialized(tmp_path / "text.db")
    assert not is_initialized(tmp_path / "missing.db")
    assert not (tmp_path / "missing.db").exists()
