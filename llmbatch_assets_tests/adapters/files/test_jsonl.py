"""An append-only file: a broken line spoils no other, and a line that does not fit is an error."""

from __future__ import annotations

import errno
import logging
from pathlib import Path
from typing import NamedTuple

import pytest
from pydantic import BaseModel

from llmbatch_assets.adapters.files.jsonl import JsonlWriter, read_jsonl


class Model(BaseModel):
    n: int


class Pair(NamedTuple):
    n: int


def append(path: Path, *lines: bytes) -> None:
    with JsonlWriter(path) as file:
        for line in lines:
            file.append(line)


def test_a_file_is_created_by_its_first_line(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "a.jsonl"
    append(path)
    assert list(read_jsonl(path, Model)) == []
    assert list(tmp_path.iterdir()) == []
    append(path, b'{"n":1}', b'{"n":2}')
    assert path.read_bytes() == b'{"n":1}\n{"n":2}\n'
    assert [one.n for one in read_jsonl(path, Model)] == [1, 2]
    assert list(read_jsonl(path, Pair)) == [Pair(1), Pair(2)]


@pytest.mark.parametrize("kind", [Model, Pair])
def test_lines_that_cannot_be_read_are_skipped_with_their_number(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: type[Model | Pair]
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"n":1}\n\n{"m":1}\n{"n":2}\n{"n"')
    append(path, b'{"n":3}')
    with caplog.at_level(logging.WARNING):
        assert [one.n for one in read_jsonl(path, kind)] == [1, 2, 3]
    assert [record.args for record in caplog.records] == [(3, path), (5, path)]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a full disk as Linux has one")
def test_a_full_disk_is_an_error() -> None:
    with pytest.raises(OSError, match="No space left") as full:
        append(Path("/dev/full"), b"{}")
    assert full.value.errno == errno.ENOSPC
