"""Time and accuracy of `llmbatch plan`.

    python -m benchmarks.plan [ROWS]       prints the results and writes benchmarks/results/plan.json

Time: the command as a process of its own, start included, on a cache as a run leaves it.
Reasons: the share of items to run that get the right reason after random edits of the table.
Estimates: the cost of the rest after a sample of 20 of 520 items, compared with a simulated bill.
"""

from __future__ import annotations

import csv
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any, NamedTuple

import yaml
from click.testing import CliRunner

from llmbatch_assets.adapters.files.atomic import json_bytes
from llmbatch_assets.adapters.store.run_records import IdentityUse, keep_provenance, note_use
from llmbatch_assets.cli import main as llmbatch
from llmbatch_assets.domain.canonical import canonical_json
from llmbatch_assets.domain.items.grouping import plan_work
from llmbatch_assets.domain.items.work import WorkItem
from llmbatch_assets.domain.outcome import AcceptedOutput
from llmbatch_assets.domain.run.ledger import CallRecord
from llmbatch_assets.domain.usage import TokenUsage
from llmbatch_assets.stages.project import Batch, BatchFile

ROWS = 20_000
GROUP_ROWS = 10
AT = "2026-01-02T00:00:00.000+00:00"
SCHEMA = "from pydantic import BaseModel\n\n\nclass LLMOutput(BaseModel):\n    answer: str\n"
PROMPT = {"system": "Answer as JSON.\n{llm_schema}", "user": "{context}\n\nAnswer it."}
OTHER_PROMPT = {**PROMPT, "user": "{context}\n\nAnswer."}
PRICES = {"input": 1.0, "output": 4.0}

Row = tuple[str, str, str]
# Input and output tokens of each call for an item, from the length of its request in bytes.
Bill = Callable[[int, random.Random], list[tuple[int, int]]]


# A project.


def make_project(root: Path, rows: Sequence[Row], **blocks: dict[str, Any]) -> Batch:
    for name in ("configs", "raw_data", "prompts", "schema"):
        (root / name).mkdir(parents=True)
    parameters = {
        "llm": {"model_name": "m", "base_url": "http://127.0.0.1:9/v1"},
        "budget": {"prices": {"m": PRICES}},
        **blocks,
    }
    (root / "configs/parameters.yaml").write_text(yaml.safe_dump(parameters))
    (root / "prompts/generation.yaml").write_text(yaml.safe_dump(PROMPT))
    (root / "schema/llm_schema.py").write_text(SCHEMA)
    write_table(root, rows)
    return BatchFile(root / "configs/parameters.yaml").load()


