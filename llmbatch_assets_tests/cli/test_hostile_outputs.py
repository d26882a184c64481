"""Outputs with every character that JSON allows: no run, export, page or terminal is spoilt by one of them."""

from __future__ import annotations

import csv
import json
import re
import time
from collections.abc import Callable

import pandas as pd
import pytest

from llmbatch_assets.adapters.tables.formats import EXPORTERS, read_table
from llmbatch_assets.domain.configuration.input_blocks import Input
from llmbatch_assets_tests.chat_server import ChatServer, says
from llmbatch_assets_tests.project import Project

MakeProject = Callable[..., Project]
CACHE = "artifacts/cache"
NUL = "Gemini 1.5 Flash\x00\x00"


def exported(project: Project, file_format: str) -> dict[str, str]:
    """The answers in an export by question, as an input table that is read from it has them."""
    table = read_table(project.path(f"artifacts/outputs/output.{file_format}"), Input())
    records = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    if file_format == "jsonl":
        return {record["input"]["question"]: record["parsed"]["answer"] for record in records}
    return {record["question"]: record["answer"] for record in records}


def test_a_nul_in_one_output_spoils_no_format_and_is_reported(project_with: MakeProject, server: ChatServer) -> None:
    project = project_with(outputs={"formats": list(EXPORTERS)})
    server.script("Who built the bridge?", says({"answer": NUL, "certain": True}))

    ended = project.llmbatch_here("run")

    assert ended.returncode == 0, ended.stderr
    assert project.path("artifacts/reports/report.html").is_file()
    assert {exported(project, name)["Who built the bridge?"] for name in EXPORTERS} == {NUL}
    changes = project.json(f"{CACHE}/pipeline5_manifest.json")["changes"]
    assert changes == {key: {"characters_escaped": 1} for key in ["csv", "psv", "tsv"]}
    note = "csv: cells with control characters, or others that the format cannot hold, written as escapes: 1"
    assert note in ended.stdout
    # Others see the escape, and every other cell as it is.
    frame = pd.read_csv(project.path("artifacts/outputs/output.csv"), keep_default_na=False)
    assert frame["answer"][1] == r"Gemini 1.5 Flash\x{0}\x{0}"
    assert project.llmbatch_here("run").returncode == 0


def test_the_default_formats_hold_a_nul(project_with: MakeProject, server: ChatServer) -> None:
    project = project_with(outputs={"formats": ["psv", "jsonl"]})
    server.script("Who built the bridge?", says({"answer": NUL, "certain": True}))
    assert project.llmbatch_here("run").returncode == 0
    line = next(
        line for line in project.path("artifacts/outputs/output.psv").read_text().split("\n") if "Flash" in line
    )
    assert r"|Gemini 1.5 Flash\u0000\u0000|" in line
    assert exported(project, "psv")["Who built the bridge?"] == NUL


@pytest.mark.parametrize("file_format", ["csv", "psv", "tsv"])
def test_an_export_that_was_broken_by_a_nul_is_written_again_by_the_next_run(
    project_with: MakeProject, server: ChatServer, file_format: str
) -> None:
    project = project_with(outputs={"formats": [file_format]})
    server.script("Who built the bridge?", says({"answer": NUL, "certain": True}))
    assert project.llmbatch_here("run").returncode == 0
    path = project.path(f"artifacts/outputs/output.{file_format}")
    whole = path.read_text()
    # As it was written before there were escapes.
    path.write_text(re.sub(r"\\u0000|\\x\{0\}", "\0", whole))

    ended = project.llmbatch_here("run")

    assert (ended.returncode, path.read_text()) == (0, whole)
    assert server.count() == 5


# The byte order mark.


