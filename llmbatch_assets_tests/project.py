"""A small batch project on disk, as a user has one, and the command line run on it."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import dagster as dg
import pytest
import yaml
from click.testing import CliRunner
from dagster._core.storage.partition_status_cache import AssetPartitionStatus

from llmbatch_assets.adapters.pages import report_charts
from llmbatch_assets.cli import main
from llmbatch_assets.domain.report.charts import Chart

COLUMNS = ("id", "team", "question")
ROWS = (
    ("q1", "red", "How tall is the tower?"),
    ("q2", "red", "Who built the bridge?"),
    ("q3", "blue", "When was the harbour dug?"),
    ("q4", "blue", "Why is the river brown?"),
    ("q5", "blue", "Where does the road end?"),
)
SCHEMA = '''"""Outputs of the test project."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class LLMOutput(BaseModel):
    """An answer."""

    model_config = ConfigDict(extra="forbid")

    answer: str = Field(..., description="The answer.", max_length=80)
    certain: bool = Field(..., description="Whether it is certain.")


class JudgeResult(BaseModel):
    """A verdict."""

    model_config = ConfigDict(extra="forbid")

    reasons: list[str] = Field(..., description="Why.")
    score: int = Field(..., ge=0, le=100, description="How good.")
    verdict: Literal["PASS", "FAIL"] = Field(..., description="The verdict.")