def write_table(root: Path, rows: Sequence[Row]) -> None:
    with (root / "raw_data/input.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("id", "group", "question"), *rows])


def make_row(number: int, words: int | None = None) -> Row:
    words = 5 + number % 17 if words is None else words
    return f"q{number}", f"group {number // GROUP_ROWS}", f"Question {number}, " + "and why? " * words


def edited(row: Row) -> Row:
    return (*row[:2], row[2] + " (edited)")


def request_length(batch: Batch, item: WorkItem) -> int:
    return sum(len(message.content) for message in batch.conversations.generate(item, ""))


def default_bill(length: int, _: random.Random) -> list[tuple[int, int]]:
    return [(length // 4, 20)]


def fill_cache(batch: Batch, items: Iterable[WorkItem], bill: Bill, chance: random.Random) -> None:
    """Write artifacts, provenance and ledger as a run of these items leaves them."""
    folder = batch.path(batch.layout.provenance)
    keep_provenance(folder, batch.provenance())
    note_use(folder, IdentityUse(AT, batch.source.identity.sha, batch.item_settings_sha()))
    outputs = batch.path(batch.layout.llm_outputs)
    outputs.mkdir(parents=True, exist_ok=True)
    with batch.path(batch.layout.ledger).open("wb") as ledger:
        for item in items:
            calls = bill(request_length(batch, item), chance)
            meta = batch.source.meta(item, 1, AT)
            output = AcceptedOutput(
                meta=meta, parsed={"answer": "x" * 60}, judge=None, usage=_usage(*calls[-1]), latency_sec=0.3
            )
            (outputs / f"{meta['cache_id']}.json").write_bytes(json_bytes(output.model_dump(mode="json")))
            for call in calls:
                ledger.write(canonical_json(_record(meta, _usage(*call)).model_dump(mode="json")).encode() + b"\n")


def _usage(input_tokens: int, output_tokens: int) -> TokenUsage:
    return TokenUsage(requests=1, input_tokens=input_tokens, output_tokens=output_tokens, cost_usd=0.0)


def _record(meta: dict[str, Any], usage: TokenUsage) -> CallRecord:
    return CallRecord(
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


def items_of(batch: Batch) -> list[WorkItem]:
    return plan_work(batch.read_snapshot(), batch.parameters).items


def plan(root: Path) -> dict[str, Any]:
    config = str(root / "configs/parameters.yaml")
    shown = CliRunner().invoke(llmbatch, ["plan", "--json", "--config", config], catch_exceptions=False)
    return dict(json.loads(shown.stdout))


# Time.


def measure_time(root: Path, case: str) -> dict[str, object]:
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
        "headline": shown.splitlines()[0].partition(": ")[2],
    }


def measure_times(count: int) -> Iterable[dict[str, object]]:
    for grouped in (False, True):
        kind = "in groups" if grouped else "row by row"
        with tempfile.TemporaryDirectory() as folder:
            root, rows = Path(folder), [make_row(number) for number in range(count)]
            batch = make_project(root, rows, grouping={"enabled": grouped, "column": "group"})
            fill_cache(batch, items_of(batch), default_bill, random.Random(0))
            yield measure_time(root, f"{count} items {kind}, all cached")
            write_table(root, [edited(row) if number % 100 == 0 else row for number, row in enumerate(rows)])
            yield measure_time(root, f"{count} items {kind}, every 100th row edited")
            (root / "prompts/generation.yaml").write_text(yaml.safe_dump(OTHER_PROMPT))
            yield measure_time(root, f"{count} items {kind}, prompt changed, too")


# Reasons.


class Edits(NamedTuple):
    """The table after random edits, and the right reason of each row that was touched, by id."""

    rows: list[Row]
    reasons: dict[str, str]
    touched_groups: set[str]


def edit_table(rows: Sequence[Row], shares: dict[str, float], chance: random.Random) -> Edits:
    """Edit, delete, swap or insert before each row with these probabilities. Swaps stay within the group."""
    result, reasons, groups = list[Row](), dict[str, str](), set[str]()
    for row in rows:
        kind = chance.choices(["none", *shares], [1 - sum(shares.values()), *shares.values()])[0]
        groups |= {row[1]} if kind != "none" else set()
        if kind == "insert":
            result.append((f"n{row[0]}", row[1], f"A new question {row[0]}"))
            reasons[f"n{row[0]}"] = "new_row"
        if kind == "edit":
            reasons[row[0]] = "row_changed"
        if kind != "delete":
            result.append(edited(row) if kind == "edit" else row)
        if kind == "swap" and len(result) > 1 and result[-2][1] == row[1]:
            result[-2:] = result[:-3:-1]
    return Edits(result, reasons, groups)


EDITS: dict[str, dict[str, float]] = {
    "5 % edited": {"edit": 0.05},
    "5 % edited, 2 % inserted, 2 % deleted, 2 % swapped": {"edit": 0.05, "insert": 0.02, "delete": 0.02, "swap": 0.02},
    "20 % edited, 10 % inserted, 10 % deleted": {"edit": 0.2, "insert": 0.1, "delete": 0.1},
}
TABLES: dict[str, dict[str, dict[str, Any]]] = {
    "row by row": {},
    "row by row, labels": {"work_items": {"label_column": "id"}},
    "in groups": {"grouping": {"enabled": True, "column": "group"}},
}


def measure_reasons(count: int = 2_000) -> Iterable[dict[str, object]]:
    rows = [make_row(number) for number in range(count)]
    for table, blocks in TABLES.items():
        for name, shares in EDITS.items():
            with tempfile.TemporaryDirectory() as folder:
                batch = make_project(Path(folder), rows, **blocks)
                fill_cache(batch, items_of(batch), default_bill, random.Random(0))
                edits = edit_table(rows, shares, random.Random(1))
                write_table(Path(folder), edits.rows)
                found = {edits.rows[item["row_index"]][0]: item["reasons"] for item in plan(Path(folder))["items"]}
            expected = dict(edits.reasons)
            if "grouping" in blocks:
                expected = {
                    row[0]: edits.reasons.get(row[0], "sibling_changed")
                    for row in edits.rows
                    if row[1] in edits.touched_groups
                }
            every = found.keys() | expected.keys()
            right = sum(found.get(row) == [expected.get(row)] for row in every)
            yield {"case": f"{count} rows {table}, {name}", "items": len(every), "right": round(right / len(every), 3)}


# Estimates.


def _proportional(length: int, _: random.Random) -> list[tuple[int, int]]:
    return [(length // 4, length // 20)]


def _fixed_part(length: int, _: random.Random) -> list[tuple[int, int]]:
    return [(300 + length // 4, 40)]


def _other_script(length: int, chance: random.Random) -> list[tuple[int, int]]:
    return [(round(150 + length / 2.5), round((30 + length / 20) * chance.gauss(1, 0.1)))]


def _noisy(length: int, chance: random.Random) -> list[tuple[int, int]]:
    calls = 2 if chance.random() < 0.15 else 1
    return [(round(60 + length / 3.7 * chance.gauss(1, 0.05)), round(chance.lognormvariate(4.5, 0.5)))] * calls


def _thinking(length: int, chance: random.Random) -> list[tuple[int, int]]:
    return [(length // 4, round(60 + chance.lognormvariate(5, 1)))]


class Case(NamedTuple):
    """A way of billing. ``sorted_rows``: the sample is the 20 shortest rows. ``other_prompt``: the sample had another one."""

    bill: Bill
    sorted_rows: bool = False
    other_prompt: bool = False


CASES = {
    "proportional to length": Case(_proportional),
    "fixed part and proportional": Case(_fixed_part),
    "another script, fixed part": Case(_other_script),
    "noisy, 15 % retries": Case(_noisy),
    "very noisy answers": Case(_thinking),
    "proportional, sample of the shortest": Case(_proportional, sorted_rows=True),
    "fixed part, sample of the shortest": Case(_fixed_part, sorted_rows=True),
    "noisy, sample of the shortest": Case(_noisy, sorted_rows=True),
    "noisy, other prompt": Case(_noisy, other_prompt=True),
}


def measure_estimates(trials: int = 25, sample: int = 20, rest: int = 500) -> Iterable[dict[str, object]]:
    for name, case in CASES.items():
        results = [_estimate(case, random.Random(seed), sample, rest) for seed in range(trials)]
        yield {
            "case": name,
            "median_error": round(median(abs(likely / paid - 1) for (_, likely, _), paid in results), 3),
            "worst_error": round(max(abs(likely / paid - 1) for (_, likely, _), paid in results), 3),
            "within": round(mean(low <= paid <= high for (low, _, high), paid in results), 2),
            "mean_width": round(mean((high - low) / likely for (low, likely, high), _ in results), 2),
        }


def _estimate(case: Case, chance: random.Random, sample: int, rest: int) -> tuple[tuple[float, float, float], float]:
    """Low, likely and high cost of the rest after a sample, and its simulated bill."""
    words = [round(chance.lognormvariate(4, 0.5)) for _ in range(sample + rest)]
    rows = [make_row(number, count) for number, count in enumerate(sorted(words) if case.sorted_rows else words)]
    with tempfile.TemporaryDirectory() as folder:
        batch = make_project(Path(folder), rows)
        items = items_of(batch)
        fill_cache(batch, items[:sample], case.bill, chance)
        if case.other_prompt:
            (Path(folder) / "prompts/generation.yaml").write_text(yaml.safe_dump(OTHER_PROMPT))
        cost = plan(Path(folder))["estimate"]["cost_usd"]
        to_pay = items if case.other_prompt else items[sample:]
        calls = [call for item in to_pay for call in case.bill(request_length(batch, item), chance)]
    paid = sum(asked * PRICES["input"] + said * PRICES["output"] for asked, said in calls) / 1_000_000
    return (cost["low"], cost["likely"], cost["high"]), paid


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else ROWS
    results: dict[str, list[dict[str, object]]] = {"time": [], "reasons": [], "estimates": []}
    measured = {"time": measure_times(count), "reasons": measure_reasons(), "estimates": measure_estimates()}
    for name, cases in measured.items():
        for case in cases:
            results[name].append(case)
            print(json.dumps(case), flush=True)
    path = Path(__file__).parent / "results/plan.json"
    path.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
