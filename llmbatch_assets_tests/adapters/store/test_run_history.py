"""The history of runs survives a line that was cut off."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmbatch_assets.adapters.store.run_history import append_run, read_runs
from llmbatch_assets_tests.domain.test_run_history import record


def test_a_cut_off_line_spoils_itself_alone_and_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "cache/run_history.jsonl"
    assert list(read_runs(path)) == []
    append_run(path, record("a", "2026-01-01T00:00:00Z"))
    with path.open("ab") as file:
        file.write(b'{"run_id": "cut')
    append_run(path, record("b", "2026-01-02T00:00:00Z"))
    assert [run.run_id for run in read_runs(path)] == ["a", "b"]
    assert "line 2" in caplog.text
