"""Something in the place of a file that is no file is never waited for, lost, or taken for the file."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from llmbatch_assets.adapters.files.atomic import write_atomically
from llmbatch_assets.adapters.files.jsonl import JsonlWriter
from llmbatch_assets.adapters.files.places import (
    NotAFileError,
    clear_place,
    kind_in_place,
    make_room,
    open_regular,
    set_aside,
)


def make_folder(path: Path) -> None:
    path.mkdir()
    (path / "theirs").write_text("theirs")


def make_socket(path: Path) -> None:
    # The path of a socket must be short, so bind it by its name.
    folder = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(path.name)
    finally:
        os.chdir(folder)


KINDS: dict[str, Callable[[Path], None]] = {
    "a folder": make_folder,
    "a named pipe": lambda path: os.mkfifo(path),
    "a socket": make_socket,
    "a broken link": lambda path: path.symlink_to(path.parent / "nowhere"),
}
posix = pytest.mark.skipif(os.name != "posix", reason="Windows has no such files")


@posix
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_is_not_read_and_makes_room_for_a_file(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.json"
    KINDS[kind](path)
    assert kind_in_place(path) == kind
    with pytest.raises(FileNotFoundError if "link" in kind else NotAFileError):
        open_regular(path)

    write_atomically(path, b"ours")

    assert (path.read_bytes(), kind_in_place(path)) == (b"ours", "")
    assert kind_in_place(tmp_path / "a.json.broken") == kind
    assert f"a.json is {kind}, where a file belongs; it was set aside as a.json.broken" in caplog.text
    if kind == "a folder":
        assert (tmp_path / "a.json.broken/theirs").read_text() == "theirs"


@posix
@pytest.mark.parametrize("kind", KINDS)
def test_lines_are_appended_to_files_only(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "lines.jsonl"
    KINDS[kind](path)
    with JsonlWriter(path) as file:
        file.append(b"{}")
    assert path.read_bytes() == b"{}\n"
    assert kind_in_place(tmp_path / "lines.jsonl.broken") == kind


@posix
def test_a_device_is_neither_replaced_nor_renamed() -> None:
    with pytest.raises(NotAFileError, match="is a device"):
        make_room("/dev/null")
    with pytest.raises(NotAFileError, match="is a device"):
        open_regular("/dev/null")
    clear_place("/dev/null")
    assert kind_in_place("/dev/null") == "a device"


def test_a_link_to_itself_is_no_file(tmp_path: Path) -> None:
    path = tmp_path / "loop"
    path.symlink_to(path)
    with pytest.raises(NotAFileError):
        open_regular(path)


def test_nothing_that_was_set_aside_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for content in ("1", "2", "3"):
        path.write_text(content)
        set_aside(path)
    assert {one.name: one.read_text() for one in tmp_path.iterdir()} == {
        "a.json.broken": "1",
        "a.json.broken1": "2",
        "a.json.broken2": "3",
    }
