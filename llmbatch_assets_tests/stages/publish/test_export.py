"""Every row is in the export or counted as not, and export, report and files say the same of it."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmbatch_assets.adapters.files.atomic import json_bytes, write_json
from llmbatch_assets.adapters.providers.registry import open_client
from llmbatch_assets.adapters.tables.formats import EXPORTERS
from llmbatch_assets.domain.items.grouping import plan_work
from llmbatch_assets.domain.items.work import work_items_of
from llmbatch_assets.domain.plan.selection import Selection
from llmbatch_assets.errors import MissingArtifactError
from llmbatch_assets.stages.artifacts import artifact_path, batch_outputs
from llmbatch_assets.stages.generate.choice import BatchItems
from llmbatch_assets.stages.generate.progress import LogReporter
from llmbatch_assets.stages.generate.run import GenerateRun
from llmbatch_assets.stages.project import Batch, BatchFile
from llmbatch_assets.stages.publish.export import write_exports
from llmbatch_assets.stages.publish.export_check import ExportProblems, export_problems
from llmbatch_assets.stages.publish.report import write_report
from llmbatch_assets_tests.chat_server import ChatServer, refuses, says
from llmbatch_assets_tests.project import COLUMNS, ROWS, Project, make_project, settings

EXPORTS = ("output.csv", "output.jsonl", "output.psv")
HOSTILE = "<script>alert('x')</script> | `y` ![z](http://evil.example)\nnext"


@pytest.fixture
def offline(tmp_path: Path) -> Project:
    return make_project(tmp_path / "village")


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", "secret-key")


def batch_of(project: Project) -> Batch:
    return BatchFile(project.config).load()


def generate(project: Project, **selection: Any) -> None:
    batch = batch_of(project)
    plan = plan_work(batch.read_snapshot(), batch.parameters)
    items = work_items_of(plan, batch.parameters, "pipeline3_group_contexts.json")
    project.write(str(batch.layout.work_items), json_bytes(items).decode())
    generation = GenerateRun(
        BatchItems(batch, plan.items), plan.contexts, open_client, LogReporter(lambda line: None, 0)
    )
    generation.generate(generation.choose(Selection(**selection), force=False), lambda result: None)


def deliver(project: Project) -> tuple[dict[str, Any], dict[str, Any]]:
    """The manifests of export and report."""
    batch = batch_of(project)
    outputs = batch_outputs(batch)
    snapshot = batch.read_snapshot()
    export = write_exports(batch, outputs, snapshot)
    write_json(artifact_path(batch, "export"), export)
    report = write_report(batch, outputs, export, snapshot).manifest
    return export.model_dump(), report.model_dump()


def counts(**others: int) -> dict[str, int]:
    """The counts of an export, those not named being 0."""
    names = ("n_records", "n_items", "n_exported", "n_failed", "n_missing", "n_outdated", "n_not_exported")
    of_groups = ("n_rows_beyond_cap", "n_rows_without_element", "n_elements_without_row")
    return dict.fromkeys((*names, *of_groups), 0) | others


def read_csv(project: Project) -> list[dict[str, str]]:
    with project.path("artifacts/outputs/output.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_jsonl(project: Project) -> list[dict[str, Any]]:
    lines = project.path("artifacts/outputs/output.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


# The export.


def test_every_row_comes_back_with_its_output_in_the_order_of_the_table(offline: Project) -> None:
    generate(offline)
    export, _ = deliver(offline)
    rows, records = read_csv(offline), read_jsonl(offline)
    assert [tuple(row[column] for column in COLUMNS) for row in rows] == list(ROWS)
    assert [record["meta"]["row_index"] for record in records] == [0, 1, 2, 3, 4]
    assert [row["answer"] for row in rows] == [record["parsed"]["answer"] for record in records]
    assert export["counts"] == counts(n_records=5, n_items=5, n_exported=5)


def test_columns_have_one_order_and_the_manifest_tells_where_each_is_from(offline: Project) -> None:
    generate(offline)
    export, _ = deliver(offline)
    names = [column["name"] for column in export["columns"]]
    assert list(read_csv(offline)[0]) == names
    assert names[:3] == list(COLUMNS)
    assert names[7:9] == ["answer", "certain"]
    assert len(set(names)) == len(names)
    assert export["columns"][7] == {"name": "answer", "from": "parsed.answer", "type": "string"}


def test_an_output_field_named_like_a_column_overwrites_nothing(offline: Project) -> None:
    offline.table([("q1", "red", "why?", "from the table")], (*COLUMNS, "answer"))
    generate(offline)
    deliver(offline)
    [row] = read_csv(offline)
    assert row["answer"] == "from the table"
    assert row["parsed_answer"] == read_jsonl(offline)[0]["parsed"]["answer"]


def test_what_has_no_output_is_left_out_and_counted(project: Project, server: ChatServer) -> None:
    server.script("the tower", refuses())
    server.script("the bridge", says("no"), repeat_last=True)
    generate(project, limit=4)
    export, report = deliver(project)
    assert export["counts"] == counts(n_records=2, n_items=5, n_exported=2, n_failed=2, n_missing=1, n_not_exported=3)
    assert report["counts"] == {"items": 5, "accepted": 2, "failed": 2, "missing": 1}
    assert [row["id"] for row in read_csv(project)] == ["q3", "q4"]


def test_before_the_first_output_there_are_headers_alone(project: Project, server: ChatServer) -> None:
    generate(project, select="failed")
    export, _ = deliver(project)
    assert server.count() == 0
    assert export["counts"]["n_records"] == 0
    assert read_csv(project) == []
    assert read_jsonl(project) == []


def test_a_failure_that_cannot_be_read_is_counted_the_same_by_all(project: Project, server: ChatServer) -> None:
    server.script("the tower", refuses())
    generate(project)
    [name] = project.failures()
    project.write(f"artifacts/cache/llm_failures/{name}", "{")
    export, report = deliver(project)
    assert export["counts"]["n_failed"] == report["counts"]["failed"] == 1
    assert export["counts"]["n_missing"] == report["counts"]["missing"] == 0


def test_identical_rows_that_share_a_call_have_a_record_each(offline: Project) -> None:
    offline.table([ROWS[0], ROWS[1], ROWS[0]])
    offline.parameters(**settings(work_items={"duplicates": "share"}))
    generate(offline)
    export, _ = deliver(offline)
    assert len(offline.outputs()) == 2
    assert export["counts"]["n_records"] == 3
    assert sorted(row["meta_row_index"] for row in read_csv(offline)) == ["0", "1", "2"]
    assert len({row["answer"] for row in read_csv(offline) if row["id"] == "q1"}) == 1


def test_the_output_of_a_group_is_one_record_with_all_its_rows(offline: Project) -> None:
    offline.parameters(**settings(grouping={"enabled": True, "column": "team", "mode": "group_output"}))
    generate(offline)
    export, _ = deliver(offline)
    records = read_jsonl(offline)
    assert [record["input"] for record in records] == [{"team": "red"}, {"team": "blue"}]
    assert [record["input_group_row_indices"] for record in records] == [[0, 1], [2, 3, 4]]
    assert [row["id"] for row in records[1]["input_group_rows"]] == ["q3", "q4", "q5"]
    assert export["columns"][0] == {"name": "team", "from": "input.team", "type": "string"}
    assert export["counts"]["n_records"] == 2


@pytest.mark.parametrize("name", EXPORTS)
def test_an_export_is_the_same_bytes_each_time(offline: Project, name: str) -> None:
    generate(offline)
    deliver(offline)
    first = offline.path(f"artifacts/outputs/{name}").read_bytes()
    deliver(offline)
    assert offline.path(f"artifacts/outputs/{name}").read_bytes() == first


def test_only_the_configured_files_are_written_and_where_they_are_wanted(offline: Project) -> None:
    outputs = {"formats": ["tsv", "csv"], "csv_path": "elsewhere/answers.csv"}
    offline.parameters(**settings(outputs=outputs))
    generate(offline)
    export, _ = deliver(offline)
    assert export["files"] == {"tsv": "artifacts/outputs/output.tsv", "csv": "elsewhere/answers.csv"}
    assert offline.path("elsewhere/answers.csv").is_file()
    assert sorted(path.name for path in offline.path("artifacts/outputs").iterdir()) == [
        "output.tsv",
        "output_not_exported.csv",
    ]


def test_an_integer_beyond_64_bits_does_not_stop_the_export(project: Project, server: ChatServer) -> None:
    schema = project.path("schema/llm_schema.py")
    schema.write_text(schema.read_text().replace("certain: bool", "certain: int"))
    server.script("the tower", says('{"answer": "a", "certain": 123456789012345678901234567890}'))
    generate(project)
    deliver(project)
    assert read_jsonl(project)[0]["parsed"]["certain"] == 123456789012345678901234567890


# What is in no export.


def left_out(project: Project) -> list[dict[str, str]]:
    with project.path("artifacts/outputs/output_not_exported.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_row_without_an_output_is_listed_with_its_cause_and_file(project: Project, server: ChatServer) -> None:
    server.script("the tower", refuses())
    generate(project, limit=4)
    export, _ = deliver(project)
    tower, road = left_out(project)
    assert (tower["state"], tower["row_index"], tower["cause"]) == ("failed", "0", "refused")
    assert project.path(tower["failure_file"]).is_file()
    assert (road["state"], road["row_index"], road["message"]) == ("missing", "4", "not attempted; run again")
    assert [one["partition_key"] for one in (tower, road)] == [project.partition_keys()[row] for row in (0, 4)]
    assert export["not_exported_file"] == "artifacts/outputs/output_not_exported.csv"
    generate(project, retry_failed=True)
    deliver(project)
    assert left_out(project) == []


def test_an_output_of_earlier_settings_is_listed_and_not_exported(project: Project, server: ChatServer) -> None:
    generate(project, limit=3)
    before = project.outputs()
    server.script("the tower", refuses())
    project.parameters(**settings(server.base_url, llm={"temperature": 0.1}))
    generate(project, limit=2)
    export, _ = deliver(project)
    failed, outdated, *missing = left_out(project)
    assert [one["state"] for one in (failed, outdated, *missing)] == ["failed", "outdated", "missing", "missing"]
    for one in (failed, outdated):
        kept = project.json(one["older_output_file"])
        assert kept["meta"]["work_id"] == one["work_id"]
        assert kept["meta"]["cache_id"] in before
    assert "another temperature" in outdated["message"]
    told = counts(n_records=1, n_items=5, n_exported=1, n_failed=1, n_missing=2, n_outdated=1, n_not_exported=4)
    assert export["counts"] == told


def test_each_artifact_is_read_once_for_all_formats(offline: Project, opened: list[str]) -> None:
    offline.parameters(**settings(outputs={"formats": list(EXPORTERS)}))
    generate(offline)
    batch = batch_of(offline)
    snapshot = batch.read_snapshot()
    opened.clear()
    write_exports(batch, batch_outputs(batch), snapshot)
    assert sorted(Path(name).stem for name in opened) == sorted(offline.outputs())


@pytest.mark.parametrize("stopped", [True, False], ids=["nothing accepted", "made-up answers"])
def test_an_export_with_records_is_kept_from_one_without(project: Project, server: ChatServer, stopped: bool) -> None:
    generate(project)
    deliver(project)
    good = {name: project.path(f"artifacts/outputs/{name}").read_bytes() for name in EXPORTS}
    if stopped:
        project.parameters(**settings(server.base_url, llm={"temperature": 0.1}))
    else:
        project.parameters(**settings())
    for _ in range(2):
        if not stopped:
            generate(project)
        deliver(project)
        kept = {
            name: project.path(f"artifacts/outputs/{name.replace('.', '_earlier.')}").read_bytes() for name in EXPORTS
        }
        assert kept == good
    rows = read_csv(project)
    assert [row["meta_provider"] for row in rows] == ([] if stopped else ["offline"] * 5)


# Outputs of groups.

LISTS = """from pydantic import BaseModel, ConfigDict


class Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")
    row: str
    text: str


class LLMOutput(BaseModel):
    model_config = ConfigDict(extra="forbid")
    summary: str
    answers: list[Answer]
"""
GROUPED = {"enabled": True, "column": "team", "mode": "group_output", "max_rows_per_group": 2}


def test_a_list_about_the_rows_of_a_group_is_exported_row_by_row(project: Project, server: ChatServer) -> None:
    project.write("schema/llm_schema.py", LISTS)
    explode = {"list": "answers", "item_key": "row", "input_column": "id"}
    outputs = {"formats": ["csv", "psv", "jsonl"], "explode": explode}
    project.parameters(**settings(server.base_url, grouping=GROUPED, outputs=outputs))
    both = [{"row": "q2", "text": "=x()"}, {"row": "q1", "text": "one"}]
    server.script("the tower", says({"summary": "s", "answers": both}))
    server.script("the harbour", says({"summary": "t", "answers": [{"row": "q9", "text": "nobody"}]}))
    generate(project)
    write_json(artifact_path(batch_of(project), "input_snapshot"), batch_of(project).read_snapshot())
    export, _ = deliver(project)
    # A group without a record is accounted for by its lines in the other file.
    assert export_problems(batch_of(project)) == ExportProblems()
    assert [(row["id"], row["text"], row["summary"]) for row in read_csv(project)] == [
        ("q2", "'=x()", "s"),
        ("q1", "one", "s"),
    ]
    assert [record["element"] for record in read_jsonl(project)] == both
    assert [(one["state"], one["row_index"]) for one in left_out(project)] == [
        ("element_without_row", ""),
        ("row_without_element", "2"),
        ("row_without_element", "3"),
        ("row_beyond_cap", "4"),
    ]
    assert json.loads(left_out(project)[0]["element_json"]) == {"row": "q9", "text": "nobody"}
    told = {"n_rows_beyond_cap": 1, "n_rows_without_element": 2, "n_elements_without_row": 1}
    assert export["counts"] == counts(n_records=2, n_items=2, n_exported=2, n_not_exported=4, **told)
    assert export["changes"] == {"csv": {"formulas_escaped": 1}}


# The report.


def test_the_report_counts_and_shows_and_points(project: Project, server: ChatServer) -> None:
    server.script("the tower", refuses())
    generate(project)
    _, report = deliver(project)
    assert report["files"] == {"md": "artifacts/reports/report.md", "html": "artifacts/reports/report.html"}
    [failure] = project.failures()
    for path in report["files"].values():
        text = project.path(path).read_text(encoding="utf-8").replace("\\", "")
        for told in ("4 of 5 items accepted", "refused: 1", failure, "test-model", "pipeline4_manifest.json"):
            assert told in text
        assert "secret-key" not in text
        assert str(project.root) not in text


def test_hostile_cells_and_answers_are_shown_and_inert(project: Project, server: ChatServer) -> None:
    project.table([("q1", HOSTILE, HOSTILE)])
    project.parameters(**settings(server.base_url, grouping={"enabled": True, "column": "team"}))
    server.script("q1", says({"answer": HOSTILE[:80], "certain": True}))
    generate(project)
    _, report = deliver(project)
    page = project.path(report["files"]["html"]).read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page
    markdown = project.path(report["files"]["md"]).read_text(encoding="utf-8")
    outside = [part for place, part in enumerate(markdown.split("\n```")) if place % 2 == 0]
    assert not any("<script" in part or "![z]" in part for part in outside)


@pytest.mark.parametrize(("zone", "hour"), [("UTC", 0), ("Asia/Tokyo", 9), ("America/New_York", -5)])
def test_times_are_told_in_the_zone_of_the_batch(offline: Project, zone: str, hour: int) -> None:
    offline.parameters(**settings(run={"timezone": zone}))
    generate(offline)
    path = offline.path("artifacts/cache/run_history.jsonl")
    record = json.loads(path.read_bytes())
    path.write_text(json.dumps({**record, "ended_at_utc": "2026-01-15T12:30:00.000+00:00"}) + "\n")
    _, report = deliver(offline)
    text = offline.path(report["files"]["md"]).read_text(encoding="utf-8").replace("\\", "")
    assert f"2026-01-15 {12 + hour:02d}:30:00 {zone}" in text


@pytest.mark.parametrize(
    ("settings_of_report", "holds"),
    [
        ({"sample_per_group": 0}, lambda text: "This item" not in text and text.count("question:") == 0),
        ({"sample_per_group": 1}, lambda text: text.count("question:") == 1),
        ({"sample_per_group": 100}, lambda text: text.count("question:") == 5),
    ],
)
def test_samples_are_as_many_as_was_asked_for(
    offline: Project, settings_of_report: dict[str, Any], holds: Callable[[str], bool]
) -> None:
    offline.parameters(**settings(report=settings_of_report))
    generate(offline)
    _, report = deliver(offline)
    assert holds(offline.path(report["files"]["md"]).read_text(encoding="utf-8"))


def test_without_html_there_is_markdown_alone(offline: Project) -> None:
    offline.parameters(**settings(report={"write_html": False, "md_path": "REPORT.md"}))
    generate(offline)
    _, report = deliver(offline)
    assert report["files"] == {"md": "REPORT.md"}
    assert not offline.path("artifacts/reports").exists()


def test_a_report_before_any_generation_names_the_command(offline: Project) -> None:
    generate(offline)
    offline.path("artifacts/cache/pipeline4_manifest.json").unlink()
    with pytest.raises(MissingArtifactError, match="--select llm_outputs"):
        deliver(offline)


def test_a_report_of_the_same_run_is_the_same_bytes(offline: Project) -> None:
    generate(offline)
    _, report = deliver(offline)
    first = [offline.path(path).read_bytes() for path in report["files"].values()]
    deliver(offline)
    assert [offline.path(path).read_bytes() for path in report["files"].values()] == first
