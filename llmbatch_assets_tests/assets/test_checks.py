"""The checks on the export: they read the file back."""

from __future__ import annotations

import dagster as dg
import pytest

from llmbatch_assets_tests.assets.test_batch import RigMaker, offline_rig
from llmbatch_assets_tests.project import ROWS

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
