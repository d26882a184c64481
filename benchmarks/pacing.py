"""A batch against a server that refuses calls: how much of what it accepts is used, and how often it has to refuse.

    python -m benchmarks.pacing            prints a line per case and writes benchmarks/results/pacing.json

A server with a limit takes so many calls in any window of so many seconds, refuses the others with 429 and an exact
Retry-After, and answers after a delay. A server that refuses at random is compared with a bare loop that only retries.
A server may also refuse all calls but one for its first seconds. Each case is one run of the generate stage, calls and
artifacts included.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import aiohttp

from llmbatch_assets.adapters.providers.registry import open_client
from llmbatch_assets.domain.items.grouping import plan_work
from llmbatch_assets.domain.plan.selection import Selection
from llmbatch_assets.stages.generate.choice import BatchItems
from llmbatch_assets.stages.generate.progress import LogReporter
from llmbatch_assets.stages.generate.run import GenerateRun
from llmbatch_assets.stages.project import BatchFile
from llmbatch_assets_tests.chat_server import Answer, ChatCall, ChatServer, RateLimit, says, status
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


class RandomRefusals(NamedTuple):
    """A share of calls that the server refuses whatever their rate."""

    items: int
    share: float
    retry_after: float | None
    delay: float = 0.5
    workers: int = 8


RANDOM_REFUSALS = (
    RandomRefusals(items=600, share=0.03, retry_after=None),
    RandomRefusals(items=600, share=0.07, retry_after=None),
    RandomRefusals(items=600, share=0.07, retry_after=1),
    RandomRefusals(items=600, share=0.15, retry_after=None),
)
FIRST_CALLS_REFUSED = {"items": 100, "workers": 16, "delay": 0.5, "retry_after": 30}


def run(server: ChatServer, items: int, llm: dict[str, int]) -> tuple[float, dict[str, float]]:
    """Run the generate stage once. Returns its seconds, and what it did."""
    with tempfile.TemporaryDirectory() as folder:
        project = make_project(Path(folder), server.base_url, llm=llm)
        project.table([(f"x{number}", "red", f"Question number {number}?") for number in range(items)])
        batch = BatchFile(project.config).load()
        plan = plan_work(batch.read_snapshot(), batch.parameters)
        generation = GenerateRun(
            BatchItems(batch, plan.items), plan.contexts, open_client, LogReporter(lambda _: None, 0)
        )
        started = time.monotonic()
        outcome = generation.generate(generation.choose(Selection(), force=False), lambda *_: None)
        seconds = time.monotonic() - started
    pacing = outcome.manifest.meta.pacing
    return seconds, {
        "accepted": outcome.tally.accepted,
        "seconds": round(seconds, 2),
        "requests": server.count(),
        "share_refused": round(pacing.rate_limited / pacing.calls, 4),
        "cool_downs": pacing.cool_downs,
        "lowest_concurrency": pacing.lowest_concurrency,
    }


def measure(case: Case) -> dict[str, float]:
    """One run against a server with a limit."""
    with ChatServer() as server:
        server.rate_limit, server.delay = RateLimit(case.calls, case.window), case.delay
        llm = {"max_workers": case.workers, "requests_per_minute": case.told, "transport_retries": 4}
        seconds, facts = run(server, case.items, llm)
    share = round(case.items / seconds / (case.calls / case.window), 3)
    return {**case._asdict(), **facts, "share_of_limit": share}


def measure_random(case: RandomRefusals) -> dict[str, float | None]:
    """One run and one bare loop, each against a server that refuses at random."""
    with refusing_server(case.delay, at_random(case)) as server:
        seconds, facts = run(server, case.items, {"max_workers": case.workers, "transport_retries": 8})
    with refusing_server(case.delay, at_random(case)) as server:
        bare = asyncio.run(bare_loop(server.base_url, case.items, case.workers))
    return {**case._asdict(), **facts, "bare_seconds": round(bare, 2), "share_of_bare_loop": round(bare / seconds, 3)}


def measure_first_calls_refused() -> dict[str, float]:
    """One run whose first calls but one are refused, as after an earlier run that used up the limit."""
    case = FIRST_CALLS_REFUSED
    refuse = status(429, headers={"Retry-After": str(case["retry_after"])})
    started: list[float] = []

    def answer(call: ChatCall) -> Answer:
        started.append(call.at)
        return refuse if len(started) > 1 and call.at < started[0] + int(case["retry_after"]) else says()

    with refusing_server(float(case["delay"]), answer) as server:
        seconds, facts = run(server, int(case["items"]), {"max_workers": int(case["workers"])})
    ideal = case["retry_after"] + (case["items"] - 1) * case["delay"] / case["workers"]
    return {**case, **facts, "ideal_seconds": round(ideal, 2), "times_ideal": round(seconds / ideal, 2)}


def refusing_server(delay: float, answer: Callable[[ChatCall], Answer]) -> ChatServer:
    """Return a server that answers every call in this way."""
    server = ChatServer(keep_calls=False)
    server.delay = delay
    server.script("", answer, repeat_last=True)
    return server


def at_random(case: RandomRefusals) -> Callable[[ChatCall], Answer]:
    """Refuse the case's share of calls, the same for the product and the bare loop."""
    rand = random.Random(16)
    headers = {} if case.retry_after is None else {"Retry-After": f"{case.retry_after:g}"}
    return lambda _: status(429, headers=headers) if rand.random() < case.share else says()


