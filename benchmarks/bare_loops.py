"""The same work without a framework: asyncio, a semaphore, the Pydantic model, one JSON file per item.

    python -m benchmarks.bare_loops aiohttp|openai BASE_URL PROJECT WORKERS

The project's table and schema are read, and the files lie in the folder `bare` of it. Rows that have a file are skipped.
"""

from __future__ import annotations

import asyncio
import csv
import importlib.util
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel

Ask = Callable[[dict[str, Any]], Awaitable[str]]


def requests(table: Path, schema: dict[str, Any]) -> list[dict[str, Any]]:
    """A call per row, of the size that the product's calls have."""
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    form = {"type": "json_schema", "json_schema": {"name": "LLMOutput", "schema": schema, "strict": True}}
    system = f"Answer as JSON.\n{json.dumps(schema, indent=2)}"
    return [
        {
            "model": "test-model",
            "temperature": 0.5,
            "messages": [
                {"role": "system", "content": system},
                {
                    "role": "user",
                    "content": "\n".join(f"{key}: {value}" for key, value in row.items()) + "\n\nAnswer it.",
                },
            ],
            "response_format": form,
        }
        for row in rows
    ]


async def with_aiohttp(base_url: str, work: Callable[[Ask], Awaitable[None]]) -> None:
    """The calls over aiohttp alone."""
    import aiohttp

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def ask(request: dict[str, Any]) -> str:
            async with session.post(f"{base_url}/chat/completions", json=request) as answer:
                answer.raise_for_status()
                return str((await answer.json())["choices"][0]["message"]["content"])

        await work(ask)


async def with_openai(base_url: str, work: Callable[[Ask], Awaitable[None]]) -> None:
    """The calls through ``AsyncOpenAI``."""
    import openai

    async with openai.AsyncOpenAI(api_key="secret-key", base_url=base_url, max_retries=2) as client:

        async def ask(request: dict[str, Any]) -> str:
            answer = await client.chat.completions.create(**request)
            return str(answer.choices[0].message.content)

        await work(ask)


LOOPS = {"aiohttp": with_aiohttp, "openai": with_openai}


def output_model(module: Path) -> type[BaseModel]:
    """The model of an answer, from the project's schema module."""
    spec = importlib.util.spec_from_file_location("llm_schema", module)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    model: type[BaseModel] = loaded.LLMOutput
    return model


async def main(kind: str, base_url: str, project: Path, workers: int) -> None:
    """Every row of the table to a file."""
    model = output_model(project / "schema/llm_schema.py")
    outputs = project / "bare"
    outputs.mkdir(exist_ok=True)
    free = asyncio.Semaphore(workers)

    async def work(ask: Ask) -> None:
        async def one(number: int, request: dict[str, Any]) -> None:
            async with free:
                parsed = model.model_validate_json(await ask(request))
                (outputs / f"{number}.json").write_text(parsed.model_dump_json(indent=2))

        calls = requests(project / "raw_data/input.csv", model.model_json_schema())
        async with asyncio.TaskGroup() as group:
            for number, request in enumerate(calls):
                if (outputs / f"{number}.json").exists():
                    continue
                group.create_task(one(number, request))

    await LOOPS[kind](base_url, work)


if __name__ == "__main__":
    loop, url, folder, in_flight = sys.argv[1:]
    asyncio.run(main(loop, url, Path(folder), int(in_flight)))
