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

WORDS = [
    "amber",
    "birch",
    "cedar",
    "delta",
    "ember",
    "fjord",
    "grove",
    "harbor",
    "iris",
    "jade",
    "kelp",
    "linen",
    "maple",
    "night",
    "ocean",
    "pearl",
]
COLUMNS = ["id", "group", "question", "skill", "note"]
GROUP_ROWS = 10
ROUNDS = 3


def rows(count: int) -> list[list[str]]:
    """A table of five columns, about 185 bytes a row, groups of ten; the same one every time."""
    draw = random.Random(1)
    groups = max(count // GROUP_ROWS, 1)
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


def parameters(path: Path, *, grouped: bool = True) -> object:
    """The configuration that is measured."""
    from llmbatch_assets.domain.parameters import read_parameters

    grouping = {"enabled": True, "column": "group", "mode": "row_output_with_group_context"} if grouped else {}
    return read_parameters({"input": {"path": str(path)}, "grouping": grouping})


def pipeline(path: Path, out: Path) -> None:
    """Ours: table to snapshot, contexts and work items on disk."""
    from pydantic import TypeAdapter

    from llmbatch_assets.adapters.files import write_json
    from llmbatch_assets.adapters.readers import read_table
    from llmbatch_assets.domain.grouping import make_plan
    from llmbatch_assets.domain.table import take_snapshot
    from llmbatch_assets.domain.work import GroupContext, work_items_of

    settings = parameters(path)
    snapshot = take_snapshot(read_table(path, settings.input), str(path), settings.input)
    write_json(out / "input.json", snapshot.model_dump(mode="json"))
    plan = make_plan(snapshot, settings)
    contexts = TypeAdapter(list[GroupContext]).dump_python(plan.contexts, mode="json")
    write_json(out / "contexts.json", contexts)
    write_json(out / "items.json", work_items_of(plan, settings, "contexts.json").model_dump(mode="json"))


def pandas_and_json(path: Path, out: Path) -> None:
    """The baseline: ``read_csv(dtype=str)`` and ``json.dumps`` of the same rows."""
    import pandas as pd

    (out / "rows.json").write_text(json.dumps(pd.read_csv(path, dtype=str, keep_default_na=False).to_dict("records")))


def xlsx(path: Path, out: Path) -> None:
    """Ours: a workbook read to cleaned rows."""
    from llmbatch_assets.adapters.readers import read_table
    from llmbatch_assets.domain.parameters import Input
    from llmbatch_assets.domain.table import take_snapshot

    take_snapshot(read_table(path, Input()), str(path), Input())


def calamine_alone(path: Path, out: Path) -> None:
    """The baseline: calamine's own read."""
    import python_calamine

    python_calamine.CalamineWorkbook.from_path(str(path)).get_sheet_by_index(0).to_python()


CASES: dict[str, Callable[[Path, Path], None]] = {
    case.__name__: case for case in (pipeline, pandas_and_json, xlsx, calamine_alone)
}


def measured(case: str, path: Path) -> tuple[float, float]:
    """Median seconds (imports apart) and peak MB of a case, each round in a fresh process."""
    runs = []
    for _ in range(ROUNDS):
        command = [sys.executable, __file__, "--case", case, "--path", str(path)]
        runs.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    return statistics.median(run["seconds"] for run in runs), max(run["peak_mb"] for run in runs)


def one_case(case: str, path: Path) -> None:
    """Run a case in this process and print what it took."""
    import pandas  # noqa: F401  # imported here, so that no case pays for it
    import python_calamine  # noqa: F401

    import llmbatch_assets.adapters.readers
    import llmbatch_assets.domain.grouping  # noqa: F401

    with tempfile.TemporaryDirectory() as out:
        started = time.perf_counter()
        CASES[case](path, Path(out))
        seconds = time.perf_counter() - started
        sizes = {file.name: file.stat().st_size for file in Path(out).iterdir()}
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "peak_mb": peak_mb, "sizes": sizes}))


def dedup(count: int) -> float:
    """Percent that both artifacts are smaller than items that each hold their group's context."""
    from pydantic import TypeAdapter

    from llmbatch_assets.adapters.files import json_bytes
    from llmbatch_assets.domain.grouping import make_plan
    from llmbatch_assets.domain.table import RawTable, take_snapshot
    from llmbatch_assets.domain.work import GroupContext, work_items_of

    settings = parameters(Path("input.csv"))
    snapshot = take_snapshot(RawTable(COLUMNS, rows(count), "csv"), "input.csv", settings.input)
    plan = make_plan(snapshot, settings)
    texts = {context.group_context_id: context.context for context in plan.contexts}
    items = work_items_of(plan, settings, "contexts.json").model_dump(mode="json")
    shared = len(json_bytes(items)) + len(json_bytes(TypeAdapter(list[GroupContext]).dump_python(plan.contexts)))
    for item in items["items"]:
        item["group_context"] = texts[item["group_context_id"]]
    return round(100 * (1 - shared / len(json_bytes(items))), 1)


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
            ours, baseline = measured("pipeline", path), measured("pandas_and_json", path)
            results.append(_line(f"csv, {count} rows, to work items", ours, baseline, path.stat().st_size))
        path = Path(folder) / "table.xlsx"
        import pandas as pd

        pd.DataFrame(rows(50_000), columns=COLUMNS).to_excel(path, index=False)
        results.append(
            _line(
                "xlsx, 50000 rows, read and cleaned",
                measured("xlsx", path),
                measured("calamine_alone", path),
                path.stat().st_size,
            )
        )
    for count in (50, 20_000):
        results.append({"case": f"dedup, {count} rows in groups of {GROUP_ROWS}", "percent_smaller": dedup(count)})
    for line in results:
        print("  ".join(f"{key}={value}" for key, value in line.items()))
    target = Path(__file__).with_name("results") / "tables.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(results, indent=2) + "\n")


def _line(case: str, ours: tuple[float, float], baseline: tuple[float, float], size: int) -> dict[str, object]:
    return {
        "case": case,
        "seconds": round(ours[0], 2),
        "baseline_seconds": round(baseline[0], 2),
        "ratio": round(ours[0] / baseline[0], 2),
        "peak_mb": round(ours[1]),
        "baseline_peak_mb": round(baseline[1]),
        "input_mb": round(size / 1e6, 1),
    }


if __name__ == "__main__":
    main()
