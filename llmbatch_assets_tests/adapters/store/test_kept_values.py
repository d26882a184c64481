"""A kept value must never stand for another file, nor for the file before a change."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from llmbatch_assets.adapters.files.file_version import file_version
from llmbatch_assets.adapters.store.kept_values import KeptValues


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "table.csv"
    path.write_text("one")
    time.sleep(0.03)
    return path


def keep(path: Path, kind: str = "", most: int = 4) -> KeptValues:
    kept = KeptValues(most)
    kept.keep(path, kind, file_version(path), "value")
    return kept


def test_a_value_is_kept_until_it_is_dropped(path: Path) -> None:
    kept = keep(path)
    assert kept.get(path, "") == kept.get(str(path), "") == "value"
    kept.drop(path, "")
    assert kept.get(path, "") is None


def test_an_edited_replaced_or_removed_file_is_read_again(path: Path) -> None:
    kept, status = keep(path), path.stat()
    path.write_text("two")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert kept.get(path, "") is None
    time.sleep(0.03)
    kept = keep(path)
    (path.parent / "other").write_text("two")
    (path.parent / "other").replace(path)
    assert kept.get(path, "") is None
    path.unlink()
    assert kept.get(path, "") is None


def test_other_settings_read_the_file_again(path: Path) -> None:
    assert keep(path, "settings").get(path, "other settings") is None


def test_a_file_that_could_change_within_the_same_timestamp_is_not_kept(path: Path) -> None:
    path.write_text("two")
    assert keep(path).get(path, "") is None


def test_only_the_last_values_are_kept(path: Path) -> None:
    kept = keep(path, most=2)
    for number in range(2):
        kept.keep(path, str(number), file_version(path), number)
    assert [kept.get(path, kind) for kind in ("", "0", "1")] == [None, 0, 1]
