"""The benchmarks compare like with like: the bare programs do the same work as ours."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from benchmarks import bare_export, bare_loops, exports, figures
from benchmarks.contenders import OURS
from benchmarks.fake_server import calls_made, serving
from benchmarks.medians import Result, ratios_to_others
from benchmarks.speed import AMONG_PEERS, ROW_BYTES, Fresh, cases, project_of, row


def test_the_bare_export_writes_the_same_bytes(tmp_path: Path) -> None:
    exports.make_project(tmp_path, 20)
    exports.configure(tmp_path, exports.CASES[exports.COMPARED])
    exports.deliver(tmp_path)
    bare_export.export(tmp_path)
    exports.require_same_files(tmp_path)
    assert {path.name for path in (tmp_path / "bare").iterdir()} == {"output.psv", "output.jsonl", "output.csv"}
    (tmp_path / "bare/output.csv").write_text("another")
    with pytest.raises(SystemExit, match=r"output\.csv"):
        exports.require_same_files(tmp_path)


@pytest.mark.parametrize("kind", bare_loops.LOOPS)
def test_a_bare_loop_makes_one_call_for_each_row_and_none_again(kind: str, tmp_path: Path) -> None:
    with serving(0) as port:
        project = project_of(tmp_path, port, Fresh(7, 0.0, 3))
        for _ in range(2):
            asyncio.run(bare_loops.main(kind, f"http://127.0.0.1:{port}/v1", project.root, 3))
            assert calls_made(port) == 7
    assert len(list(project.path("bare").iterdir())) == 7


@pytest.mark.parametrize("number", [0, 4_999, 99_999])
def test_rows_have_the_size_that_the_results_name(number: int) -> None:
    assert len(",".join(row(number)) + "\r\n") == ROW_BYTES


def test_ratios_divide_ours_by_the_others() -> None:
    told = {OURS: {"seconds": 3.0, "cpu_sec": 1.0}, "openai": {"seconds": 4.0, "cpu_sec": 2.0}}
    assert ratios_to_others(told) == {"seconds_of_openai": 0.75, "cpu_of_openai": 0.5}


def test_every_case_has_a_description() -> None:
    described = [figures.description(name) for name, _ in cases()]
    assert len(set(described)) == len(described)


def test_figures_have_a_row_for_each_case_and_contender() -> None:
    took = {"rounds": 5, "seconds": 3.0, "cpu_sec": 2.5, "peak_mb": 70, "generate_sec": 2.0, "again_sec": 1.0}
    speed: list[Result] = [
        {"case": "nothing-to-do-50", "seconds_of_import dagster": 1.9, OURS: took},
        {"case": AMONG_PEERS.name, OURS: took, "curator": took},
    ]
    exported = [{"case": name, "items": 20_000, "cpu_of_bare": 1.5, **took} for name in exports.CASES]
    told = figures.text(speed, exported).splitlines()
    assert "| `llmbatch run` | 3.0 (generate stage 2.0) | 2.5 | 70 MB | 1.0 s |" in told
    assert "| Curator | 3.0 | 2.5 | 70 MB | 1.0 s |" in told
    assert '| nothing to do, 50 items | 3.0 | 2.5 | 70 MB | 1.9 × `python -c "import dagster"` |' in told
    assert sum("1.5 × the CPU time of a bare loop" in line for line in told) == 1
