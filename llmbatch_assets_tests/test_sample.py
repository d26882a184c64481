"""The project as it is shipped: table, prompts, schema and configuration together."""

from __future__ import annotations

import contextlib
import csv
import json
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from dagster._core.storage.partition_status_cache import AssetPartitionStatus

from llmbatch_assets_tests.chat_server import ChatServer
from llmbatch_assets_tests.project import Project, make_project

ROOT = Path(__file__).parents[1]
STARTS_WITHIN_SEC = 90


@pytest.fixture
def sample(tmp_path: Path) -> Project:
    """A copy of what is shipped."""
    for name in ("configs", "prompts", "raw_data", "schema", "dagster_home/dagster.yaml"):
        source, target = ROOT / name, tmp_path / name
        target.parent.mkdir(exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    return Project(tmp_path)


def test_the_sample_runs_from_table_to_report_and_its_schema_text_is_up_to_date(sample: Project) -> None:
    schema_text = sample.path("schema/llm_schema.txt").read_bytes()
    done = sample.llmbatch("run", "--offline")
    assert (done.returncode, done.stderr) == (0, "")
    assert "50 of 50 items accepted (50 new, 0 from cache)" in done.stdout
    with sample.path("artifacts/outputs/output.csv").open(newline="", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 50
    assert sample.path("schema/llm_schema.txt").read_bytes() == schema_text
    assert not sample.path("archived").exists()
    assert sample.json("artifacts/cache/pipeline3_work_items.json")["n_group_contexts"] == 5


@pytest.mark.slow
@pytest.mark.local_model
def test_the_embedded_model_makes_and_judges_an_output_of_the_sample(sample: Project) -> None:
    done = sample.llmbatch("run", "--limit", "1", timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 of 50 items accepted (1 new, 0 from cache), 0 failed, 49 not attempted" in done.stdout
    (output,) = sample.outputs().values()
    assert set(output["parsed"]) == {"topic", "answer", "difficulty"}
    assert output["judge"]["verdict"] == "PASS"
    assert output["usage"]["requests"] >= 2


def free_port() -> int:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return int(made.getsockname()[1])


def asked(port: int, query: str) -> Any:
    body = json.dumps({"query": query}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/graphql", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)["data"]


def wait_for_assets(port: int) -> Any:
    query = "{assetNodes{assetKey{path} partitionStats{numMaterialized numPartitions}}}"
    deadline = time.monotonic() + STARTS_WITHIN_SEC
    while time.monotonic() < deadline:
        # Refused until the webserver listens; empty until it has loaded the definitions.
        with contextlib.suppress(OSError):
            if nodes := asked(port, query)["assetNodes"]:
                return nodes
        time.sleep(0.5)
    raise AssertionError("no assets within the time")


@pytest.mark.slow
def test_the_webserver_shows_the_runs_and_partitions_of_the_command_line(sample: Project) -> None:
    assert sample.llmbatch("run", "--offline", "--limit", "3").returncode == 0
    port = free_port()
    command = [sys.executable, "-m", "llmbatch_assets.cli", "ui", "--port", str(port)]
    with subprocess.Popen(
        command, cwd=sample.root, env=sample.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as ui:
        try:
            nodes = {"/".join(node["assetKey"]["path"]): node["partitionStats"] for node in wait_for_assets(port)}
            assert nodes["llm_outputs"] == {"numMaterialized": 3, "numPartitions": 50}
            runs = asked(port, "{runsOrError{... on Runs{results{jobName status}}}}")["runsOrError"]["results"]
            assert {run["jobName"]: run["status"] for run in runs} == dict.fromkeys(
                ("prepare", "generate_pending", "publish"), "SUCCESS"
            )
        finally:
            ui.send_signal(signal.SIGTERM)
            ui.wait(60)
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/server_info", timeout=5)


@pytest.mark.slow
def test_an_interrupted_run_keeps_what_was_accepted_and_ends_as_canceled(tmp_path: Path, server: ChatServer) -> None:
    project = make_project(tmp_path / "project", server.base_url, llm={"max_workers": 1})
    server.delay = 0.7
    command = [sys.executable, "-m", "llmbatch_assets.cli", "run"]
    with subprocess.Popen(
        command,
        cwd=project.root,
        env=project.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as running:
        while server.count() < 3:
            assert running.poll() is None
            time.sleep(0.05)
        running.send_signal(signal.SIGTERM)
        told = running.communicate(timeout=60)[0]
    assert running.returncode == 128 + signal.SIGTERM, told
    assert "interrupted" in told
    assert "Traceback" not in told
    kept = len(project.outputs())
    assert kept >= 1
    # The last of them were told to Dagster while the run ended.
    assert list(project.partition_states().values()).count(AssetPartitionStatus.MATERIALIZED) == kept
    calls = server.count()
    server.delay = 0.0
    assert project.llmbatch_here("run").returncode == 0
    assert server.count() - calls == 5 - kept
