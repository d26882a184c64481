"""The version of a file changes with the file."""

from __future__ import annotations

import os
import time
from pathlib import Path

from llmbatch_assets.adapters.files.file_version import file_version


def test_every_way_of_changing_a_file_shows_in_its_version(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("one")
    seen = [file_version(path)]

    def look() -> None:
        version = file_version(path)
        assert version not in seen
        seen.append(version)

    before = path.stat()
    time.sleep(0.03)
    path.write_text("two")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    look()
    time.sleep(0.03)
    (tmp_path / "other").write_text("two")
    (tmp_path / "other").replace(path)
    look()
    path.unlink()
    assert file_version(path) is None


def test_only_an_older_file_is_certain_to_show_its_next_change(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("one")
    version = file_version(path)
    assert version is not None
    assert not version.is_settled
    time.sleep(0.03)
    assert version.is_settled
