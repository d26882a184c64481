"""Accepted outputs in, exports out: time and memory by format, compared with a bare loop.

    python -m benchmarks.exports [--items 20000] [--rounds 5]

Prints a table and writes benchmarks/results/exports.json. Every measurement runs in a process of its own and does what the
asset does, from the artifacts on disk to the manifest; the cases take turns. ``psv+jsonl+csv`` is compared with
``benchmarks.bare_export``, which writes the same bytes. The ratio ``cpu_of_bare`` leaves out the start of the process and
its imports; ``whole_cpu_of_bare`` has them on both sides. In the last case, every output was made at another temperature,
so all of them are looked for and listed as outdated.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.processes import timed
from llmbatch_assets.adapters.files.atomic import json_bytes, write_json_if_changed
from llmbatch_assets.adapters.store.run_records import keep_provenance
from llmbatch_assets.domain.items.grouping import plan_work
from llmbatch_assets.domain.items.table import Snapshot
from llmbatch_assets.domain.items.work import WorkItem, work_items_of
from llmbatch_assets.domain.outcome import AcceptedOutput
from llmbatch_assets.domain.usage import TokenUsage
from llmbatch_assets.stages.artifacts import artifact_path, batch_outputs, load_artifact
from llmbatch_assets.stages.project import Batch, BatchFile
from llmbatch_assets.stages.publish.export import write_exports

WORDS = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "harbor", "iris", "jade", "kelp", "linen")
FORMATS = ("csv", "psv", "tsv", "jsonl", "xlsx", "parquet")
COMPARED = "psv+jsonl+csv"
BARE = "bare loop"
OUTDATED = "csv, all outdated"
CASES = {BARE: (), COMPARED: ("psv", "jsonl", "csv"), **{name: (name,) for name in FORMATS}, OUTDATED: ("csv",)}
RESULTS = Path(__file__).parent / "results/exports.json"
REPOSITORY = Path(__file__).parents[1]
Result = dict[str, Any]
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


def configure(root: Path, formats: Sequence[str], temperature: float = 1.0) -> None:
    """The project's configuration."""
    blocks = {"outputs": {"formats": [*formats]}, "llm": {"temperature": temperature}}
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


def deliver_timed(root: Path) -> None:
    """Do that in this process, and print what it took, imports apart."""
    started, worked = time.perf_counter(), time.process_time()
    deliver(root)
    took = {"seconds": time.perf_counter() - started, "cpu_sec": time.process_time() - worked}
    print(json.dumps({**took, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))


def measured(root: Path, case: str) -> Result:
    """A case in a process of its own."""
    configure(root, CASES[case], temperature=0.5 if case == OUTDATED else 1.0)
    # Otherwise an unchanged export would be left as it is.
    shutil.rmtree(root / "artifacts/outputs", ignore_errors=True)
    module = ("benchmarks.bare_export",) if case == BARE else ("benchmarks.exports", "--deliver")
    taken = timed([sys.executable, "-m", *module, str(root)], root, os.environ | {"PYTHONPATH": str(REPOSITORY)})
    log = (root / "last_run.log").read_text()
    if taken.exit_code:
        raise SystemExit(log)
    took: Result = json.loads(log.splitlines()[-1])
    return took | {"whole_cpu_sec": taken.cpu_seconds}


def median(runs: Sequence[Result]) -> Result:
    """The medians of some rounds, and the highest peak."""
    middle = {key: round(statistics.median(run[key] for run in runs), 2) for key in runs[0]}
    return middle | {"rounds": len(runs), "peak_mb": round(max(run["peak_mb"] for run in runs))}


def require_same_files(root: Path) -> None:
    """The comparison is only fair where both write the same."""
    for path in sorted((root / "bare").iterdir()):
        if path.read_bytes() != (root / "artifacts/outputs" / path.name).read_bytes():
            raise SystemExit(f"{path.name} of the bare loop has other bytes than ours")


def compare(items: int, rounds: int) -> list[Result]:
    """All cases in turn."""
    runs: dict[str, list[Result]] = {case: [] for case in CASES}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_project(root, items)
        for _ in range(rounds):
            for case in CASES:
                runs[case].append(measured(root, case))
                if case == COMPARED:
                    require_same_files(root)
    told = {case: median(of_it) for case, of_it in runs.items()}
    for key in ("cpu", "whole_cpu"):
        told[COMPARED][f"{key}_of_bare"] = round(told[COMPARED][f"{key}_sec"] / told[BARE][f"{key}_sec"], 2)
    return [{"case": case, "items": items, **of_it} for case, of_it in told.items()]


def main() -> None:
    """Measure everything, print it, keep it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--deliver", type=Path, metavar="PROJECT", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.deliver:
        deliver_timed(arguments.deliver)
        return
    results = compare(arguments.items, arguments.rounds)
    for result in results:
        print("  ".join(f"{key}={value}" for key, value in result.items()))
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
