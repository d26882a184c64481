"""The framework's overhead per call, in Python function calls, which are the same on every machine, and its imports."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest

from llmbatch_assets_tests.chat_server import ChatServer
from llmbatch_assets_tests.project import make_project

FEW, MANY = 10, 60
WORKERS = 8
# Measured: 0.14. What comes on top of a call (rendering, validation, files, ledger, Dagster's events) costs much less than
# is saved by calling without the SDK.
MOST_OF_A_BARE_CALL = 0.2


def calls_made(act: Callable[[], Any]) -> int:
    """Calls of Python functions in this thread while something is done."""
    count = 0

    def watch(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal count
        count += event == "call"

    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        act()
    finally:
        sys.setprofile(before)
    return count


def of_the_generate_stage(items: int, root: Path, server: ChatServer) -> int:
    project = make_project(root, server.base_url, llm={"max_workers": WORKERS})
    project.table([(f"q{number}", "red", f"Question number {number}? {'word ' * 30}") for number in range(items)])
    assert project.llmbatch_here("run", "--select", "input_snapshot,work_items").returncode == 0
    count = calls_made(lambda: project.llmbatch_here("run", "--select", "llm_outputs"))
    assert len(project.outputs()) == items
    return count


def of_a_bare_loop(items: int, schema: dict[str, Any], server: ChatServer) -> int:
    """The SDK's own call for as many items, and nothing else."""
    form: Any = {"type": "json_schema", "json_schema": {"name": "LLMOutput", "strict": True, "schema": schema}}

    async def all_items() -> None:
        free = asyncio.Semaphore(WORKERS)
        async with openai.AsyncOpenAI(api_key="secret-key", base_url=server.base_url) as client:

            async def one(number: int) -> None:
                async with free:
                    await client.chat.completions.create(
                        model="test-model",
                        messages=[
                            {"role": "system", "content": "Answer as JSON."},
                            {"role": "user", "content": f"Question number {number}? {'word ' * 30}"},
                        ],
                        response_format=form,
                    )

            async with asyncio.TaskGroup() as group:
                for number in range(items):
                    group.create_task(one(number))

    return calls_made(lambda: asyncio.run(all_items()))


@pytest.mark.slow
def test_an_item_takes_less_than_a_bare_call_through_the_sdk(tmp_path: Path, server: ChatServer) -> None:
    # What is imported and made once is counted in neither.
    of_the_generate_stage(1, tmp_path / "first", server)
    schema = server.calls[-1].body["response_format"]["json_schema"]["schema"]
    ours = of_the_generate_stage(MANY, tmp_path / "many", server) - of_the_generate_stage(FEW, tmp_path / "few", server)
    bare = of_a_bare_loop(MANY, schema, server) - of_a_bare_loop(FEW, schema, server)
    assert ours < MOST_OF_A_BARE_CALL * bare, f"{ours / (MANY - FEW):.0f} calls an item, {bare / (MANY - FEW):.0f} bare"


def test_calls_are_made_without_an_sdk_and_charts(tmp_path: Path, server: ChatServer) -> None:
    # With a price of its own: the list of prices brings an HTTP client.
    budget = {"prices": {"test-model": {"input": 1.0, "output": 2.0}}}
    project = make_project(tmp_path / "project", server.base_url, budget=budget)
    code = (
        "import atexit, sys\nfrom llmbatch_assets.cli import main\n"
        "named = {'openai', 'httpx2', 'matplotlib', 'aiohttp'}\n"
        "atexit.register(lambda: print(*sorted(named & set(sys.modules))))\n"
        "main(['run', '--select', 'input_snapshot,work_items,llm_outputs'])"
    )
    run = [sys.executable, "-c", code]
    ended = subprocess.run(
        run, cwd=project.root, env=project.environment(), capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.splitlines()[-1] == "aiohttp"
    assert server.count() == len(project.outputs()) > 0
