"""A batch against a server with a limit: how much of the limit is used, and how often the server has to refuse.

    python -m benchmarks.pacing            prints a line per case and writes benchmarks/results/pacing.json

The server takes so many calls in any window of so many seconds, refuses the others with 429 and an exact Retry-After,
and answers after a delay. Each case is one run of the generate stage, calls and artifacts included.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from llmbatch_assets.adapters.providers.registry import open_client
from llmbatch_assets.domain.items.grouping import plan_work
from llmbatch_assets.domain.plan.selection import Selection
from llmbatch_assets.stages.generate.choice import BatchItems
from llmbatch_assets.stages.generate.progress import LogReporter
from llmbatch_assets.stages.generate.run import GenerateRun
from llmbatch_assets.stages.project import BatchFile
from llmbatch_assets_tests.chat_server import ChatServer, RateLimit
from llmbatch_assets_tests.project import make_project

RESULTS = Path(__file__).parent / "results/pacing.json"


class Case(NamedTuple):
    """A server's limit, and what it is told of in ``llm.requests_per_minute``; 0: it has to be found out."""

    items: int
    calls: int
    window: float
    delay: float
    workers: int
    told: int


CASES = (
    Case(items=600, calls=120, window=6, delay=0.3, workers=16, told=1200),
    Case(items=600, calls=120, window=6, delay=0.3, workers=16, told=0),
    Case(items=300, calls=60, window=6, delay=1.5, workers=32, told=600),
    Case(items=300, calls=60, window=6, delay=1.5, workers=32, told=0),
    Case(items=1500, calls=600, window=60, delay=0.05, workers=64, told=0),
)


def measure(case: Case) -> dict[str, float]:
    """One run of a case."""
    limit = RateLimit(case.calls, case.window)
    with tempfile.TemporaryDirectory() as folder, ChatServer() as server:
        server.rate_limit, server.delay = limit, case.delay
        settings = {"max_workers": case.workers, "requests_per_minute": case.told, "transport_retries": 4}
        project = make_project(Path(folder), server.base_url, llm=settings)
        project.table([(f"x{number}", "red", f"Question number {number}?") for number in range(case.items)])
        batch = BatchFile(project.config).load()
        plan = plan_work(batch.read_snapshot(), batch.parameters)
        generation = GenerateRun(
            BatchItems(batch, plan.items), plan.contexts, open_client, LogReporter(lambda _: None, 0)
        )
        started = time.monotonic()
        outcome = generation.generate(generation.choose(Selection(), force=False), lambda *_: None)
        seconds = time.monotonic() - started
        return {
            **case._asdict(),
            "accepted": outcome.tally.accepted,
            "seconds": round(seconds, 2),
            "share_of_limit": round(case.items / seconds / (case.calls / case.window), 3),
            "requests": server.count(),
            "share_refused": round(limit.refused / server.count(), 4),
            "cool_downs": outcome.manifest.meta.pacing.cool_downs,
            "lowest_concurrency": outcome.manifest.meta.pacing.lowest_concurrency,
        }


def main() -> None:
    """Measure all cases."""
    os.environ["TEST_KEY"] = "any"
    results = []
    for case in CASES:
        result = measure(case)
        results.append(result)
        print(
            f"{case.items} items, {case.calls} calls in {case.window:g} s, told {case.told or 'nothing'}: "
            f"{result['accepted']} accepted in {result['seconds']} s, {result['share_of_limit']:.0%} of the limit, "
            f"{result['share_refused']:.1%} refused"
        )
    RESULTS.write_text(json.dumps({"cpus": os.cpu_count(), "cases": results}, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
