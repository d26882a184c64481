"""Measure the speed of a batch, and compare it with bare loops and other frameworks that make the same calls.

    python -m benchmarks.speed [--cases PATTERN ...] [--rounds 5] [--large] [--huge]
                               [--curator PYTHON] [--data-designer PYTHON]

Prints a table and writes benchmarks/results/speed.json. ``--cases 'fresh-5000-*' edit-loop-50`` chooses among the cases:

- ``fresh-5000-100ms-64``: a batch of which nothing is done (items, latency of the server, calls in flight), with ``-judge``
  where the judge is on; then the same command again, which has nothing to do;
- ``nothing-to-do-5000``: a batch that is done already, against ``python -c "import dagster"``;
- ``edit-loop-20000``: a batch that is done offline; then the prompt is edited and ``run --limit 5 --offline`` measured;
- ``plan-20000``: ``llmbatch plan``.

Contenders take turns, each in a process of its own; the server's time is not counted. Ratios are of medians. Curator and
Data Designer take part in the case `fresh-5000-100ms-64` where the interpreter of an environment that has them is given.
"""

from __future__ import annotations

import argparse
import asyncio
import fnmatch
import hashlib
import json
import shutil
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from benchmarks.contenders import OURS, Contender, checked, loop, ours, peer, run_ours
from benchmarks.fake_server import calls_made, ceiling, serving
from benchmarks.medians import Result, median, ratio, ratios_to_others, spread, summary
from benchmarks.processes import Taken, timed
from llmbatch_assets_tests.project import GENERATION, Project, make_project

RESULTS = Path(__file__).parent / "results/speed.json"
LOOPS = ("aiohttp", "openai")
OLD_ARTIFACTS = 1_000_000
ROW_BYTES = 820
LIMIT = 5
Measure = Callable[[int], Result]


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
AMONG_PEERS = Fresh(5_000, 0.1, 64)
LARGE = [Fresh(20_000, 0.0, 64), Fresh(100_000, 0.0, 64)]


def project_of(folder: Path, port: int, case: Fresh) -> Project:
    """A project whose table has so many rows, each of ``ROW_BYTES``."""
    project = make_project(
        folder,
        f"http://127.0.0.1:{port}/v1",
        llm={"max_workers": case.workers},
        prompts={"judge": {"enabled": case.judge}},
    )
    project.table(map(row, range(case.items)))
    return project


