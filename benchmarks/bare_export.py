"""The export without a framework: rows and outputs are joined and written with csv and orjson, byte for byte as by ours.

    python -m benchmarks.bare_export PROJECT

The project is one of ``benchmarks.exports``; the files lie in the folder `bare` of it. Nothing is validated.
"""

from __future__ import annotations

import csv
import json
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

BEFORE = ("work_id", "row_index", "group_key", "group_context_id")
FIELDS = ("answer", "certain", "rating", "tags", "source")
JUDGE = ("judge_verdict", "judge_score", "judge_reasons_json")
AFTER = ("cache_id", "provider", "model", "temperature", "created_at_utc")
Record = dict[str, Any]


def export(root: Path) -> None:
    """Write the three files."""
    with (root / "raw_data/input.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    outputs = [orjson.loads(path.read_bytes()) for path in (root / "artifacts/cache/llm_outputs").iterdir()]
    outputs.sort(key=lambda output: int(output["meta"]["row_index"]))
    folder = root / "bare"
    folder.mkdir(exist_ok=True)
    header = [*rows[0], *(f"meta_{key}" for key in BEFORE), *FIELDS, *JUDGE, *(f"meta_{key}" for key in AFTER)]
    with (
        (folder / "output.csv").open("w", newline="", encoding="utf-8") as comma_file,
        (folder / "output.psv").open("w", newline="", encoding="utf-8") as pipe_file,
        (folder / "output.jsonl").open("wb") as lines_file,
    ):
        comma = csv.writer(comma_file, lineterminator="\n")
        pipe = csv.writer(
            pipe_file, delimiter="|", quoting=csv.QUOTE_NONE, quotechar=None, escapechar="\\", lineterminator="\n"
        )
        comma.writerow(header)
        pipe.writerow(header)
        for output in outputs:
            record = {
                "input": rows[output["meta"]["row_index"]],
                **{key: output[key] for key in ("judge", "meta", "parsed")},
            }
            line = list(cells(record))
            comma.writerow(line)
            pipe.writerow(line)
            lines_file.write(orjson.dumps(record, option=orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE))


def cells(record: Record) -> Iterator[str]:
    """The cells of a row: its columns, its output and where that is from. There is no verdict."""
    meta, parsed = record["meta"], record["parsed"]
    yield from record["input"].values()
    yield from (text(meta[key]) for key in BEFORE)
    yield from (text(parsed[key]) for key in FIELDS)
    yield from ("" for _ in JUDGE)
    yield from (text(meta[key]) for key in AFTER)


def text(value: Any) -> str:
    """A value as the text of a cell."""
    if isinstance(value, str):
        return value
    return "" if value is None else orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


if __name__ == "__main__":
    started, worked = time.perf_counter(), time.process_time()
    export(Path(sys.argv[1]))
    took = {"seconds": time.perf_counter() - started, "cpu_sec": time.process_time() - worked}
    print(json.dumps({**took, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