'''
GENERATION = {
    "name": "answer",
    "version": "1",
    "system": "Answer as JSON.\n{llm_schema}",
    "user": "{context}\n\nAnswer it.",
}
JUDGE = {"name": "judge", "system": "Judge. {judge_schema}", "user": "{context}\n\nAnswer: {output_json}"}


@dataclass(frozen=True)
class Project:
    """A project folder. Paths are relative to it."""

    root: Path

    @property
    def config(self) -> Path:
        return self.root / "configs/parameters.yaml"

    def path(self, relative: str) -> Path:
        return self.root / relative

    def write(self, relative: str, text: str) -> Path:
        """Write a file of the project."""
        path = self.path(relative)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def json(self, relative: str) -> Any:
        """The content of a JSON artifact."""
        return json.loads(self.path(relative).read_bytes())

    def table(self, rows: Iterable[Sequence[str]], columns: Sequence[str] = COLUMNS) -> None:
        """Write the input table."""
        path = self.write("raw_data/input.csv", "")
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([columns, *rows])

    def parameters(self, name: str = "parameters", **blocks: Mapping[str, Any]) -> Path:
        """Write a configuration."""
        return self.write(f"configs/{name}.yaml", yaml.safe_dump(blocks))

    def prompt(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a prompt file."""
        self.write(f"prompts/{name}.yaml", yaml.safe_dump(dict(content)))

    def work_items(self) -> list[dict[str, Any]]:
        """The planned items, in the order of the table."""
        return list(self.json("artifacts/cache/pipeline3_work_items.json")["items"])

    def partition_keys(self) -> list[str]:
        """The items' names in Dagster, in the order of the table."""
        return [item["partition_key"] for item in self.work_items()]

    def outputs(self) -> dict[str, Any]:
        """Accepted artifacts by cache id."""
        return {
            path.stem: json.loads(path.read_bytes()) for path in self.path("artifacts/cache/llm_outputs").glob("*.json")
        }

    def rows_done(self) -> list[int]:
        """Row indices of the accepted artifacts."""
        return sorted(output["meta"]["row_index"] for output in self.outputs().values())

    def output_of(self, row: int) -> Path:
        """The accepted artifact of a row; there must be exactly one."""
        (cache_id,) = (name for name, output in self.outputs().items() if output["meta"]["row_index"] == row)
        return self.path(f"artifacts/cache/llm_outputs/{cache_id}.json")

    def failures(self) -> dict[str, Any]:
        """Failure artifacts by file name."""
        folder = self.path("artifacts/cache/llm_failures")
        return {path.name: json.loads(path.read_bytes()) for path in folder.glob("*.json")}

    def llmbatch(self, *arguments: str, timeout: float = 120, **environment: str) -> subprocess.CompletedProcess[str]:
        """The command line, as a process of its own in the project's folder."""
        return subprocess.run(
            [sys.executable, "-m", "llmbatch_assets.cli", *arguments],
            cwd=self.root,
            env=self.environment(**environment),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def llmbatch_here(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """The same command line in this process, which saves importing Dagster. The report's charts are not drawn."""
        theirs = self.environment(DAGSTER_HOME=str(self.path("dagster_home")), **environment)
        ours: dict[str, str | None] = {name: None for name in os.environ if name not in theirs}
        # What the command sets for itself and for those that it starts is gone with it.
        with contextlib.chdir(self.root), patch.dict(os.environ), patch.object(report_charts, "_drawn", _blank):
            ended = CliRunner().invoke(main, arguments, env={**ours, **theirs})
        if ended.exception is not None and not isinstance(ended.exception, SystemExit):
            raise ended.exception
        return subprocess.CompletedProcess(arguments, ended.exit_code, ended.stdout, ended.stderr)

    def partition_states(self) -> dict[str, AssetPartitionStatus | None]:
        """How Dagster shows each registered partition of the default batch; None is never attempted."""
        home = self.path("dagster_home")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DAGSTER_HOME", str(home))
            with dg.DagsterInstance.from_config(str(home)) as instance:
                return partition_states(instance)

    def tree(self) -> dict[str, bytes]:
        """Every file of the project with its content."""
        files = (path for path in self.root.rglob("*") if path.is_file())
        return {path.relative_to(self.root).as_posix(): path.read_bytes() for path in sorted(files)}

    def environment(self, **extra: str) -> dict[str, str]:
        """The environment of a process in the project: nothing of ours leaks in."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("DAGSTER", "LLMBATCH"))}
        return kept | {"TEST_KEY": "secret-key", "NO_COLOR": "1", "COLUMNS": "200"} | extra


def _blank(_chart: Chart) -> str:
    return '<svg xmlns="http://www.w3.org/2000/svg"><defs></defs></svg>'


def partition_states(instance: dg.DagsterInstance, batch: str = "") -> dict[str, AssetPartitionStatus | None]:
    """How Dagster shows each registered partition of ``llm_outputs``; None is never attempted."""
    partitions = dg.DynamicPartitionsDefinition(name=f"{batch}__work_items" if batch else "work_items")
    key = dg.AssetKey([batch, "llm_outputs"] if batch else ["llm_outputs"])
    registered = instance.get_dynamic_partitions(str(partitions.name))
    known = instance.get_status_by_partition(key, registered, partitions) or {}
    return {partition: known.get(partition) for partition in registered}


def make_project(root: Path, base_url: str = "", **blocks: Mapping[str, Any]) -> Project:
    """A project with five rows in two teams; ``blocks`` are merged into its configuration."""
    project = Project(root)
    project.table(ROWS)
    project.write("schema/llm_schema.py", SCHEMA)
    project.prompt("generation", GENERATION)
    project.prompt("judge", JUDGE)
    project.parameters(**settings(base_url, **blocks))
    return project


def settings(base_url: str = "", **blocks: Mapping[str, Any]) -> dict[str, Any]:
    """The test project's configuration: the given blocks over plain ones."""
    provider = (
        {"provider": "openai", "base_url": base_url, "api_key_env": "TEST_KEY"} if base_url else {"provider": "offline"}
    )
    plain: dict[str, dict[str, Any]] = {
        "llm": {**provider, "model_name": "test-model", "temperature": 0.5, "max_workers": 3, "transport_retries": 1},
        "outputs": {"formats": ["csv", "psv", "jsonl"]},
    }
    return {name: {**plain.get(name, {}), **blocks.get(name, {})} for name in {*plain, *blocks}}
