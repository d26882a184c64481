"""Accepted outputs in, exports out: time and memory by format, and what is not done beside an old cache.

    python benchmarks/exports.py            prints a table and writes benchmarks/results/exports.json

Every measurement runs in a process of its own and does what the asset does, from the artifacts on disk to the manifest.
``csv`` is measured against writing the same cells with the csv module alone.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from llmbatch_assets.adapters.files.atomic import json_bytes, write_json_if_changed
from llmbatch_assets.adapters.store.run_records import keep_provenance
from llmbatch_assets.domain.items.grouping import plan_work
from llmbatch_assets.domain.items.table import Snapshot
from llmbatch_assets.domain.items.work import WorkItem, work_items_of
from llmbatch_assets.domain.outcome import AcceptedOutput
from llmbatch_assets.domain.usage import TokenUsage
from llmbatch_assets.stages.artifacts import artifact_path, batch_outputs, load_artifact
from llmbatch_assets.stages.export import write_exports
from llmbatch_assets.stages.project import Batch, BatchFile

WORDS = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "harbor", "iris", "jade", "kelp", "linen")
N_ITEMS = 100_000
ROUNDS = 1
FORMATS = ("csv", "psv", "tsv", "jsonl", "xlsx", "parquet")
SCHEMA = """from pydantic import BaseModel, ConfigDict

class Source(BaseModel):
    model_config = ConfigDict(extra="forbid")
    title: str
    page: int

class LLMOutput(BaseModel):
    model_config = ConfigDict(extra="forbid")
    answer: str
    certain: bool
    rating: int
    tags: list[str]
    source: Source
"""
PROMPT = "name: answer\nversion: '1'\nuser: |\n  {context}\n"


def make_project(root: Path, n_items: int) -> None:
    """A project with so many rows of which each has an output."""
    for folder in ("configs", "prompts", "schema", "raw_data"):
        (root / folder).mkdir()
    (root / "prompts/generation.yaml").write_text(PROMPT)
    (root / "schema/llm_schema.py").write_text(SCHEMA)
    configure(root, ["csv"])
    draw = random.Random(1)
    with (root / "raw_data/input.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "group", "question", "skill", "note"])
        for n in range(n_items):
            long = [" ".join(draw.choices(WORDS, k=14)) for _ in range(2)]
            writer.writerow([f"q{n}", f"group {n // 10}", long[0], draw.choice(WORDS), long[1]])
    batch = BatchFile(root / "configs/parameters.yaml").load()
    snapshot = batch.read_snapshot()
    plan = plan_work(snapshot, batch.parameters)
    write_json_if_changed(artifact_path(batch, "input_snapshot"), snapshot)
    write_json_if_changed(artifact_path(batch, "work_items"), work_items_of(plan, batch.parameters, "contexts.json"))
    write_outputs(batch, plan.items, draw)


def configure(root: Path, formats: list[str], temperature: float = 1.0) -> None:
    """The project's configuration."""
    blocks = {"outputs": {"formats": formats}, "llm": {"temperature": temperature}}
    (root / "configs/parameters.yaml").write_text(json.dumps(blocks))


def write_outputs(batch: Batch, items: Iterable[WorkItem], draw: random.Random) -> None:
    """An output for every item, as a run leaves it, but without waiting for the disk."""
    folder = batch.path(batch.layout.llm_outputs)
    folder.mkdir(parents=True)
    keep_provenance(batch.path(batch.layout.provenance), batch.provenance())
    for item in items:
        meta = batch.source.meta(item, 1, "2026-01-02T03:04:05.000+00:00")
        parsed: dict[str, Any] = {
            "answer": " ".join(draw.choices(WORDS, k=30)),
            "certain": draw.random() > 0.5,
            "rating": draw.randrange(-5, 6),
            "tags": draw.choices(WORDS, k=3),
            "source": {"title": draw.choice(WORDS), "page": draw.randrange(300)},
        }
        output = AcceptedOutput(meta=meta, parsed=parsed, judge=None, usage=TokenUsage(requests=1), latency_sec=1.5)
        (folder / f"{meta['cache_id']}.json").write_bytes(json_bytes(output))


def deliver(root: Path) -> None:
    """Ours: what the asset does."""
    batch = BatchFile(root / "configs/parameters.yaml").load()
    write_exports(batch, batch_outputs(batch), load_artifact(batch, "input_snapshot", Snapshot))


def csv_alone(root: Path) -> None:
    """The baseline: the outputs read as JSON and the cells written, with nothing checked and nothing joined."""
    with (root / "alone.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        for path in sorted((root / "artifacts/cache/llm_outputs").iterdir()):
            writer.writerow(json.loads(path.read_bytes())["parsed"].values())


def one_case(case: str, root: Path) -> None:
    """Run a case in this process and print what it took, imports apart."""
    started, worked = time.perf_counter(), time.process_time()
    if case == "alone":
        csv_alone(root)
    else:
        deliver(root)
    took = {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - worked}
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({**{name: round(value, 2) for name, value in took.items()}, "peak_mb": round(peak_mb)}))


def measured(root: Path, case: str, formats: list[str], temperature: float = 1.0) -> dict[str, object]:
    """A case in processes of its own: the median time of the rounds, the highest peak."""
    configure(root, formats, temperature)
    runs = []
    for _ in range(ROUNDS):
        command = [sys.executable, __file__, "--case", case, "--root", str(root)]
        runs.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    took = {
        **{name: statistics.median(run[name] for run in runs) for name in ("seconds", "cpu_seconds")},
        "peak_mb": max(run["peak_mb"] for run in runs),
    }
    files = sorted((root / "artifacts/outputs").glob("output.*"))
    return took | ({"bytes": {file.name: file.stat().st_size for file in files}} if case == "all" else {})


def main() -> None:
    """Measure everything, print it, keep it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case")
    parser.add_argument("--root", type=Path)
    parser.add_argument("--items", type=int, default=N_ITEMS)
    arguments = parser.parse_args()
    if arguments.case:
        one_case(arguments.case, arguments.root)
        return
    results: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_project(root, arguments.items)
        cases = {"alone": ["csv"], **{name: [name] for name in FORMATS}, "all": [*FORMATS]}
        for case, formats in cases.items():
            results.append({"case": case, "items": arguments.items, **measured(root, case, formats)})
            print("  ".join(f"{key}={value}" for key, value in results[-1].items()), flush=True)
        # Every output was made at another temperature, so all of them are looked for and listed as outdated.
        outdated = measured(root, "csv", ["csv"], temperature=0.5)
        results.append({"case": "csv, all outdated", "items": arguments.items, **outdated})
        print("  ".join(f"{key}={value}" for key, value in results[-1].items()))
    target = Path(__file__).with_name("results") / "exports.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
