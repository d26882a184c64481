"""``checks.block_export``: what falls short does not leave the house."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import dagster as dg
import pytest

from llmbatch_assets.domain.quality import ABOUT_OUTPUTS
from llmbatch_assets.resources.check_gate import refuse_unchecked
from llmbatch_assets_tests.chat_server import ChatServer, refuses
from llmbatch_assets_tests.project import ROWS, Project

MakeProject = Callable[..., Project]
BLOCKED = {"block_export": True, "min_acceptance": 0.9}
EXPORT = ("run", "--select", "export")


def test_the_export_is_refused_until_the_checks_pass(project_with: MakeProject, server: ChatServer) -> None:
    project = project_with(checks=BLOCKED)
    server.script(ROWS[2][2], refuses())
    ended = project.llmbatch_here("run")
    told = ended.stdout + ended.stderr
    assert ended.returncode == 1
    assert "acceptance_rate failed (4 of 5 attempted items are accepted; at least 90% are wanted)" in told
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
    specs = [dg.AssetCheckSpec(name, asset="answers") for name in ABOUT_OUTPUTS]
    interrupt, passed = [False], [True]

    @dg.asset(check_specs=specs)
    def answers() -> dg.MaterializeResult:  # type: ignore[type-arg]
        if interrupt[0]:
            raise KeyboardInterrupt
        results = [dg.AssetCheckResult(check_name=name, passed=passed[0]) for name in ABOUT_OUTPUTS]
        return dg.MaterializeResult(check_results=results)

    def refused() -> bool:
        try:
            refuse_unchecked(instance, answers.key, ABOUT_OUTPUTS, "llmbatch run")
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
