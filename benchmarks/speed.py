"""Measure the speed of a batch, and compare it with bare loops that make the same calls.

    python -m benchmarks.speed [--cases PATTERN ...] [--rounds 5] [--large] [--huge]

Prints a table and writes benchmarks/results/speed.json. Case names look like ``fresh-5000-100ms-64`` (items, latency of the
server, calls in flight), with ``-judge`` where the judge is on; ``--cases 'fresh-5000-*' startup`` chooses among them.
Contenders of a case take turns, each run in processes of its own; the server's time is not counted.
"""

from __future__ import annotations

import argparse
import asyncio
import fnmatch
import hashlib
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.fake_server import ceiling, serving
from benchmarks.processes import Taken, timed
from llmbatch_assets_tests.project import Project, make_project

RESULTS = Path(__file__).parent / "results/speed.json"
CLI = (sys.executable, "-m", "llmbatch_assets.cli")
LOOPS = ("aiohttp", "openai")
OLD_ARTIFACTS = 1_000_000
Result = dict[str, Any]


class Fresh(NamedTuple):
    """A batch of which nothing is done."""

    items: int
    delay: float
    workers: int
    judge: bool = False

    @property
    def name(self) -> str:
        return f"fresh-{self.items}-{round(self.delay * 1000)}ms-{self.workers}{'-judge' if self.judge else ''}"

    @property
    def ideal(self) -> float:
        """Seconds that the calls take where nothing else takes any."""
        return self.items * self.delay / self.workers * (2 if self.judge else 1)


USUAL = [
    Fresh(items, delay, workers, judge)
    for items in (1_000, 5_000)
    for delay in (0.0, 0.1)
    for workers in (64, 256)
    for judge in (False, True)
]
LARGE = [Fresh(20_000, 0.0, 64), Fresh(100_000, 0.0, 64)]


def project_of(folder: Path, port: int, case: Fresh) -> Project:
    """A project whose table has so many rows, about 200 bytes each."""
    project = make_project(
        folder,
        f"http://127.0.0.1:{port}/v1",
        llm={"max_workers": case.workers},
        prompts={"judge": {"enabled": case.judge}},
    )
    project.table([(f"x{n}", f"team {n // 10}", f"Question number {n}? " + "word " * 30) for n in range(case.items)])
    return project


def run(project: Project, *arguments: str) -> Taken:
    """The command line, whole; raises where it fails."""
    return _checked(timed([*CLI, *(arguments or ("run",))], project.root, project.environment()), project)


def run_loop(project: Project, loop: str, port: int, case: Fresh) -> Taken:
    """A bare loop on the same project."""
    command = [sys.executable, "-m", "benchmarks.bare_loops", loop, f"http://127.0.0.1:{port}/v1"]
    environment = project.environment(PYTHONPATH=str(Path(__file__).parents[1]))
    return _checked(timed([*command, str(project.root), str(case.workers)], project.root, environment), project)


def _checked(taken: Taken, project: Project) -> Taken:
    if taken.exit_code:
        raise SystemExit((project.root / "last_run.log").read_text())
    return taken


def generate_sec(project: Project) -> float:
    """Seconds of the generate stage alone, as its manifest tells."""
    return float(project.json("artifacts/cache/pipeline4_manifest.json")["meta"]["elapsed_sec"])


def fresh(case: Fresh, loops: Sequence[str], rounds: int) -> Result:
    """The product against the bare loops, in turn."""
    runs: dict[str, list[Taken]] = {}
    stage: list[float] = []
    with serving(case.delay) as port:
        for _ in range(rounds):
            for contender in ("llmbatch", *loops):
                with tempfile.TemporaryDirectory() as folder:
                    project = project_of(Path(folder), port, case)
                    taken = run(project) if contender == "llmbatch" else run_loop(project, contender, port, case)
                    stage += [generate_sec(project)] if contender == "llmbatch" else []
                    runs.setdefault(contender, []).append(taken)
    told = {contender: summary(of_it, case.items) for contender, of_it in runs.items()}
    told["llmbatch"]["generate_sec"] = round(statistics.median(stage), 2)
    told["llmbatch"]["generate_sec_spread"] = [round(min(stage), 2), round(max(stage), 2)]
    ratios: Result = {"ideal_sec": round(case.ideal, 2)}
    if case.ideal:
        ratios["generate_of_ideal"] = round(statistics.median(stage) / case.ideal, 2)
    if "openai" in told:
        ratios["generate_of_openai_loop"] = round(statistics.median(stage) / told["openai"]["seconds"], 2)
    return {"case": case.name, **ratios, **told}


def summary(runs: list[Taken], items: int) -> Result:
    """Medians and spreads of some runs."""
    seconds = [one.seconds for one in runs]
    cpu = statistics.median(one.cpu_seconds for one in runs)
    return {
        "rounds": len(runs),
        "seconds": round(statistics.median(seconds), 2),
        "seconds_spread": [round(min(seconds), 2), round(max(seconds), 2)],
        "cpu_sec": round(cpu, 2),
        "cpu_ms_per_item": round(cpu / items * 1000, 3),
        "peak_mb": round(max(one.peak_mb for one in runs)),
    }


