"""Interrupted writes leave the old file intact, and unreadable files are reported."""

import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmbatch_assets.adapters.files.atomic import (
    CHUNK_ITEMS,
    artifact_log,
    json_bytes,
    json_chunks,
    log_written,
    read_json,
    write_atomically,
    write_json,
    write_json_if_changed,
)
from llmbatch_assets.errors import ArtifactError, MissingArtifactError

DIES_HALF_WAY = """
import os, sys
from pathlib import Path
from llmbatch_assets.adapters.files.atomic import write_atomically

def content():
    yield b"new " * 100_000
    os._exit(9)

write_atomically(Path(sys.argv[1]), content())
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def breaks_after(*pieces: bytes, error: BaseException) -> Iterator[bytes]:
    yield from pieces
    raise error


# A write that does not come to its end.


@pytest.mark.parametrize("error", [ValueError("bad record"), KeyboardInterrupt(), OSError(28, "No space left")])
def test_content_that_raises_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "output.csv"
    path.write_bytes(b"old")
    with pytest.raises(type(error)) as raised:
        write_atomically(path, breaks_after(b"new" * 100_000, error=error))
    assert raised.value is error
    assert (path.read_bytes(), names(tmp_path)) == (b"old", ["output.csv"])


def test_content_that_raises_leaves_no_file_where_there_was_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="bad record"):
        write_atomically(tmp_path / "output.csv", breaks_after(b"new", error=ValueError("bad record")))
    assert names(tmp_path) == []


def test_a_process_that_dies_while_writing_leaves_the_old_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"n": 1})
    died = subprocess.run([sys.executable, "-c", DIES_HALF_WAY, str(path)], check=False)
    assert died.returncode == 9
    assert read_json(path) == {"n": 1}
    assert list(tmp_path.glob("*.json")) == [path]


def test_the_leftover_of_a_dead_process_hinders_no_later_write(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    subprocess.run([sys.executable, "-c", DIES_HALF_WAY, str(path)], check=False)
    assert names(tmp_path) != []
    write_json(path, {"n": 2})
    assert read_json(path) == {"n": 2}


def test_what_cannot_be_json_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"n": 1})
    with pytest.raises(TypeError):
        write_json(path, {"n": object()})
    assert (read_json(path), names(tmp_path)) == ({"n": 1}, ["a.json"])


def test_readers_never_see_a_part_while_writers_race(tmp_path: Path) -> None:
    path, done, seen = tmp_path / "a.json", threading.Event(), set[int]()
    values = [{"n": n, "filling": [n] * 5_000} for n in range(3)]
    write_json(path, values[0])

    def write(value: Any) -> None:
        for _ in range(15):
            write_json(path, value)

    def read() -> None:
        while not done.is_set():
            value = read_json(path)
            seen.add(value["n"] if value == values[value["n"]] else -1)

    reader = threading.Thread(target=read)
    writers = [threading.Thread(target=write, args=(value,)) for value in values]
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    reader.join()
    assert seen
    assert seen <= {0, 1, 2}
    assert names(tmp_path) == ["a.json"]


# A write that does.


def test_folders_are_made_and_the_size_is_returned(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c.txt"
    assert write_atomically(path, iter([b"one\n", b"", b"two\n"])) == 8
    assert path.read_bytes() == b"one\ntwo\n"


def test_nothing_is_a_content_too(tmp_path: Path) -> None:
    assert write_atomically(tmp_path / "empty", iter(())) == 0
    assert (tmp_path / "empty").read_bytes() == b""


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_files_have_the_permissions_that_the_user_gives_to_new_files(tmp_path: Path, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        write_atomically(tmp_path / "a", b"content")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == mode


@pytest.mark.parametrize(
    ("size", "rows", "shown"),
    [
        (87_376, 41, "Wrote output.csv (41 rows, 87 kB)"),
        (0, 1, "Wrote output.csv (1 row, 0 bytes)"),
        (999, None, "Wrote output.csv (999 bytes)"),
        (1_500, None, "Wrote output.csv (1.5 kB)"),
        (2_345_678_901_234, None, "Wrote output.csv (2346 GB)"),
    ],
)
def test_a_written_artifact_is_logged_with_rows_and_size(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, size: int, rows: int | None, shown: str
) -> None:
    # The command line shows these lines itself and switches this off.
    monkeypatch.setattr(artifact_log, "propagate", True)
    with caplog.at_level("INFO", artifact_log.name):
        log_written("output.csv", size, rows)
    assert set(caplog.messages) == {shown}


# JSON.

INT64 = st.integers(-(2**63), 2**64 - 1)
MEMBERS = st.recursive(
    st.none() | INT64 | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=6
)


def test_equal_values_are_equal_bytes() -> None:
    assert json_bytes({"b": 1, "a": ["é", None]}) == b'{\n  "a": [\n    "\xc3\xa9",\n    null\n  ],\n  "b": 1\n}\n'
    assert json_bytes({"a": ["é", None], "b": 1}) == json_bytes({"b": 1, "a": ["é", None]})


@pytest.mark.parametrize("value", [2**64, -(2**70), "a lone \ud800", {"k\udfff": 2**200}])
def test_what_the_fast_writer_refuses_is_kept_all_the_same(tmp_path: Path, value: Any) -> None:
    write_json(tmp_path / "a.json", {"value": value})
    assert read_json(tmp_path / "a.json") == {"value": value}


@settings(max_examples=40, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=10,
    )
)
def test_json_comes_back_as_it_went(value: Any) -> None:
    content = json_bytes(value)
    assert json.loads(content) == value
    assert content.endswith(b"\n")


@settings(max_examples=40, deadline=None)
@given(st.lists(MEMBERS) | st.dictionaries(st.text(), MEMBERS))
def test_pieces_of_json_are_the_bytes_of_the_whole(value: Any) -> None:
    assert b"".join(json_chunks(value)) == json_bytes(value)


def test_pieces_that_the_fast_writer_refuses_are_the_same_value() -> None:
    value = {"a": [{"n": 2**70}, "\x7f"], "b": "a lone \ud800", "c": ["\x7f"], "d": {"e": [-(2**64)]}}
    assert json.loads(b"".join(json_chunks(value))) == value


@pytest.mark.parametrize("size", [0, 1, CHUNK_ITEMS - 1, CHUNK_ITEMS, CHUNK_ITEMS + 1, 2 * CHUNK_ITEMS + 1])
def test_a_long_list_goes_to_disk_in_pieces_and_is_one_list(size: int) -> None:
    rows = [{"n": number, "text": "two\nlines"} for number in range(size)]
    table = {"rows": rows, "n_rows": size, "records": rows}
    assert b"".join(json_chunks(rows)) == json_bytes(rows)
    assert b"".join(json_chunks(table)) == json_bytes(table)
    assert len(list(json_chunks(rows))) <= size // CHUNK_ITEMS + 4


# A file that is as it should be.


def aged(path: Path) -> os.stat_result:
    """The file, last written long ago."""
    os.utime(path, ns=(10**18, 10**18))
    return path.stat()


VALUE = {"rows": [{"n": number} for number in range(CHUNK_ITEMS + 1)], "meta": "é", "few": [1]}


@pytest.mark.parametrize(
    "value", [VALUE, {}, [], {"a": 2**70}, [{"a": "a lone \ud800"}]], ids=lambda value: str(value)[:15]
)
def test_the_same_bytes_are_not_written_again(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "new" / "a.json"
    size = len(json_bytes(value))
    assert write_json_if_changed(path, value) == (size, True)
    before = aged(path)

    assert write_json_if_changed(path, value) == (size, False)

    after = path.stat()
    assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)
    assert names(path.parent) == ["a.json"]


@pytest.mark.parametrize(
    "there",
    [
        # Nothing, a part, more, and as much of something else.
        b"",
        json_bytes(VALUE)[:-1],
        json_bytes(VALUE)[:1000],
        json_bytes(VALUE) + b"\n",
        json_bytes(VALUE)[:-2] + b" \n",
        b"[" + json_bytes(VALUE)[1:],
        json_bytes(VALUE).replace(b'"n": 1000', b'"n": 2000'),
        # The same value in other bytes.
        json.dumps(VALUE).encode(),
        json_bytes(VALUE).replace(b"\n", b"\r\n"),
    ],
    ids=["empty", "no end", "cut", "longer", "other end", "other start", "other middle", "one line", "CRLF"],
)
def test_other_bytes_are_replaced(tmp_path: Path, there: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(there)
    aged(path)

    assert write_json_if_changed(path, VALUE) == (len(json_bytes(VALUE)), True)

    assert path.read_bytes() == json_bytes(VALUE)
    assert path.stat().st_mtime_ns != 10**18


# Files that cannot be read.


def test_a_missing_artifact_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(MissingArtifactError) as missing:
        read_json(tmp_path / "pipeline2_input.json", made_by="llmbatch run --select input_snapshot")
    assert str(tmp_path / "pipeline2_input.json") in str(missing.value)
    assert "llmbatch run --select input_snapshot" in str(missing.value)


@pytest.mark.parametrize(
    "content",
    [
        # Empty, cut, followed by more, not UTF-8, not JSON.
        b"",
        b'{"a": [1, 2',
        b'{"a": 1}{"b": 2}',
        b'{"a": "\xff\xfe"}',
        b"<html></html>",
        b"\x00" * 100,
        # Deeper than a parser goes.
        pytest.param(b"[" * 100_000, id="deep"),
    ],
)
def test_a_broken_artifact_is_named_with_what_to_do(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"cannot be read as JSON.*make it again with: llmbatch run") as broken:
        read_json(path)
    assert str(broken.value).startswith(str(path))


def test_a_folder_in_the_place_of_an_artifact_is_an_artifact_error(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is a folder"):
        read_json(tmp_path)
