"""Tables in, work items out: time and memory against the plain tools, and what sharing contexts saves.

    python benchmarks/tables.py            prints a table and writes benchmarks/results/tables.json

Every measurement runs in a process of its own; a baseline is measured beside each, in the same run.
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
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import openpyxl
import python_calamine as calamine

from llmbatch_assets.adapters.files.atomic import json_bytes, write_json_if_changed
from llmbatch_assets.adapters.tables.formats import read_table
from llmbatch_assets.domain.configuration.input_blocks import Input
from llmbatch_assets.domain.configuration.parameters import Parameters, read_parameters
from llmbatch_assets.domain.items.grouping import plan_work
from llmbatch_assets.domain.items.table import RawTable, take_snapshot
from llmbatch_assets.domain.items.work import work_items_of

WORDS = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "harbor", "iris", "jade", "kelp", "linen")
COLUMNS = ["id", "group", "question", "skill", "note"]
GROUP_ROWS = 10
ROUNDS = 3


def rows(count: int, group_rows: int = GROUP_ROWS) -> list[list[str]]:
    """A table of five columns, about 185 bytes a row, in groups; the same one every time."""
    draw = random.Random(1)
    groups = max(count // group_rows, 1)
    return [
        [
            f"q{n}",
            f"group {n % groups}",
            " ".join(draw.choices(WORDS, k=14)),
            draw.choice(WORDS),
            " ".join(draw.choices(WORDS, k=14)),
        ]
        for n in range(count)
    ]


def write_csv(path: Path, count: int) -> None:
    """The table as csv."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([COLUMNS, *rows(count)])


def write_xlsx(path: Path, count: int) -> None:
    """The table as a workbook."""
    workbook = openpyxl.Workbook(write_only=True)
    sheet = workbook.create_sheet()
    for row in [COLUMNS, *rows(count)]:
        sheet.append(row)
    workbook.save(path)


def parameters(path: Path, shown_rows: int = 0) -> Parameters:
    """The configuration that is measured: every row an item, beside the context of its group."""
    grouping = {"enabled": True, "column": "group", "max_rows_per_group": shown_rows}
    return read_parameters({"input": {"path": str(path)}, "grouping": grouping})


def pipeline(path: Path, out: Path) -> None:
    """Ours: table to snapshot, contexts and work items on disk."""
    settings = parameters(path)
    snapshot = take_snapshot(read_table(path, settings.input), str(path), settings.input)
    write_json_if_changed(out / "snapshot.json", snapshot)
    plan = plan_work(snapshot, settings)
    write_json_if_changed(out / "contexts.json", plan.contexts)
    write_json_if_changed(out / "items.json", work_items_of(plan, settings, "contexts.json"))


def pandas_and_json(path: Path, out: Path) -> None:
    """The baseline: ``read_csv(dtype=str)`` and ``json.dumps`` of the same rows."""
    import pandas as pd  # here, so that ours does not have its memory

    (out / "rows.json").write_text(json.dumps(pd.read_csv(path, dtype=str, keep_default_na=False).to_dict("records")))


def xlsx(path: Path, out: Path) -> None:
    """Ours: a workbook read to cleaned rows."""
    take_snapshot(read_table(path, Input()), str(path), Input())


def calamine_alone(path: Path, out: Path) -> None:
    """The baseline: calamine's own read."""
    calamine.CalamineWorkbook.from_path(str(path)).get_sheet_by_index(0).to_python()


CASES: dict[str, Callable[[Path, Path], None]] = {
    case.__name__: case for case in (pipeline, pandas_and_json, xlsx, calamine_alone)
}


class Measured(NamedTuple):
    """What a case took: median seconds, peak MB, and the bytes of its files by name."""

    seconds: float
    peak_mb: float
    sizes: dict[str, int]


def measured(path: Path, *cases: str) -> list[Measured]:
    """Cases in turn, in rounds, each in a fresh process."""
    runs: dict[str, list[Measured]] = {case: [] for case in cases}
    for _ in range(ROUNDS):
        for case in cases:
            command = [sys.executable, __file__, "--case", case, "--path", str(path)]
            told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            runs[case].append(Measured(**json.loads(told)))
    return [
        Measured(
            statistics.median(run.seconds for run in of_case), max(run.peak_mb for run in of_case), of_case[0].sizes
        )
        for of_case in runs.values()
    ]


def one_case(case: str, path: Path) -> None:
    """Run a case in this process and print what it took, imports apart."""
    if case == "pandas_and_json":
        import pandas  # noqa: F401
    with tempfile.TemporaryDirectory() as out:
        started = time.perf_counter()
        CASES[case](path, Path(out))
        seconds = time.perf_counter() - started
        sizes = {file.name: file.stat().st_size for file in Path(out).iterdir()}
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "peak_mb": peak_mb, "sizes": sizes}))


def dedup(count: int, group_rows: int) -> float:
    """Percent that both artifacts are smaller than items that each hold their group's context of ten rows."""
    settings = parameters(Path("input.csv"), shown_rows=GROUP_ROWS)
    snapshot = take_snapshot(RawTable(COLUMNS, rows(count, group_rows), "csv"), "input.csv", settings.input)
    plan = plan_work(snapshot, settings)
    texts = {context.group_context_id: context.context for context in plan.contexts}
    kept = json.loads(json_bytes(work_items_of(plan, settings, "contexts.json")))
    shared = len(json_bytes(kept)) + len(json_bytes(plan.contexts))
    for item in kept["items"]:
        item["group_context"] = texts[item["group_context_id"]]
    return round(100 * (1 - shared / len(json_bytes(kept))), 1)


def main() -> None:
    """Measure everything, print it, keep it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case")
    parser.add_argument("--path", type=Path)
    arguments = parser.parse_args()
    if arguments.case:
        one_case(arguments.case, arguments.path)
        return
    results: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        for count in (20_000, 100_000, 200_000):
            path = Path(folder) / f"{count}.csv"
            write_csv(path, count)
            ours, baseline = measured(path, "pipeline", "pandas_and_json")
            snapshot_mb = ours.sizes["snapshot.json"] / 2**20
            of_snapshot = {"snapshot_mb": round(snapshot_mb), "peak_of_snapshot": round(ours.peak_mb / snapshot_mb, 2)}
            results.append({**_line(f"csv, {count} rows, to work items", ours, baseline), **of_snapshot})
        path = Path(folder) / "table.xlsx"
        write_xlsx(path, 50_000)
        results.append(_line("xlsx, 50000 rows, read and cleaned", *measured(path, "xlsx", "calamine_alone")))
    for count, group_rows in ((50, 10), (20_000, 10), (20_000, 200)):
        case = f"dedup, {count} rows in groups of {group_rows}, ten of them shown"
        results.append({"case": case, "percent_smaller": dedup(count, group_rows)})
    for line in results:
        print("  ".join(f"{key}={value}" for key, value in line.items()))
    target = Path(__file__).with_name("results") / "tables.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(results, indent=2) + "\n")


def _line(case: str, ours: Measured, baseline: Measured) -> dict[str, object]:
    return {
        "case": case,
        "seconds": round(ours.seconds, 2),
        "baseline_seconds": round(baseline.seconds, 2),
        "ratio": round(ours.seconds / baseline.seconds, 2),
        "peak_mb": round(ours.peak_mb),
        "baseline_peak_mb": round(baseline.peak_mb),
    }


if __name__ == "__main__":
    main()
