"""The project as it is shipped: table, prompts, schema and configuration together."""

from __future__ import annotations

import csv
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from dagster._core.storage.partition_status_cache import AssetPartitionStatus

from llmbatch_assets_tests.chat_server import ChatServer
from llmbatch_assets_tests.project import Project, make_project

ROOT = Path(__file__).parents[1]


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
    # Each item comes with its group, and the processor reads slowly.
    header, *rows = sample.path("raw_data/input.csv").read_text(encoding="utf-8").splitlines()
    sample.write("raw_data/input.csv", "\n".join([header, *rows[:2]]))
    done = sample.llmbatch("run", "--limit", "1", timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 of 2 items accepted (1 new, 0 from cache), 0 failed, 1 not attempted" in done.stdout
    (output,) = sample.outputs().values()
    assert set(output["parsed"]) == {"topic", "answer", "difficulty"}
    assert output["judge"]["verdict"] == "PASS"
    assert output["usage"]["requests"] >= 2


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
