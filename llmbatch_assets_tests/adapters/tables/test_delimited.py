"""Text files of our own: escapes are undone in exports, and in no other table."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmbatch_assets.adapters.tables.formats import read_table
from llmbatch_assets.domain.configuration.input_blocks import Input


def rows_of(path: Path, text: str) -> list[list[str]]:
    path.write_text(text, encoding="utf-8", newline="")
    return [list(row) for row in read_table(path, Input()).rows]


@pytest.mark.parametrize(("suffix", "delimiter"), [("csv", ","), ("tsv", "\t")])
def test_escapes_are_undone_in_our_own_exports_only(tmp_path: Path, suffix: str, delimiter: str) -> None:
    path, cells = tmp_path / f"table.{suffix}", delimiter.join([r"a\x{1b}b", "'=1"])
    assert rows_of(path, f"text{delimiter}meta_cache_id\n{cells}\n") == [["a\x1bb", "=1"]]
    assert rows_of(path, f"text{delimiter}id\n{cells}\n") == [[r"a\x{1b}b", "'=1"]]


def test_a_control_in_a_psv_export_is_read_and_a_windows_path_elsewhere_is_not_taken_for_one(tmp_path: Path) -> None:
    path = tmp_path / "table.psv"
    assert rows_of(path, "text|meta_cache_id\na\\u001bb\\\\u001b|x\n") == [["a\x1bb\\u001b", "x"]]
    assert rows_of(path, "text|id\nC:\\u001b|x\n") == [["C:\\u001b", "x"]]
