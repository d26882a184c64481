"""The same inputs give the same bytes: in any folder, locale, time zone and hash seed."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from llmbatch_assets_tests.memory_storage import kept_in_memory
from llmbatch_assets_tests.project import ROWS, Project, make_project

# All that two runs may differ in, as it appears in artifacts, exports and reports.
VOLATILE = (
    re.compile(rb'"(?:created_at_utc|generated_at_utc)": ?"[^"]+"'),
    # Manifests of publications describe files that have such times in them.
    re.compile(
        rb'"(?:fingerprint|sha256|preview)": ?"(?:[^"\\]|\\.)*"|"bytes": ?\d+|"charts": ?\[.*?\n  \]', re.DOTALL
    ),
    re.compile(rb'"(?:elapsed_sec|latency_sec|seconds_waited)": ?[\d.e-]+'),
    re.compile(rb"(?<=[,|\t])\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00$", re.MULTILINE),  # meta_created_at_utc
    re.compile(rb"(?:Last generation|with work to do)(?: \||</th><td>)[^|<]+"),
    re.compile(rb"<section [^>]+ data-varies>.*?</section>", re.DOTALL),
    re.compile(rb"^## (?:Latency|Run history)$.*?(?=^## )", re.DOTALL | re.MULTILINE),
)
ACCENTED = (("q6", "blåbär", "Où est la gare ? 駅はどこですか\u2028"), ("q7", "ﬁnal", "I\u0307stanbul'da ıssız mı?"))
SURROUNDINGS = (
    {"PYTHONHASHSEED": "1", "TZ": "Asia/Kathmandu", "LANG": "en_US.UTF-8", "LC_ALL": "en_US.UTF-8"},
    # No UTF-8 anywhere but in what is written.
    {"PYTHONHASHSEED": "2", "TZ": "America/St_Johns", "LANG": "C", "LC_ALL": "C"}
    | {"PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
)


def batch(root: Path) -> Project:
    project = make_project(
        root,
        grouping={"enabled": True, "column": "team"},
        prompts={"judge": {"enabled": True}},
        outputs={"formats": ["csv", "psv", "tsv", "jsonl"], "nested": "flatten"},
    )
    project.table([*ROWS, *ACCENTED])
    return project


def written(project: Project) -> dict[str, bytes]:
    """Everything that a run has written, without what may differ."""
    # What happened, call by call, is no function of what was asked.
    cache = "artifacts/cache/"
    history = ("usage.jsonl", "provenance/uses.jsonl", "run_history.jsonl", "report_charts.json")
    # Nor are the versions of files.
    versions = ("known_outputs.sqlite3", "run_state.json")
    left_out = ("dagster_home/", *(f"{cache}{name}" for name in (*history, *versions)))
    files = {name: content for name, content in project.tree().items() if not name.startswith(left_out)}
    for pattern in VOLATILE:
        files = {name: pattern.sub(b"volatile", content) for name, content in files.items()}
    return files


def assert_same(first: dict[str, bytes], second: dict[str, bytes]) -> None:
    assert first.keys() == second.keys()
    for name, content in first.items():
        assert second[name] == content, name


def test_runs_in_different_surroundings_write_the_same_bytes(tmp_path: Path) -> None:
    projects = [batch(tmp_path / name) for name in ("here", "in/another/plâce")]
    with ThreadPoolExecutor() as at_once:
        runs = at_once.map(lambda pair: pair[0].llmbatch("run", **pair[1]), zip(projects, SURROUNDINGS, strict=True))

    for ended in runs:
        assert ended.returncode == 0, ended.stderr
    first, second = map(written, projects)
    # The patterns have to hit, or they hide nothing.
    assert sum(content.count(b"volatile") for content in first.values()) > 20
    assert len([name for name in first if name.startswith("artifacts/cache/llm_outputs/")]) == 7
    assert {f"artifacts/outputs/output.{kind}" for kind in ("csv", "psv", "tsv", "jsonl")} < first.keys()

    assert_same(first, second)


def test_the_number_of_workers_and_the_order_of_answers_leave_no_trace(tmp_path: Path) -> None:
    projects = [make_project(tmp_path / str(count), llm={"max_workers": count}) for count in (1, 5)]
    for project in projects:
        with kept_in_memory(project.path("dagster_home")):
            assert project.llmbatch_here("run").returncode == 0

    first, second = map(written, projects)

    # Those that tell the number of workers, which was changed.
    telling = {"configs/parameters.yaml", "artifacts/cache/pipeline4_manifest.json"}
    telling |= {name for name in first if name.startswith("artifacts/reports/")}
    for name in telling:
        del first[name], second[name]
    assert_same(first, second)


@pytest.mark.parametrize("text", [b'"latency_sec": 0.0', b'"created_at_utc":"2026-02-16T00:00:00.000+00:00"'])
def test_what_is_volatile_is_recognised(text: bytes) -> None:
    assert any(pattern.fullmatch(text) for pattern in VOLATILE)
