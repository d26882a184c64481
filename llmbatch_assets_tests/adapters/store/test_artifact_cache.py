"""Parsed files are never those of before a change, and never more than their bound."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from llmbatch_assets.adapters.store.artifact_cache import ArtifactCache


def write(path: Path, content: str) -> str:
    """Write a file and wait until its timestamps are old enough to be trusted."""
    path.write_text(content)
    time.sleep(0.03)
    return str(path)


def content(cache: ArtifactCache, path: str) -> object:
    return cache.read(path).content


def test_a_file_is_parsed_once(tmp_path: Path) -> None:
    cache, path = ArtifactCache(), write(tmp_path / "one.json", '{"a": 1}')
    assert cache.read(path) is cache.read(path)
    cache.clear()
    assert content(cache, path) == {"a": 1}


@pytest.mark.parametrize("value", [2**80, -(2**80), [1, 2**64], 0.1, 1e300, 2**63, "\ud83d", "7" * 40, True])
@pytest.mark.parametrize("indent", [None, 2])
def test_values_come_back_as_they_were_written(tmp_path: Path, value: object, indent: int | None) -> None:
    path = write(tmp_path / "one.json", json.dumps({"a": value}, indent=indent, separators=(",", ":")))
    found = content(ArtifactCache(), path)
    assert found == {"a": value}
    assert repr(found) == repr({"a": value})


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000])
def test_a_file_without_an_object_has_no_content(tmp_path: Path, text: str) -> None:
    assert content(ArtifactCache(), write(tmp_path / "one.json", text)) is None


def test_a_file_that_another_process_replaced_edited_or_removed_is_read_again(tmp_path: Path) -> None:
    cache, path = ArtifactCache(), write(tmp_path / "one.json", '{"a": 1}')
    assert content(cache, path) == {"a": 1}
    Path(write(tmp_path / "other.json", '{"a": 2}')).replace(path)
    assert content(cache, path) == {"a": 2}
    before = Path(path).stat()
    write(Path(path), '{"a": 3}')
    # Size and time as before: as after an edit that hides itself.
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert content(cache, path) == {"a": 3}
    Path(path).unlink()
    with pytest.raises(FileNotFoundError):
        cache.read(path)


def test_a_file_that_could_change_within_the_same_timestamp_is_not_remembered(tmp_path: Path) -> None:
    cache, path = ArtifactCache(), write(tmp_path / "one.json", '{"a": 1}')
    Path(path).write_text('{"a": 2}')
    assert cache.read(path) is not cache.read(path)


def test_the_least_recently_used_files_are_dropped(tmp_path: Path) -> None:
    cache = ArtifactCache(max_bytes=20)
    one, two, three = (write(tmp_path / f"{name}.json", f'{{"a": {name}}}') for name in (1, 2, 3))
    first, second = cache.read(one), cache.read(two)
    assert cache.read(one) is first
    cache.read(three)
    assert cache.read(one) is first
    assert cache.read(two) is not second


def test_a_file_larger_than_the_bound_drops_no_other(tmp_path: Path) -> None:
    cache = ArtifactCache(max_bytes=20)
    small, large = write(tmp_path / "small.json", "{}"), write(tmp_path / "large.json", f'{{"a": "{"b" * 20}"}}')
    first = cache.read(small)
    assert cache.read(large) is not cache.read(large)
    assert cache.read(small) is first
