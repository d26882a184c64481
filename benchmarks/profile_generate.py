"""Profile the generate stage, in the process that makes the calls.

    python -m benchmarks.profile_generate [--items 1500]

Prints the functions with the most cumulative time and writes benchmarks/results/profile_generate.txt. The server answers at
once, with 64 calls in flight.
"""

from __future__ import annotations

import argparse
import cProfile
import io
import pstats
import re
import sysconfig
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.fake_server import serving
from benchmarks.speed import Fresh, project_of
from llmbatch_assets.stages.generate.run import GenerateRun

RESULTS = Path(__file__).parent / "results/profile_generate.txt"
MOST_LINES = 75
PREFIXES = {
    r"\S*/site-packages/": "",
    re.escape(f"{sysconfig.get_path('stdlib')}/"): "python/",
    re.escape(f"{Path(__file__).parents[1]}/"): "",
}


def profile_of(items: int) -> cProfile.Profile:
    """The profile of the stage while ``llmbatch run`` does a batch."""
    profile, generate = cProfile.Profile(), GenerateRun.generate

    def profiled(*arguments: Any) -> Any:
        return profile.runcall(generate, *arguments)

    case = Fresh(items, 0.0, 64)
    with tempfile.TemporaryDirectory() as folder, serving(case.delay) as port:
        project = project_of(Path(folder), port, case)
        with patch.object(GenerateRun, "generate", profiled):
            ended = project.llmbatch_here("run")
    if ended.returncode:
        raise SystemExit(ended.stdout + ended.stderr)
    return profile


def page(profile: cProfile.Profile, items: int) -> str:
    """The profile as text, with paths that are the same on every machine."""
    out = io.StringIO()
    pstats.Stats(profile, stream=out).sort_stats("cumulative").print_stats(MOST_LINES)
    told = out.getvalue()
    for prefix, short in PREFIXES.items():
        told = re.sub(prefix, short, told)
    lines = [line.rstrip() for line in told.strip().splitlines()]
    return (
        f"cProfile of the process that makes the calls: the generate stage, {items:,} items, answers at once, 64 in flight.\n"
        "Under the profiler everything takes about twice as long; imports of the client are in it, once. Files are written\n"
        "in threads, which it does not see.\n\n" + "\n".join(lines) + "\n"
    )


def main() -> None:
    """Profile, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1_500)
    items = parser.parse_args().items
    told = page(profile_of(items), items)
    print(told)
    RESULTS.write_text(told)


if __name__ == "__main__":
    main()
