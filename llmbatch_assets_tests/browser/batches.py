"""Further batches of a project, so that several stories run at the same time on one daemon."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from llmbatch_assets_tests.project import COLUMNS, GENERATION, JUDGE, SCHEMA, Project, settings

Row = tuple[str, str, str]


@dataclass(frozen=True)
class SmallBatch:
    """A batch with a table, prompts and a schema of its own; its assets are in a group of its name."""

    project: Project
    name: str

    def rows(self, count: int) -> list[Row]:
        """Rows whose questions name the batch."""
        return [(f"r{n}", "red", f"Question {n} of {self.name}?") for n in range(1, count + 1)]

    def write_rows(self, rows: Sequence[Sequence[str]]) -> None:
        """Write the table in one step, as an editor does: the sensor may read it at any time."""
        new = self.project.write(f"raw_data/{self.name}.new", "")
        with new.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([COLUMNS, *rows])
        new.replace(self.project.path(f"raw_data/{self.name}.csv"))

    def configure(self, base_url: str, **blocks: Any) -> None:
        """Write the configuration; the items are judged."""
        prompts: dict[str, dict[str, Any]] = {
            "generation": {"path": f"prompts/{self.name}.yaml"},
            "judge": {"enabled": True, "path": f"prompts/{self.name}_judge.yaml"},
        }
        plain: dict[str, dict[str, Any]] = {
            "input": {"path": f"raw_data/{self.name}.csv"},
            "work_items": {"label_column": "id"},
            "prompts": prompts,
        }
        self.project.parameters(self.name, **settings(base_url, **plain, **blocks))

    def configuration(self) -> dict[str, Any]:
        """The content of the configuration."""
        return dict(yaml.safe_load(self.project.path(f"configs/{self.name}.yaml").read_text()))

    def questions_exported(self) -> list[str]:
        """The questions in the exported file, in its order."""
        lines = self.project.path(f"artifacts/{self.name}/outputs/output.jsonl").read_text().splitlines()
        return [json.loads(line)["input"]["question"] for line in lines]


def add_batch(project: Project, name: str, base_url: str, n_rows: int, **blocks: Any) -> SmallBatch:
    """Write the files of a further batch."""
    batch = SmallBatch(project, name)
    batch.write_rows(batch.rows(n_rows))
    batch.configure(base_url, **blocks)
    project.prompt(name, GENERATION)
    project.prompt(f"{name}_judge", JUDGE)
    project.write(f"schema/{name}/llm_schema.py", SCHEMA)
    return batch
