"""The checks read the exported file back, and ``checks.block_export`` stops an export of outputs that fall short."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from llmbatch_assets.adapters.tables.export_file import ExportFile, ExportRow, WriteRows
from llmbatch_assets.adapters.tables.formats import EXPORTERS, read_table
from llmbatch_assets.assets.checks import require_passed_checks
from llmbatch_assets.domain.configuration.input_blocks import Input
from llmbatch_assets.domain.items.table import RawTable
from llmbatch_assets.domain.run.quality import OUTPUT_CHECKS
from llmbatch_assets.stages.project import BatchFile
from llmbatch_assets.stages.publish import export, export_check
from llmbatch_assets.stages.publish.export_check import ExportProblems
from llmbatch_assets_tests.assets.test_batch import RigMaker, offline_rig
from llmbatch_assets_tests.chat_server import ChatServer, refuses
from llmbatch_assets_tests.project import ROWS, Project

__all__ = ["offline_rig"]


def findings(ended: dg.ExecuteInProcessResult) -> dict[str, bool]:
    return {made.check_name: made.passed for made in ended.get_asset_check_evaluations()}


GOOD = {"every_row_once": True, "matches_outputs": True}


def test_a_group_that_is_exported_row_by_row_is_there_once(offline_rig: RigMaker) -> None:
    grouping = {"enabled": True, "column": "team", "mode": "group_output"}
    rig = offline_rig(outputs={"formats": ["csv"], "group_rows": "expand"}, grouping=grouping)
    for stage in ("prepare", "generate"):
        assert rig.run(stage).success
    assert findings(rig.run("publish")) == GOOD


@pytest.mark.parametrize("file_format", ["csv", "psv", "jsonl"])
@pytest.mark.parametrize("mode", ["group_output", "row_output_with_group_context"])
def test_an_export_is_compared_with_the_outputs(offline_rig: RigMaker, file_format: str, mode: str) -> None:
    grouping = {"enabled": True, "column": "team", "mode": mode}
    rig = offline_rig(outputs={"formats": [file_format]}, grouping=grouping)
    for stage in ("prepare", "generate"):
        assert rig.run(stage).success
    assert findings(rig.run("publish")) == GOOD

    assert rig.run("generate", select="all", limit=1, force=True).success
    again = {**GOOD, "matches_outputs": False}
    checks = dg.define_asset_job("check_export", dg.AssetSelection.checks_for_assets(dg.AssetKey("export")))
    parts = rig.batch
    job = dg.Definitions(
        assets=parts.assets, asset_checks=parts.checks, jobs=[checks], resources=parts.resources
    ).resolve_job_def("check_export")

    def checked() -> dict[str, bool]:
        return findings(job.execute_in_process(instance=rig.instance))

    assert checked() == again
    assert findings(rig.run("publish")) == GOOD

    exported = rig.project.path(f"artifacts/outputs/output.{file_format}")
    lines = exported.read_text().splitlines(keepends=True)
    for wrong in (lines[:-1], [*lines, lines[-1]]):
        exported.write_text("".join(wrong))
        assert checked() == {**GOOD, "every_row_once": False}
    exported.unlink()
    assert checked() == {**GOOD, "every_row_once": False}


def test_a_file_is_parsed_only_if_it_is_not_what_the_export_wrote(
    offline_rig: RigMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[str] = []

    def noting(path: Path, settings: Input) -> RawTable:
        parsed.append(path.name)
        return read_table(path, settings)

    monkeypatch.setattr(export_check, "read_table", noting)
    rig = offline_rig(outputs={"formats": ["csv", "psv"]})
    for stage in ("prepare", "generate"):
        assert rig.run(stage).success
    assert findings(rig.run("publish")) == GOOD
    assert parsed == []
    exported = rig.project.path("artifacts/outputs/output.csv")
    exported.write_text(exported.read_text().replace("q1", "q7"))
    batch = BatchFile(rig.project.config).load()
    assert export_check.export_problems(batch) == ExportProblems([], [])
    assert parsed == ["output.csv"]


GROUPS = {"enabled": True, "column": "team", "mode": "group_output"}


@pytest.mark.parametrize(
    "blocks",
    [
        {},
        {"work_items": {"duplicates": "share"}},
        {"grouping": GROUPS},
        {"grouping": GROUPS, "outputs": {"group_rows": "expand"}},
    ],
    ids=["rows", "shared", "groups", "rows_of_groups"],
)
def test_a_record_that_the_export_loses_is_missed(
    offline_rig: RigMaker, monkeypatch: pytest.MonkeyPatch, blocks: dict[str, Any]
) -> None:
    rig = offline_rig(**{**blocks, "outputs": {"formats": ["csv", "jsonl"], **blocks.get("outputs", {})}})
    rig.project.table([*ROWS, ROWS[0]])
    for stage in ("prepare", "generate"):
        assert rig.run(stage).success
    assert findings(rig.run("publish")) == GOOD
    made = export._ExportRun._record_lines
    monkeypatch.setattr(export._ExportRun, "_record_lines", lambda self, chunk: made(self, chunk)[:-1])
    write_again(rig.project)
    assert findings(rig.run("publish")) == {**GOOD, "every_row_once": False}


@pytest.mark.parametrize("file_format", ["csv", "tsv", "psv", "jsonl", "xlsx", "parquet"])
@pytest.mark.parametrize("place", [0, 1], ids=["first", "further"])
def test_a_row_that_a_writer_loses_is_missed(
    offline_rig: RigMaker, monkeypatch: pytest.MonkeyPatch, file_format: str, place: int
) -> None:
    formats = [name for name in ("csv", "jsonl") if name != file_format]
    rig = offline_rig(outputs={"formats": [*formats[:place], file_format, *formats[place:]]})
    for stage in ("prepare", "generate"):
        assert rig.run(stage).success
    assert findings(rig.run("publish")) == GOOD
    exporter = EXPORTERS[file_format]

    @contextlib.contextmanager
    def losing(file: ExportFile) -> Iterator[WriteRows]:
        with exporter(file) as write:
            yield lambda rows: write(rows[1:])

    monkeypatch.setitem(EXPORTERS, file_format, losing)
    write_again(rig.project)
    assert findings(rig.run("publish")) == {**GOOD, "every_row_once": False}


def write_again(project: Project) -> None:
    """Remove the manifest of the export, so that its files are written again."""
    project.path("artifacts/cache/pipeline5_manifest.json").unlink()


def test_a_record_of_another_output_is_noticed_without_a_look_at_the_file(
    offline_rig: RigMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = offline_rig(outputs={"formats": ["csv"]})
    for stage in ("prepare", "generate"):
        assert rig.run(stage).success
    made = export._ExportRun._record_lines

    def mixed_up(self: Any, chunk: Any) -> list[ExportRow]:
        lines = made(self, chunk)
        meta = {**lines[0].record["meta"], "cache_id": lines[1].record["meta"]["cache_id"]}
        record = {**lines[0].record, "meta": meta}
        return [ExportRow(record, self._cells(record)), *lines[1:]]

    monkeypatch.setattr(export._ExportRun, "_record_lines", mixed_up)
    assert findings(rig.run("publish")) == {**GOOD, "matches_outputs": False}


@pytest.mark.parametrize("file_format", ["csv", "jsonl"])
def test_rows_that_share_an_output_are_all_expected(offline_rig: RigMaker, file_format: str) -> None:
    rig = offline_rig(outputs={"formats": [file_format]}, work_items={"duplicates": "share"})
    rig.project.table([*ROWS, ROWS[0]])
    for stage in ("prepare", "generate"):
        assert rig.run(stage).success
    assert findings(rig.run("publish")) == GOOD


def test_an_export_without_a_record_is_complete(offline_rig: RigMaker) -> None:
    rig = offline_rig(outputs={"formats": ["csv"]})
    rig.prepare()
    assert findings(rig.run("publish")) == GOOD


# checks.block_export.

MakeProject = Callable[..., Project]
BLOCKED = {"block_export": True, "min_acceptance": 0.9}
EXPORT = ("run", "--select", "export")


def test_the_export_is_refused_until_the_checks_pass(project_with: MakeProject, server: ChatServer) -> None:
    project = project_with(checks=BLOCKED)
    server.script(ROWS[2][2], refuses())
    ended = project.llmbatch_here("run")
    told = ended.stdout + ended.stderr
    assert ended.returncode == 1
    assert "acceptance_rate failed (4 of 5 attempted items accepted (required: at least 90%))" in told
    assert "unset checks.block_export" in told
    assert not project.path("artifacts/outputs").exists()
    assert "output.csv" not in told

    # By itself it is refused, too, and with what was mended it goes out.
    assert project.llmbatch_here(*EXPORT).returncode == 1
    assert project.llmbatch_here("run", "--retry-failed").returncode == 0
    assert project.path("artifacts/outputs/output.csv").exists()


@pytest.mark.parametrize(
    ("checks", "code"), [(BLOCKED, 1), ({**BLOCKED, "block_export": False}, 0)], ids=["blocked", "not_blocked"]
)
def test_outputs_that_were_never_checked_are_exported_only_where_that_is_allowed(
    project_with: MakeProject, checks: dict[str, Any], code: int
) -> None:
    project = project_with(checks=checks)
    assert project.llmbatch_here("run", "--select", "input_snapshot,work_items").returncode == 0
    ended = project.llmbatch_here(*EXPORT)
    assert ended.returncode == code
    assert ("acceptance_rate has not been checked yet" in ended.stdout + ended.stderr) is bool(code)


def test_a_check_that_only_warns_blocks_nothing(project_with: MakeProject, server: ChatServer) -> None:
    project = project_with(checks={"block_export": True})
    server.script(ROWS[2][2], refuses())
    assert project.llmbatch_here("run").returncode == 3
    assert project.path("artifacts/outputs/output.csv").exists()


def test_a_check_that_an_interrupted_run_did_not_come_to_leaves_the_earlier_result(
    instance: dg.DagsterInstance,
) -> None:
    specs = [dg.AssetCheckSpec(name, asset="answers") for name in OUTPUT_CHECKS]
    interrupt, passed = [False], [True]

    @dg.asset(check_specs=specs)
    def answers() -> dg.MaterializeResult:  # type: ignore[type-arg]
        if interrupt[0]:
            raise KeyboardInterrupt
        results = [dg.AssetCheckResult(check_name=name, passed=passed[0]) for name in OUTPUT_CHECKS]
        return dg.MaterializeResult(check_results=results)

    def refused() -> bool:
        try:
            require_passed_checks(instance, answers.key, OUTPUT_CHECKS, "llmbatch run")
        except dg.Failure:
            return True
        return False

    for passes in (True, False):
        interrupt[0], passed[0] = False, passes
        dg.materialize([answers], instance=instance)
        interrupt[0] = True
        with contextlib.suppress(BaseException):
            dg.materialize([answers], instance=instance)
        assert refused() is not passes
