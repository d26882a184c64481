"""How long `llmbatch plan` takes on a full cache.

    python -m benchmarks.plan [ROWS]       prints a table and writes benchmarks/results/plan.json

The cache is written as a run leaves it; each measurement is the command as a process of its own, its start included.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from llmbatch_assets.adapters.files.atomic import json_bytes
from llmbatch_assets.adapters.store.provenance import IdentityUse, keep_provenance, note_use
from llmbatch_assets.domain.canonical import canonical_json
from llmbatch_assets.domain.items.grouping import plan_work
from llmbatch_assets.domain.items.work import WorkItem
from llmbatch_assets.domain.ledger import CallRecord
from llmbatch_assets.domain.outcome import AcceptedOutput, TokenUsage
from llmbatch_assets.stages.project import Batch, BatchFile

ROWS = 20_000
GROUP_ROWS = 10
AT = "2026-01-02T00:00:00.000+00:00"
SCHEMA = "from pydantic import BaseModel\n\n\nclass LLMOutput(BaseModel):\n    answer: str\n"
PROMPT = {"system": "Answer as JSON.\n{llm_schema}", "user": "{context}\n\nAnswer it."}


def make_project(root: Path, count: int, *, grouped: bool) -> Batch:
    """A project whose items all have outputs, with a line in the ledger for each."""
    for name in ("configs", "raw_data", "prompts", "schema"):
        (root / name).mkdir(parents=True)
    blocks = {
        "llm": {"model_name": "m", "base_url": "http://127.0.0.1:9/v1"},
        "grouping": {"enabled": grouped, "column": "group"},
        "budget": {"prices": {"m": {"input": 1, "output": 2}}},
    }
    (root / "configs/parameters.yaml").write_text(yaml.safe_dump(blocks))
    (root / "prompts/generation.yaml").write_text(yaml.safe_dump(PROMPT))
    (root / "schema/llm_schema.py").write_text(SCHEMA)
    write_table(root, count)
    batch = BatchFile(root / "configs/parameters.yaml").load()
    fill_cache(batch)
    return batch


def write_table(root: Path, count: int, edited: int = 0) -> None:
    """The table; of each so many rows one is edited, 0: none."""
    with (root / "raw_data/input.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "group", "question"])
        for n in range(count):
            mark = " (edited)" if edited and n % edited == 0 else ""
            writer.writerow(
                [f"q{n}", f"group {n // GROUP_ROWS}", f"Question {n}, " + "and why? " * (5 + n % 17) + mark]
            )


def fill_cache(batch: Batch) -> None:
    """Artifacts, provenance and ledger as a run leaves them."""
    folder = batch.path(batch.layout.provenance)
    keep_provenance(folder, batch.provenance())
    note_use(folder, IdentityUse(AT, batch.source.identity.sha, batch.item_settings_sha()))
    outputs = batch.path(batch.layout.llm_outputs)
    outputs.mkdir(parents=True)
    with batch.path(batch.layout.ledger).open("wb") as ledger:
        for item in plan_work(batch.read_snapshot(), batch.parameters).items:
            output, record = _made(batch, item)
            (outputs / f"{record.cache_id}.json").write_bytes(json_bytes(output.model_dump(mode="json")))
            ledger.write(canonical_json(record.model_dump(mode="json")).encode() + b"\n")


def _made(batch: Batch, item: WorkItem) -> tuple[AcceptedOutput, CallRecord]:
    meta = batch.source.meta(item, 1, AT)
    usage = TokenUsage(requests=1, input_tokens=200 + len(item.context) // 4, output_tokens=20, cost_usd=0.0)
    record = CallRecord(
        at_utc=AT,
        run_id="r",
        purpose="generate",
        attempt=1,
        provider="openai",
        model="m",
        **{name: meta[name] for name in ("work_id", "cache_id", "partition_key")},
        **usage.model_dump(exclude={"requests"}),
        latency_sec=0.3,
        outcome="ok",
        status=200,
        request_id="",
    )
    return AcceptedOutput(meta=meta, parsed={"answer": "x" * 60}, judge=None, usage=usage, latency_sec=0.3), record


def measure(root: Path, case: str) -> dict[str, object]:
    """Run the command; gives its time and its headline."""
    command = [sys.executable, "-m", "llmbatch_assets.cli", "plan"]
    before = os.times()
    started = time.perf_counter()
    shown = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    seconds, after = time.perf_counter() - started, os.times()
    busy = after.children_user + after.children_system - before.children_user - before.children_system
    return {
        "case": case,
        "seconds": round(seconds, 2),
        "cpu_seconds": round(busy, 2),
        "told": shown.splitlines()[0].partition(": ")[2],
    }


def main() -> None:
    """Measure all cases."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else ROWS
    results = []
    for grouped in (False, True):
        kind = "in groups" if grouped else "row by row"
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            make_project(root, count, grouped=grouped)
            results.append(measure(root, f"{count} items {kind}, all cached"))
            write_table(root, count, edited=100)
            results.append(measure(root, f"{count} items {kind}, every 100th row edited"))
            (root / "prompts/generation.yaml").write_text(yaml.safe_dump({**PROMPT, "user": "{context}\n\nAnswer."}))
            results.append(measure(root, f"{count} items {kind}, the prompt changed, too"))
    for result in results:
        print(json.dumps(result))
    path = Path(__file__).parent / "results/plan.json"
    path.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
