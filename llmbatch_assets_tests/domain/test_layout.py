"""Paths of files: two batches never write the same one."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

import pytest

from llmbatch_assets.domain.configuration.parameters import DEFAULT_BATCH, Parameters
from llmbatch_assets.domain.layout import Layout
from llmbatch_assets_tests.domain.strategies import parameters

FORMATS = ("csv", "psv", "tsv", "jsonl", "xlsx", "parquet")


def paths(layout: Layout) -> dict[str, str]:
    """Every path of a layout, by name."""
    plain = {
        name: getattr(layout, name)
        for name, value in vars(Layout).items()
        if not name.startswith("_") and hasattr(value, "__get__") and not callable(value)
    }  # every property is a path
    exports = {f"export {name}": layout.export(name) for name in FORMATS}
    reports = {f"report {name}": layout.report(name) for name in ("md", "html")}
    manifests = {f"manifest {number}": layout.manifest(number) for number in (4, 5, 6)}
    return {name: str(path) for name, path in (plain | exports | reports | manifests).items() if path}


# Names that are those of the default batch's own folders are the ones to try.
@pytest.mark.parametrize("batch", ["french", "cache", "outputs", "reports", "llm_outputs", "artifacts"])
def test_two_batches_never_share_a_file(batch: str) -> None:
    folders = {"artifacts", "outputs", "cache", "archive", "llm_outputs", "llm_failures", "awaiting_judge", "forced"}
    folders |= {"provenance"}
    ours, theirs = paths(Layout(batch, Parameters())), paths(Layout(DEFAULT_BATCH, Parameters()))
    assert not set(ours.values()) & {path for name, path in theirs.items() if name not in folders}
    assert [name for name in ours if ours[name] == theirs[name]] == []


def test_the_default_batch_has_the_plain_paths() -> None:
    assert paths(Layout(DEFAULT_BATCH, Parameters())) == {
        "artifacts": "artifacts",
        "cache": "artifacts/cache",
        "schema_py": "schema/llm_schema.py",
        "schema_txt": "schema/llm_schema.txt",
        "archive": "archived",
        "snapshot": "artifacts/cache/pipeline2_input.json",
        "group_contexts": "artifacts/cache/pipeline3_group_contexts.json",
        "work_items": "artifacts/cache/pipeline3_work_items.json",
        "llm_outputs": "artifacts/cache/llm_outputs",
        "llm_failures": "artifacts/cache/llm_failures",
        "awaiting_judge": "artifacts/cache/awaiting_judge",
        "schema_failures": "artifacts/cache/schema_failures",
        "forced": "artifacts/cache/forced",
        "claims": "artifacts/cache/claims.lock",
        "known_outputs": "artifacts/cache/known_outputs.sqlite3",
        "run_state": "artifacts/cache/run_state.json",
        "ledger": "artifacts/cache/usage.jsonl",
        "run_history": "artifacts/cache/run_history.jsonl",
        "provenance": "artifacts/cache/provenance",
        "report_charts": "artifacts/cache/report_charts.json",
        "outputs": "artifacts/outputs",
        "not_exported": "artifacts/outputs/output_not_exported.csv",
        **{f"export {name}": f"artifacts/outputs/output.{name}" for name in FORMATS},
        "report md": "artifacts/reports/report.md",
        "report html": "artifacts/reports/report.html",
        "manifest 4": "artifacts/cache/pipeline4_manifest.json",
        "manifest 5": "artifacts/cache/pipeline5_manifest.json",
        "manifest 6": "artifacts/cache/pipeline6_manifest.json",
    }


@pytest.mark.parametrize(
    ("block", "name", "expected"),
    [
        ({"artifacts": {"dir": "made"}}, "snapshot", "made/cache/pipeline2_input.json"),
        ({"artifacts": {"dir": "made"}}, "export psv", "made/outputs/output.psv"),
        ({"artifacts": {"dir": "made"}}, "report html", "made/reports/report.html"),
        ({"artifacts": {"outputs_dir": "o"}}, "export csv", "o/output.csv"),
        ({"artifacts": {"reports_dir": "r"}}, "report md", "r/report.md"),
        ({"cache": {"dir": "c"}}, "llm_outputs", "c/llm_outputs"),
        ({"cache": {"dir": "c"}}, "export psv", "artifacts/b/outputs/output.psv"),
        ({"outputs": {"tsv_path": "x/y.txt"}}, "export tsv", "x/y.txt"),
        ({"outputs": {"not_exported_path": "x/z.csv"}}, "not_exported", "x/z.csv"),
        ({"report": {"html_path": "x/r.html"}}, "report html", "x/r.html"),
        ({"llm_schema": {"path": "s/mine.py"}}, "schema_py", "s/mine.py"),
        # The text follows its module unless it is sent elsewhere.
        ({"llm_schema": {"path": "s/mine.py"}}, "schema_txt", "s/mine.txt"),
        ({"llm_schema": {"path": "s/mine.py", "txt_path": "t.txt"}}, "schema_txt", "t.txt"),
        ({"llm_schema": {"archive_dir": "old"}}, "archive", "old"),
    ],
)
def test_a_configured_path_is_used(block: dict[str, Any], name: str, expected: str) -> None:
    assert paths(Layout("b", parameters(**block)))[name] == expected


def test_paths_are_relative_to_the_project() -> None:
    assert not any(PurePosixPath(path).is_absolute() for path in paths(Layout("b", Parameters())).values())


@pytest.mark.parametrize(
    ("batch", "run", "artifacts", "expected"),
    [
        (DEFAULT_BATCH, {}, {}, None),
        (DEFAULT_BATCH, {"log_file": "run.log"}, {}, "artifacts/logs/run.log"),
        ("french", {"log_file": "run.log"}, {}, "artifacts/french/logs/run.log"),
        (DEFAULT_BATCH, {"log_file": "run.log"}, {"logs_dir": "logs"}, "logs/run.log"),
        (DEFAULT_BATCH, {"log_file": "other/run.log"}, {"logs_dir": "logs"}, "other/run.log"),
    ],
)
def test_a_log_file_is_where_its_name_or_its_folder_says(
    batch: str, run: dict[str, Any], artifacts: dict[str, Any], expected: str | None
) -> None:
    found = Layout(batch, parameters(run=run, artifacts=artifacts)).log_file
    assert (None if found is None else str(found)) == expected
