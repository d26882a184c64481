"""Count the sample's input tokens that the embedded model's server already processed for an earlier call.

    python -m benchmarks.prefix_cache [CASE ...]     prints a table and writes benchmarks/results/prefix_cache.json

The sample is run as it is shipped, without and with its judge. Beside it the same generations are asked for in random
order, with as many calls in flight. Each case has a server of its own, whose cache is empty at first. The embedded server
also remembers, in memory, prompts before the last one, and those of a sample fit in; a case without that memory shows what
the order alone is worth, as on a server that many share.
"""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from llmbatch_assets.adapters.providers.local_model import SERVER_SCRIPT, base_url, model_file, wait_until_ready
from llmbatch_assets.adapters.providers.registry import PROVIDERS
from llmbatch_assets.adapters.store.run_records import read_ledger
from llmbatch_assets.domain.items.work import GroupContext, WorkItems
from llmbatch_assets.domain.request import ChatRequest
from llmbatch_assets.domain.run.ledger import CallRecord
from llmbatch_assets.domain.usage import TokenUsage
from llmbatch_assets.stages.artifacts import load_artifact
from llmbatch_assets.stages.project import Batch, BatchFile

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results/prefix_cache.json"
SEED = 7
AS_SHIPPED, NO_MEMORY = 512, 0
CLI = (sys.executable, "-m", "llmbatch_assets.cli", "run", "--select")
Shares = dict[str, float | int]


@contextmanager
def sample(cache_ram_mib: int, *, judge: bool) -> Iterator[Batch]:
    """A copy of the sample with its items planned, whose model is a server of its own."""
    with tempfile.TemporaryDirectory() as name, serving(Path(name), cache_ram_mib) as url:
        folder = Path(name)
        for part in ("configs", "prompts", "raw_data", "schema"):
            shutil.copytree(ROOT / part, folder / part)
        config = folder / "configs/parameters.yaml"
        settings = yaml.safe_load(config.read_text(encoding="utf-8"))
        settings["llm"] |= {"provider": "openai", "base_url": url}
        settings["prompts"]["judge"]["enabled"] = judge
        config.write_text(yaml.safe_dump(settings), encoding="utf-8")
        subprocess.run([*CLI, "input_snapshot,work_items"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        yield BatchFile(config).load()


@contextmanager
def serving(folder: Path, cache_ram_mib: int) -> Iterator[str]:
    """The base URL of an embedded server that nobody else uses."""
    command = [sys.executable, "-P", str(SERVER_SCRIPT), "--model", str(model_file())]
    log = folder / "server.log"
    with (
        log.open("wb") as told,
        subprocess.Popen(
            [*command, "--cache-ram-mib", str(cache_ram_mib)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=told,
        ) as process,
    ):
        try:
            yield base_url(wait_until_ready(process, log))
        finally:
            process.communicate()


def shares(usages: Iterable[TokenUsage | CallRecord]) -> Shares:
    """What of the input was served from the cache."""
    told = list(usages)
    asked, cached = sum(one.input_tokens for one in told), sum(one.cached_input_tokens for one in told)
    return {"calls": len(told), "input_tokens": asked, "share_cached": round(cached / asked, 3)}


def in_the_products_order(cache_ram_mib: int, *, judge: bool) -> Shares:
    """A run of the sample, as its ledger tells of it."""
    with sample(cache_ram_mib, judge=judge) as batch:
        # Its exit code tells whether all were accepted, which is not what is measured.
        subprocess.run([*CLI, "llm_outputs"], cwd=batch.root, check=False, stdout=subprocess.DEVNULL)
        return shares(record for record in read_ledger(batch.path(batch.layout.ledger)))


def in_random_order(cache_ram_mib: int) -> Shares:
    """Each item's first generation, in an order that knows nothing of groups."""
    with sample(cache_ram_mib, judge=False) as batch:
        requests = requests_of(batch)
        random.Random(SEED).shuffle(requests)
        return shares(asyncio.run(asked(batch, requests)))


def requests_of(batch: Batch) -> list[ChatRequest]:
    """The generation of every item."""
    items = load_artifact(batch, "work_items", WorkItems).items
    texts = {one.group_context_id: one.context for one in load_artifact(batch, "group_contexts", list[GroupContext])}
    shown = batch.conversations
    return [
        ChatRequest("generate", shown.generate(item, texts.get(item.group_context_id or "")), shown.output_contract)
        for item in items
    ]


async def asked(batch: Batch, requests: list[ChatRequest]) -> list[TokenUsage]:
    """What the calls took."""
    llm = batch.parameters.llm
    free = asyncio.Semaphore(llm.max_workers)
    async with PROVIDERS[llm.provider](llm, batch.root) as client:

        async def one(request: ChatRequest) -> TokenUsage:
            async with free:
                return (await client.complete(request)).usage

        return list(await asyncio.gather(*map(one, requests)))


CASES: dict[str, Callable[[], Shares]] = {
    "judge off": lambda: in_the_products_order(AS_SHIPPED, judge=False),
    "judge on": lambda: in_the_products_order(AS_SHIPPED, judge=True),
    "judge off, random order": lambda: in_random_order(AS_SHIPPED),
    "no memory, judge off": lambda: in_the_products_order(NO_MEMORY, judge=False),
    "no memory, judge on": lambda: in_the_products_order(NO_MEMORY, judge=True),
    "no memory, judge off, random order": lambda: in_random_order(NO_MEMORY),
}


def main() -> None:
    """Measure, print, keep."""
    chosen = sys.argv[1:] or list(CASES)
    results: dict[str, Shares] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in chosen:
        results[name] = told = CASES[name]()
        print(f"{name:36} {told['calls']:4} calls  {told['share_cached']:6.1%} of the input cached", flush=True)
        RESULTS.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
