"""A kept table must never stand for another one: not for an edited file, nor for other settings."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmbatch_assets.adapters.store.kept_table import keep_snapshot, kept_snapshot, table_version
from llmbatch_assets.adapters.tables.formats import read_table
from llmbatch_assets.domain.configuration.input_blocks import Input
from llmbatch_assets.domain.items.table import Snapshot, take_snapshot


@pytest.fixture
def table(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "t.csv"
    path.write_text("a\n1\n")
    settings = Input(path=str(path))
    version = table_version(path, settings)
    keep_snapshot(version, take_snapshot(read_table(path, settings), str(path), settings))
    yield path
    kept_snapshot(path, settings, is_last_use=True)


def kept(path: Path, *, is_last_use: bool = False, **settings: object) -> Snapshot | None:
    return kept_snapshot(path, Input.model_validate({"path": str(path), **settings}), is_last_use=is_last_use)


def test_a_table_is_kept_until_its_last_use(table: Path) -> None:
    for last in (False, True):
        found = kept(table, is_last_use=last)
        assert found is not None
        assert [row["a"] for row in found.rows] == ["1"]
    assert kept(table) is None


def test_an_edited_table_is_read_again(table: Path) -> None:
    # Of the same size.
    table.write_text("a\n2\n")
    os.utime(table, ns=(1, 1))
    assert kept(table) is None


def test_a_table_that_is_gone_or_replaced_is_read_again(table: Path) -> None:
    status = table.stat()
    other = table.with_name("other.csv")
    other.write_text("a\n2\n")
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(table)
    assert kept(table) is None
    table.unlink()
    assert kept(table) is None


def test_other_settings_read_the_table_again(table: Path) -> None:
    assert kept(table, collapse_whitespace=False) is None
