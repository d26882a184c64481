"""A small batch project on disk, as a user has one, and the command line run on it."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

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

    def outputs(self) -> dict[str, Any]:
        """Accepted artifacts by the question id in their row... keyed by cache id."""
        return {
            path.stem: json.loads(path.read_bytes()) for path in self.path("artifacts/cache/llm_outputs").glob("*.json")
        }

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

    def environment(self, **extra: str) -> dict[str, str]:
        """The environment of a process in the project: nothing of ours leaks in."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("DAGSTER", "LLMBATCH"))}
        return kept | {"TEST_KEY": "secret-key", "NO_COLOR": "1", "COLUMNS": "200"} | extra


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
