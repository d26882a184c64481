"""The call ledger and the run history: one line per record, and a broken line spoils no other."""

from __future__ import annotations

import json
import logging
import multiprocessing
from pathlib import Path

import pytest

from llmbatch_assets.adapters.store.run_records import SYNC_LINES, UsageLedger, append_run, read_ledger, read_runs
from llmbatch_assets.errors import RunPermanentError
from llmbatch_assets_tests.domain.run.test_ledger import record
from llmbatch_assets_tests.domain.run.test_run_history import record as run_record


def write(path: Path, *names: str) -> None:
    with UsageLedger(path) as ledger:
        for name in names:
            ledger.write(record(request_id=name))


def names(path: Path) -> list[str]:
    return [one.request_id for one in read_ledger(path)]


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "cache/usage.jsonl"
    odd = record(partition_key="blåbär-\ud800", work_id="駅", cost_usd=None, request_id="line\nbreak\u2028")
    with UsageLedger(path) as ledger:
        ledger.write(odd)
        # Nothing waits for the end: a killed process has written what it has written.
        assert list(read_ledger(path)) == [odd]
    assert path.read_bytes().count(b"\n") == 1


def test_a_line_is_canonical_json(tmp_path: Path) -> None:
    write(tmp_path / "usage.jsonl", "a")
    line = (tmp_path / "usage.jsonl").read_text()
    assert line == json.dumps(json.loads(line), sort_keys=True, separators=(",", ":")) + "\n"


def test_runs_are_appended(tmp_path: Path) -> None:
    path = tmp_path / "usage.jsonl"
    write(path, "a")
    write(path, *"b" * SYNC_LINES)
    write(path)
    assert names(path) == ["a", *"b" * SYNC_LINES]


def test_without_a_call_there_is_no_file(tmp_path: Path) -> None:
    write(tmp_path / "usage.jsonl")
    assert list(tmp_path.iterdir()) == []
    assert names(tmp_path / "usage.jsonl") == []


@pytest.mark.parametrize("torn", [b'{"v":1,"at_utc":"20', b"\xff\xfe", b"[" * 100_000, b'{"v":2}', b"{}"])
def test_a_torn_line_is_told_and_spoils_no_other(tmp_path: Path, caplog: pytest.LogCaptureFixture, torn: bytes) -> None:
    path = tmp_path / "usage.jsonl"
    write(path, "a")
    path.write_bytes(path.read_bytes() + torn)
    with caplog.at_level(logging.WARNING):
        assert names(path) == ["a"]
    assert f"line 2 of {path}" in caplog.text
    write(path, "b", "c")
    assert names(path) == ["a", "b", "c"]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="a folder as Linux has one")
def test_a_ledger_that_cannot_be_appended_to_is_reported_before_a_call_is_made() -> None:
    # A folder that cannot be set aside.
    path = Path("/proc/self/task")
    with pytest.raises(RunPermanentError, match=r"/proc/self/task cannot be written to") as caught, UsageLedger(path):
        pass
    assert caught.value.cause == "disk"


def _writer(path: Path, name: str) -> None:
    write(path, *[name * 200] * 50)


def test_processes_write_beside_each_other(tmp_path: Path) -> None:
    path = tmp_path / "usage.jsonl"
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=_writer, args=(path, name)) for name in "abc"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert sorted(name[0] for name in names(path)) == sorted("abc" * 50)


# The run history.


def test_a_cut_off_line_spoils_itself_alone_and_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "cache/run_history.jsonl"
    assert list(read_runs(path)) == []
    append_run(path, run_record("a", "2026-01-01T00:00:00Z"))
    with path.open("ab") as file:
        file.write(b'{"run_id": "cut')
    append_run(path, run_record("b", "2026-01-02T00:00:00Z"))
    assert [run.run_id for run in read_runs(path)] == ["a", "b"]
    assert "line 2" in caplog.text
