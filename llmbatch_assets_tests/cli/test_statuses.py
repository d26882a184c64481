"""What Dagster's own API says of a thousand partitions after runs that failed in places, and after the retry."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster_graphql.test.utils import define_out_of_process_context, execute_dagster_graphql

from llmbatch_assets_tests import code_location
from llmbatch_assets_tests.chat_server import ChatServer, says
from llmbatch_assets_tests.project import Project, make_project

ROOT = Path(__file__).parents[2]
COUNT = 1_000
# Scattered, so that no range holds them alone.
FAILING = set(range(0, COUNT, 27))
STATUSES = """{ assetNodeOrError(assetKey: {path: ["llm_outputs"]}) { ... on AssetNode {
    partitionStats { numMaterialized numFailed numPartitions }
    assetPartitionStatuses { ... on DefaultPartitionStatuses {
        materializedPartitions failedPartitions unmaterializedPartitions } } } } }"""


@pytest.fixture
def project(tmp_path: Path, server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> Project:
    llm = {"max_workers": 64, "max_retries": 1}
    project = make_project(tmp_path / "project", server.base_url, llm=llm, work_items={"label_column": "id"})
    project.table([(f"q{number}", "red", f"Question number {number}?") for number in range(COUNT)])
    # Or a code server is left to end by itself, and the garbage collector complains of it in whatever test comes next.
    servers = {"code_servers": {"wait_for_local_processes_on_shutdown": True}}
    shipped = yaml.safe_load((ROOT / "dagster_home/dagster.yaml").read_text())
    project.write("dagster_home/dagster.yaml", yaml.safe_dump(shipped | servers))
    monkeypatch.chdir(project.root)
    monkeypatch.setenv("DAGSTER_HOME", str(project.root / "dagster_home"))
    return project


def statuses(project: Project) -> dict[str, Any]:
    with (
        dg.DagsterInstance.get() as instance,
        define_out_of_process_context(str(code_location.__file__), None, instance) as context,
    ):
        node: dict[str, Any] = execute_dagster_graphql(context, STATUSES).data["assetNodeOrError"]
        return node


def n_runs(job: str) -> int:
    with dg.DagsterInstance.get() as instance:
        return instance.get_runs_count(dg.RunsFilter(job_name=job))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="the code server is started as on POSIX")
def test_exactly_what_failed_is_failed_and_one_run_makes_it_good(project: Project, server: ChatServer) -> None:
    for number in FAILING:
        server.script(f"number {number}?", says("no JSON at all"))
    assert project.llmbatch("run").returncode == 3

    keys = project.partition_keys()
    failing = {keys[number] for number in FAILING}
    node = statuses(project)
    assert set(node["assetPartitionStatuses"]["failedPartitions"]) == failing
    assert set(node["assetPartitionStatuses"]["materializedPartitions"]) == set(keys) - failing
    expected = {"numMaterialized": COUNT - len(failing), "numFailed": len(failing), "numPartitions": COUNT}
    assert node["partitionStats"] == expected

    calls = server.count()
    assert project.llmbatch("run").returncode == 0
    assert server.count() == calls + len(FAILING)
    node = statuses(project)
    assert node["assetPartitionStatuses"]["failedPartitions"] == []
    assert set(node["assetPartitionStatuses"]["materializedPartitions"]) == set(keys)
    assert n_runs("generate") == 2