def row(number: int) -> tuple[str, str, str]:
    """A row of the table; two commas and a line end of two characters complete its ``ROW_BYTES``."""
    name, team = f"x{number}", f"team {number // 10}"
    length = ROW_BYTES - len(name) - len(team) - 4
    return name, team, (f"Question number {number}? " + "word " * (ROW_BYTES // 5))[:length]


def generate_sec(project: Project) -> float:
    """Seconds of the generate stage alone, as its manifest tells."""
    return float(project.json("artifacts/cache/pipeline4_manifest.json")["meta"]["elapsed_sec"])


class Round(NamedTuple):
    """A contender's two runs on one project."""

    first: Taken
    again: Taken
    generate_sec: float


def one_round(contender: Contender, port: int, case: Fresh) -> Round:
    """The batch, and the same command again; raises where calls are missing or made twice."""
    with tempfile.TemporaryDirectory() as folder:
        project = project_of(Path(folder), port, case)
        before = calls_made(port)
        first = contender.run(project, port, case.workers)
        stage = generate_sec(project) if contender.name == OURS else 0.0
        after = calls_made(port)
        again = contender.run(project, port, case.workers)
        wanted = case.items * (2 if case.judge else 1)
        if after - before < wanted or calls_made(port) - after > wanted / 100:
            made = f"{after - before} calls for {case.items} items, then {calls_made(port) - after}"
            raise SystemExit(f"{contender.name} made {made}\n" + (project.root / "last_run.log").read_text())
        return Round(first, again, stage)


def fresh(case: Fresh, contenders: Sequence[Contender], rounds: int) -> Result:
    """The product against others, in turn."""
    made: dict[str, list[Round]] = defaultdict(list)
    with serving(case.delay) as port:
        for _ in range(rounds):
            for contender in (ours(), *contenders):
                made[contender.name].append(one_round(contender, port, case))
    told = {name: summary([one.first for one in of_it], case.items) for name, of_it in made.items()}
    for name, of_it in made.items():
        told[name]["again_sec"] = median(one.again.seconds for one in of_it)
        told[name]["again_cpu_sec"] = median(one.again.cpu_seconds for one in of_it)
    stage = [one.generate_sec for one in made[OURS]]
    told[OURS]["generate_sec"] = median(stage)
    told[OURS]["generate_sec_spread"] = spread(stage)
    ratios = {"ideal_sec": round(case.ideal, 2)}
    if case.ideal:
        ratios["generate_of_ideal"] = ratio(told[OURS]["generate_sec"], case.ideal)
    if "openai" in told:
        ratios["generate_of_openai"] = ratio(told[OURS]["generate_sec"], told["openai"]["seconds"])
    return {"case": case.name, "row_bytes": ROW_BYTES, **ratios, **ratios_to_others(told), **told}


def once(case: Fresh, _rounds: int) -> Result:
    """A batch that takes long enough to be measured once, and alone."""
    return fresh(case, (), 1)


def nothing_to_do(items: int, rounds: int) -> Result:
    """A batch that is done already, in turn with the import of Dagster alone."""
    case = Fresh(items, 0.0, 64)
    mine, imports = [], []
    with tempfile.TemporaryDirectory() as folder, serving(0) as port:
        project = project_of(Path(folder), port, case)
        run_ours(project, "run")
        calls = calls_made(port)
        for _ in range(rounds):
            mine.append(run_ours(project, "run"))
            command = (sys.executable, "-c", "import dagster")
            imports.append(checked(timed(command, project.root, project.environment()), project))
        if calls_made(port) != calls:
            raise SystemExit("there was something to do: " + (project.root / "last_run.log").read_text())
    told = {OURS: summary(mine), "import dagster": summary(imports)}
    ratios = ratios_to_others(told)
    return {"case": f"nothing-to-do-{items}", "row_bytes": ROW_BYTES, **ratios, **told}


def edit_loop(items: int, rounds: int) -> Result:
    """An edit of the prompt and a look at a few answers, where all items had an output before."""
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        project = project_of(Path(folder), 1, Fresh(items, 0.0, 64))
        run_ours(project, "run", "--offline")
        for number in range(rounds):
            outputs = output_count(project)
            project.prompt("generation", {**GENERATION, "user": f"{GENERATION['user']} Edit {number}."})
            runs.append(run_ours(project, "run", "--limit", str(LIMIT), "--offline"))
            if output_count(project) != outputs + LIMIT:
                raise SystemExit((project.root / "last_run.log").read_text())
    return {"case": f"edit-loop-{items}", "row_bytes": ROW_BYTES, OURS: summary(runs)}


def output_count(project: Project) -> int:
    """The number of outputs, of all prompts."""
    return sum(1 for _ in project.path("artifacts/cache/llm_outputs").glob("*.json"))


def plan(rounds: int) -> Result:
    """What ``llmbatch plan`` takes at 20,000 items."""
    case = Fresh(20_000, 0.0, 64)
    with tempfile.TemporaryDirectory() as folder:
        project = project_of(Path(folder), 1, case)
        runs = [run_ours(project, "plan") for _ in range(rounds)]
    return {"case": "plan-20000", "row_bytes": ROW_BYTES, OURS: summary(runs)}


def huge(rounds: int) -> Result:
    """The generate stage with nothing to do, without and with a million artifacts of older batches in its folder."""
    case = Fresh(20_000, 0.0, 64)
    with tempfile.TemporaryDirectory() as folder, serving(0) as port:
        project = project_of(Path(folder), port, case)
        run_ours(project, "run")
        arguments = ("run", "--select", "llm_outputs")
        before = summary([run_ours(project, *arguments) for _ in range(rounds)])
        outputs = project.path("artifacts/cache/llm_outputs")
        some = next(outputs.glob("*.json"))
        shutil.copy(some, outputs / f"{hashlib.sha1(b'old', usedforsecurity=False).hexdigest()}.json")
        for number in range(OLD_ARTIFACTS):
            (outputs / f"{hashlib.sha1(b'%d' % number, usedforsecurity=False).hexdigest()}.json").touch()
        after = summary([run_ours(project, *arguments) for _ in range(rounds)])
    told = {OURS: after, "without": before}
    return {"case": "huge-cache", "row_bytes": ROW_BYTES, **ratios_to_others(told), **told}


def cases(
    peers: Sequence[Contender] = (), *, large: bool = True, huge_too: bool = True
) -> Iterator[tuple[str, Measure]]:
    """All cases by name."""
    loops = [loop(kind) for kind in LOOPS]
    for case in USUAL:
        # Only ours has a judge.
        others = [] if case.judge else [*loops, *peers] if case == AMONG_PEERS else loops
        yield case.name, partial(fresh, case, others)
    for items in (50, 5_000):
        yield f"nothing-to-do-{items}", partial(nothing_to_do, items)
    for items in (50, 20_000):
        yield f"edit-loop-{items}", partial(edit_loop, items)
    yield "plan-20000", plan
    if large:
        for case in LARGE:
            yield case.name, partial(once, case)
            yield f"nothing-to-do-{case.items}", partial(nothing_to_do, case.items)
    if huge_too:
        yield "huge-cache", lambda rounds: huge(min(rounds, 3))


def lines(result: Result) -> Iterator[str]:
    """A result as rows of the printed table, and its ratios."""
    for name, told in result.items():
        if isinstance(told, dict):
            yield f"{result['case']:28} {name:14} " + "  ".join(columns(told))
    ratios = [f"{key.replace('_', ' ')} {figure}" for key, figure in result.items() if "_of_" in key]
    if ratios:
        yield f"{result['case']:28} " + ", ".join(ratios)


def columns(told: Result) -> Iterator[str]:
    """The figures of one contender."""
    yield f"{told['seconds']:7.2f} s  {told['cpu_sec']:7.2f} CPU s  {told['peak_mb']:4} MB ({told['peak_pss_mb']} PSS)"
    if "again_sec" in told:
        yield f"again {told['again_sec']:6.2f} s"
    if "generate_sec" in told:
        yield f"generate {told['generate_sec']:6.2f} s"


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=["*"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--large", action="store_true", help="also 20,000 and 100,000 items; done from nothing once each"
    )
    parser.add_argument("--huge", action="store_true", help="also a million artifacts of older batches")
    parser.add_argument("--curator", type=Path, metavar="PYTHON", help="the interpreter of an environment with Curator")
    parser.add_argument("--data-designer", type=Path, metavar="PYTHON", help="the same with Data Designer")
    options = parser.parse_args()
    pythons = {"curator": options.curator, "data-designer": options.data_designer}
    peers = [peer(name, python.absolute()) for name, python in pythons.items() if python]
    with serving(0) as port:
        served = round(asyncio.run(ceiling(port)))
    print(f"the server's own ceiling: {served} calls a second")
    for name, measure in cases(peers, large=options.large, huge_too=options.huge):
        if any(fnmatch.fnmatch(name, pattern) for pattern in options.cases):
            if name == AMONG_PEERS.name:
                print_missing(pythons)
            result = measure(options.rounds)
            print("\n".join(lines(result)), flush=True)
            keep(result, served)


def print_missing(pythons: Mapping[str, Path | None]) -> None:
    """Say which frameworks are left out."""
    for name, python in pythons.items():
        if python is None:
            print(f"without {name}: give the interpreter of an environment that has it with --{name} PYTHON")


def keep(result: Result, served: int) -> None:
    """Put a case into the file of results; others stay as they were measured before, if they are still measured so."""
    before = json.loads(RESULTS.read_text())["cases"] if RESULTS.exists() else []
    known = {name for name, _ in cases()} - {result["case"]}
    others = [one for one in before if one["case"] in known and one.get("row_bytes") == ROW_BYTES]
    told = {"server_calls_per_sec": served, "cases": [*others, result]}
    RESULTS.write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()