async def bare_loop(base_url: str, items: int, workers: int) -> float:
    """Return the seconds of a loop that retries each refused call by itself, as the server asks or with backoff."""
    todo, rand = iter(range(items)), random.Random(16)

    async def work(session: aiohttp.ClientSession) -> None:
        for number in todo:
            body = {"model": "test-model", "messages": [{"role": "user", "content": f"Question number {number}?"}]}
            wait = 0.5
            while True:
                async with session.post(f"{base_url}/chat/completions", json=body) as response:
                    await response.read()
                if response.status == 200:
                    break
                asked = response.headers.get("Retry-After")
                await asyncio.sleep(float(asked) if asked else wait + rand.uniform(0, 0.5))
                wait *= 2

    started = time.monotonic()
    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(work(session) for _ in range(workers)))
    return time.monotonic() - started


def main() -> None:
    """Measure all cases."""
    os.environ["TEST_KEY"] = "any"
    limits, refusals = [], []
    for case in CASES:
        limits.append(result := measure(case))
        print(
            f"{case.items} items, {case.calls} calls in {case.window:g} s, told {case.told or 'nothing'}: "
            f"{result['accepted']} accepted in {result['seconds']} s, {result['share_of_limit']:.0%} of the limit, "
            f"{result['share_refused']:.1%} refused",
            flush=True,
        )
    first = measure_first_calls_refused()
    print(
        f"{first['items']} items, all first calls but one refused for {first['retry_after']} s: "
        f"{first['accepted']} accepted in {first['seconds']} s, {first['times_ideal']} times the ideal",
        flush=True,
    )
    for share in RANDOM_REFUSALS:
        refusals.append(compared := measure_random(share))
        print(
            f"{share.items} items, {share.share:.0%} refused at random, Retry-After {share.retry_after}: "
            f"{compared['accepted']} accepted in {compared['seconds']} s, "
            f"{compared['share_of_bare_loop']:.0%} of a bare loop",
            flush=True,
        )
    results = {
        "cpus": os.cpu_count(),
        # Programs that wanted to run at the same time make a run slower than its pace.
        "load_average": round(os.getloadavg()[2], 1),
        "cases": limits,
        "first_calls_refused": first,
        "random_refusals": refusals,
    }
    RESULTS.write_text(json.dumps(results, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