def test_csv_and_tsv_begin_with_a_byte_order_mark_if_excel_is_to_read_them(
    project_with: MakeProject, server: ChatServer
) -> None:
    project = project_with(outputs={"formats": list(EXPORTERS), "csv_bom": True})
    server.script(lambda call: True, says({"answer": "Höhe: 3 €", "certain": True}), repeat_last=True)
    assert project.llmbatch_here("run").returncode == 0
    outputs = project.path("artifacts/outputs")
    marked = {path.name for path in outputs.iterdir() if path.read_bytes().startswith(b"\xef\xbb\xbf")}
    assert marked == {"output.csv", "output.tsv", "output_not_exported.csv"}
    assert {frozenset(exported(project, name).values()) for name in EXPORTERS} == {frozenset({"Höhe: 3 €"})}
    assert pd.read_csv(outputs / "output.csv").columns[0] == "id"
    with (outputs / "output.tsv").open(encoding="utf-8-sig", newline="") as file:
        assert next(csv.reader(file, delimiter="\t"))[0] == "id"
    # Once more, over the files that are there.
    assert project.llmbatch_here("run").returncode == 0
    assert json.loads(project.path(f"{CACHE}/pipeline5_manifest.json").read_bytes())["changes"] == {}


# Large answers and tables.


def test_an_answer_with_many_keys_holds_up_no_other(project_with: MakeProject, server: ChatServer) -> None:
    # Finding the repeated key once took two minutes, in which no other answer was read.
    project = project_with(llm={"max_retries": 1})
    keys = ",".join(f'"k{number}": 1' for number in range(20_000))
    server.script("Who built the bridge?", says(f'{{{keys}, "k19999": 2}}'))
    begun = time.monotonic()
    assert project.llmbatch_here("run", "--select", "llm_outputs,work_items,input_snapshot").returncode == 3
    assert time.monotonic() - begun < 60
    [failure] = project.failures().values()
    assert (failure["cause"], "'k19999' occurs twice" in failure["feedback"]) == ("not_json", True)
    assert project.rows_done() == [0, 2, 3, 4]


def test_a_table_of_very_many_columns_is_exported_in_seconds(project_with: MakeProject) -> None:
    # Naming the columns once took more than a minute.
    project = project_with(outputs={"formats": ["csv", "parquet", "jsonl"]})
    n_columns = 17_000
    project.table([["x"] * n_columns], ["question", *(f"column {number}" for number in range(1, n_columns))])
    begun = time.monotonic()
    assert project.llmbatch_here("run").returncode == 0
    assert time.monotonic() - begun < 60
    assert len(project.json(f"{CACHE}/pipeline5_manifest.json")["columns"]) == n_columns + 14


def test_what_a_workbook_cannot_hold_is_reported_by_check_plan_and_run_before_a_call(
    project_with: MakeProject, server: ChatServer, caplog: pytest.LogCaptureFixture
) -> None:
    project = project_with(outputs={"formats": ["xlsx", "jsonl"]})
    project.table([["x"] * 16_380], [f"column {number}" for number in range(16_380)])
    problem = "outputs.formats: the export has 16,394 columns, but an xlsx sheet holds at most 16,384; remove xlsx"
    for command in ("check", "plan", "run"):
        ended = project.llmbatch_here(command)
        assert (ended.returncode, problem in ended.stdout + ended.stderr) == (2, True), command
    assert server.count() == 0

    # Without a schema, the columns of the table alone.
    project.path("schema/llm_schema.py").unlink()
    project.table([["x"] * 16_390], [f"column {number}" for number in range(16_390)])
    assert "16,402 columns, but an xlsx sheet" in project.llmbatch_here("check").stdout


def test_a_cell_that_excel_cuts_is_reported_before_a_call(
    project_with: MakeProject, caplog: pytest.LogCaptureFixture
) -> None:
    project = project_with(outputs={"formats": ["xlsx", "jsonl"]})
    project.table([("q1", "red", "word " * 8_000)])
    told = "outputs.formats: 1 cell of column 'question' will be cut in xlsx at 32,767 characters, Excel's limit"
    checked = project.llmbatch_here("check")
    assert (checked.returncode, told in checked.stdout) == (0, True)
    assert told in project.llmbatch_here("plan").stdout
    assert project.llmbatch_here("run").returncode == 0
    assert told in caplog.text