def cached(items: int, rounds: int) -> Result:
    """A batch that is done already."""
    case = Fresh(items, 0.0, 64)
    with tempfile.TemporaryDirectory() as folder, serving(0) as port:
        project = project_of(Path(folder), port, case)
        run(project)
        return {"case": f"cached-{items}", "llmbatch": summary([run(project) for _ in range(rounds)], items)}


def startup(rounds: int) -> Result:
    """Nothing to do, 50 items; and what the slowest imports take."""
    told = cached(50, rounds)
    modules = "import dagster, llmbatch_assets.cli.stage_runner"
    lines = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", modules], capture_output=True, text=True, check=True
    ).stderr.splitlines()
    imports = {name: total / 1e6 for name, total in map(_import_line, lines[1:])}
    slowest = sorted(imports, key=lambda name: -imports[name])[:12]
    return {**told, "case": "startup", "imports_sec": {name: round(imports[name], 2) for name in slowest}}


def _import_line(line: str) -> tuple[str, int]:
    _, total, name = line.removeprefix("import time:").split("|")
    return name.strip(), int(total)


def plan(rounds: int) -> Result:
    """What ``llmbatch plan`` takes at 20,000 items."""
    if subprocess.run([*CLI, "plan", "--help"], capture_output=True, check=False).returncode:
        return {"case": "plan-20000", "skipped": "there is no command `llmbatch plan`"}
    case = Fresh(20_000, 0.0, 64)
    with tempfile.TemporaryDirectory() as folder:
        project = project_of(Path(folder), 1, case)
        return {"case": "plan-20000", "llmbatch": summary([run(project, "plan") for _ in range(rounds)], case.items)}


def huge(rounds: int) -> Result:
    """The generate stage with nothing to do, without and with a million artifacts of older batches in its folder."""
    case = Fresh(20_000, 0.0, 64)
    with tempfile.TemporaryDirectory() as folder, serving(0) as port:
        project = project_of(Path(folder), port, case)
        run(project)
        arguments = ("run", "--select", "llm_outputs")
        before = summary([run(project, *arguments) for _ in range(rounds)], case.items)
        outputs = project.path("artifacts/cache/llm_outputs")
        some = next(outputs.glob("*.json"))
        shutil.copy(some, outputs / f"{hashlib.sha1(b'old', usedforsecurity=False).hexdigest()}.json")
        for number in range(OLD_ARTIFACTS):
            (outputs / f"{hashlib.sha1(b'%d' % number, usedforsecurity=False).hexdigest()}.json").touch()
        after = summary([run(project, *arguments) for _ in range(rounds)], case.items)
    ratio = round(after["seconds"] / before["seconds"], 2)
    return {"case": "huge-cache", "llmbatch": after, "without": before, "ratio": ratio}


def cases(*, large: bool, huge_too: bool) -> Iterator[tuple[str, Callable[[int], Result]]]:
    """All cases by name."""
    for case in USUAL:
        # These have no judge.
        yield case.name, partial(fresh, case, () if case.judge else LOOPS)
    yield "cached-5000", partial(cached, 5_000)
    yield "startup", startup
    yield "plan-20000", plan
    if large:
        for case in LARGE:
            yield case.name, partial(once, partial(fresh, case, ()))
            yield f"cached-{case.items}", partial(once, partial(cached, case.items))
    if huge_too:
        yield "huge-cache", lambda rounds: huge(min(rounds, 3))


def once(measure: Callable[[int], Result], _rounds: int) -> Result:
    """A case that takes long enough to be measured once."""
    return measure(1)


def lines(result: Result) -> Iterator[str]:
    """A result as rows of the printed table."""
    contenders = {name: told for name, told in result.items() if isinstance(told, dict) and "seconds" in told}
    if not contenders:
        yield f"{result['case']:28} {result.get('skipped', '')}"
    for name, told in contenders.items():
        yield (
            f"{result['case']:28} {name:9} {told['seconds']:8.2f} s  generate {told.get('generate_sec', '-'):>7} s  "
            f"{told['cpu_ms_per_item']:8.3f} cpu ms/item  {told['peak_mb']:5} MB"
        )


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=["*"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--large", action="store_true", help="also 20,000 and 100,000 items, once each")
    parser.add_argument("--huge", action="store_true", help="also a million artifacts of older batches")
    options = parser.parse_args()
    with serving(0) as port:
        served = round(asyncio.run(ceiling(port)))
    print(f"the server's own ceiling: {served} calls a second")
    for name, measure in cases(large=options.large, huge_too=options.huge):
        if any(fnmatch.fnmatch(name, pattern) for pattern in options.cases):
            result = measure(options.rounds)
            print("\n".join(lines(result)), flush=True)
            keep(result, served)


def keep(result: Result, served: int) -> None:
    """Put a case into the file of results; others stay as they were measured before."""
    before = json.loads(RESULTS.read_text())["cases"] if RESULTS.exists() else []
    others = [one for one in before if one["case"] != result["case"]]
    told = {"server_calls_per_sec": served, "cases": [*others, result]}
    RESULTS.write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()
