"""``docs/tutorial.md``, done as it says: its files written, its commands run, and what it shows of their output found."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
from click.testing import CliRunner

from llmbatch_assets.cli import main
from llmbatch_assets_tests.memory_storage import kept_in_memory

PAGE = Path(__file__).parents[1] / "docs/tutorial.md"
# Blocks that are for the reader to decide on.
NOT_DONE = {"sh"}


class Block(NamedTuple):
    """A fenced block: its language, the file that it is, if it is one, and its content."""

    language: str
    file: str
    content: str


def blocks(page: str) -> list[Block]:
    fenced = re.findall(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    return [Block(*found) for found in fenced]


class Reader:
    """Somebody who follows the page in a folder."""

    def __init__(self, folder: Path, home: Path) -> None:
        self.folder = folder
        self._environment = {**os.environ, "DAGSTER_HOME": str(home), "COLUMNS": "200", "LLMBATCH_PARAMETERS": ""}

    def write(self, block: Block) -> None:
        (self.folder / block.file).write_text(block.content, encoding="utf-8")

    def run(self, commands: str) -> str:
        return "".join(self._run(shlex.split(line)) for line in commands.splitlines())

    def _run(self, command: list[str]) -> str:
        program, *arguments = command
        if program == "cd":
            self.folder /= arguments[0]
            return ""
        if program == "llmbatch":
            with contextlib.chdir(self.folder):
                ended = CliRunner().invoke(main, arguments, env=self._environment)
            assert ended.exit_code == 0, f"{command}: {ended.output}"
            return ended.output
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=True).stdout


def test_a_new_user_gets_from_nothing_to_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLMBATCH_PARAMETERS", raising=False)
    home, said, n_shown = tmp_path / "home", "", 0
    reader = Reader(tmp_path, home)
    with kept_in_memory(home):
        for block in blocks(PAGE.read_text(encoding="utf-8")):
            if block.language == "bash":
                said = reader.run(block.content)
            elif block.language == "text":
                n_shown += 1
                for line in block.content.splitlines():
                    assert line in said, f"{line!r} is not in:\n{said}"
            elif block.file:
                reader.write(block)
            else:
                assert block.language in NOT_DONE or block.language == "yaml"

    assert n_shown >= 5
    assert reader.folder == tmp_path / "tickets"
