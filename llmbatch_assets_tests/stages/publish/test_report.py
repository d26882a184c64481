"""The report as files of a project: what it points to, its parts, its history, and what it refuses."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from llmbatch_assets.assets.publish import report_metadata
from llmbatch_assets.stages.artifacts import batch_outputs
from llmbatch_assets.stages.publish.export import write_exports
from llmbatch_assets.stages.publish.report import ReportResult, charts_as_markdown, write_report
from llmbatch_assets_tests.chat_server import ChatServer, says
from llmbatch_assets_tests.memory_storage import kept_in_memory
from llmbatch_assets_tests.project import SCHEMA, Project, make_project, settings
from llmbatch_assets_tests.stages.publish.test_export import batch_of, generate

REPORT = "artifacts/reports/report.html"


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", "secret-key")


def deliver(project: Project, **limits: Any) -> ReportResult:
    batch = batch_of(project)
    outputs, snapshot = batch_outputs(batch), batch.read_snapshot()
    export = write_exports(batch, outputs, snapshot)
    return write_report(batch, outputs, export, snapshot, **limits)


def test_every_link_of_the_page_leads_to_a_file(tmp_path: Path) -> None:
    root = tmp_path / "with blank & ümlaut"
    with kept_in_memory(root / "dagster_home"):
        project = make_project(root)
        assert project.llmbatch_here("run").returncode == 0
    page = project.path(REPORT)
    links = set(re.findall(r'href="(\.\.[^"]+)"', page.read_text(encoding="utf-8")))
    assert len(links) > 10
    assert [link for link in links if not (page.parent / unquote(link)).exists()] == []


def test_outputs_are_shown_in_the_order_of_the_schema(tmp_path: Path) -> None:
    project = make_project(tmp_path / "village")
    answer, certain = re.findall(r"    (?:answer|certain): .*\n", SCHEMA)
    project.write("schema/llm_schema.py", SCHEMA.replace(answer + certain, certain + answer))
    generate(project)
    sample = deliver(project).page.samples[0]
    assert list(json.loads(sample.output)) == ["certain", "answer"]
    assert '"certain: ' in project.path(REPORT).read_text(encoding="utf-8")


def test_a_large_report_goes_on_in_parts_and_a_smaller_one_removes_them(tmp_path: Path) -> None:
    project = make_project(tmp_path / "village")
    generate(project)
    stranger = project.write("artifacts/reports/report.part.html", "mine")
    large = deliver(project, page_bytes=600).manifest.files
    parts = sorted(path.name for path in project.path("artifacts/reports").glob("report.part?.html"))
    assert len(parts) > 1
    assert [Path(path).name for name, path in large.items() if name.startswith("html part")] == parts
    small = deliver(project).manifest.files
    assert set(small) == {"md", "html"}
    assert not [name for name in parts if project.path(f"artifacts/reports/{name}").exists()]
    assert stranger.exists()


def test_a_run_that_did_something_is_in_the_history_and_one_that_did_not_is_not(tmp_path: Path) -> None:
    project = make_project(tmp_path / "village")
    generate(project, limit=2)
    generate(project)
    generate(project)
    runs = deliver(project).page.about.runs
    assert [(run.record.n_to_run, run.record.n_success) for run in runs if run.record] == [(2, 2), (3, 5)]
    assert [run.total.requests for run in runs] == [2, 3]


def test_a_ping_is_no_run_but_its_cost_counts(project_with: Callable[..., Project]) -> None:
    project = project_with(prompts={"judge": {"enabled": True}}, judge={"model_name": "judging-model"})
    assert project.llmbatch_here("check", "--ping").returncode == 0
    generate(project)
    about = deliver(project).page.about
    assert [run.record.n_success for run in about.runs if run.record] == [5]
    assert len(about.runs) == 1
    assert about.calls.startswith("12 calls, ")


def test_a_rejection_on_the_way_is_counted_though_the_item_was_accepted(
    project_with: Callable[..., Project], server: ChatServer
) -> None:
    project = project_with(prompts={"judge": {"enabled": True}})
    rejection = {"reasons": ["too short"], "score": 10, "verdict": "FAIL"}
    server.script("the tower", says(rejection), purpose="judge")
    generate(project)
    page = deliver(project).page
    assert page.counts["accepted"] == 5
    assert [(told.text, told.times) for told in page.rejections.counts] == [("too short", 1)]
    assert [(cause.cause, cause.n_items, cause.n_attempts) for cause in page.causes] == [("judge_rejected", 0, 1)]


def test_chosen_columns_are_counted_and_unknown_ones_refused_before_the_run(
    project_with: Callable[..., Project], server: ChatServer
) -> None:
    project = project_with(report={"count_by": ["tean", "certain"]})
    ended = project.llmbatch_here("run")
    assert ended.returncode == 2
    assert "report.count_by: neither the table nor the output has 'tean'; did you mean team?" in ended.stderr
    assert server.count() == 0
    project.parameters(**settings(server.base_url, report={"count_by": ["team", "certain"]}))
    assert project.llmbatch_here("run").returncode == 0
    told = project.path("artifacts/reports/report.md").read_text(encoding="utf-8")
    assert "### team" in told
    assert "| blue | 3 | 0 | 0 | 3 |" in told
    assert "### certain (accepted outputs)" in told


def test_dagster_is_shown_numbers_a_summary_charts_and_files(tmp_path: Path) -> None:
    project = make_project(tmp_path / "village")
    generate(project)
    manifest = deliver(project).manifest
    shown = report_metadata(manifest, charts_as_markdown(batch_of(project), manifest))
    assert (shown["accepted"], shown["share_accepted"], shown["cost_usd"]) == (5, 1.0, 0.0)
    assert "5 of 5 items accepted" in shown["summary"].value
    assert "](data:image/svg+xml;base64," in shown["charts"].value
    assert shown["html_file"].value == REPORT
