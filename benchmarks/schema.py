"""A schema module from source to models, and outputs against its contract.

    python benchmarks/schema.py            prints a table and writes benchmarks/results/schema.json

The module has 200 lines: nested models, enums, constraints. Each figure is the median of several rounds.
"""

from __future__ import annotations

import json
import random
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from llmbatch_assets.adapters.schema_module import load_source
from llmbatch_assets.domain.schema.contract import Contract
from llmbatch_assets.domain.schema.grammar import parse_schema
from llmbatch_assets.domain.schema.spec import render_schema

LINES = 200
ROUNDS = 15
VALIDATIONS = 200
MOODS = ("calm", "brisk", "stern", "glad")
HEAD = '''"""Contract of the outputs and of the verdicts on them."""

from enum import Enum
from typing import Annotated, Literal, Optional

from pydantic import BaseModel, ConfigDict, Field


class Mood(str, Enum):
    """How it sounds."""

    CALM = "calm"
    BRISK = "brisk"
    STERN = "stern"
    GLAD = "glad"

'''
PART = '''
class Part{n}(BaseModel):
    """What is known of part {n}."""

    model_config = ConfigDict(extra="forbid")

    title: str = Field(..., description="The title of part {n}, in a few words.", min_length=1, max_length=120)
    code: str = Field(..., description="Its code.", pattern=r"^[A-Z]{{2}}-[0-9]+$")
    mood: Mood = Field(..., description="How the text sounds.")
    kind: Literal["fact", "opinion", "question"] = Field(..., description="What it is.")
    weight: float = Field(..., description="How much it counts.", ge=0, le=1)
    rank: int = Field(..., description="Its place.", ge=1, le=100)
    tags: list[Annotated[str, Field(max_length=30)]] = Field(default_factory=list, max_length=8)
    note: Optional[str] = Field(None, description="What else is to be said.", max_length=500)
{link}
'''
OUTPUT = '''
class LLMOutput(BaseModel):
    """One answer."""

    model_config = ConfigDict(extra="forbid")

    summary: str = Field(..., description="The answer in a sentence.", max_length=400)
    sure: bool = Field(..., description="Whether it is certain.")
    parts: list[Part1] = Field(..., description="Its parts, in order.", min_length=1, max_length=20)
    first: Part2


class JudgeResult(BaseModel):
    """A verdict."""

    model_config = ConfigDict(extra="forbid")

    reasons: list[Annotated[str, Field(max_length=300)]] = Field(..., description="Why.", max_length=5)
    score: int = Field(..., description="How good.", ge=0, le=100)
    verdict: Literal["PASS", "FAIL"] = Field(..., description="PASS if it can be used.")
'''


def source(mark: str = "") -> str:
    """The module. ``mark`` makes it another one, since models are imported once for each text."""
    parts = [
        PART.format(n=n, link=f'    inner: Optional["Part{n + 1}"] = None\n' if n < 9 else "") for n in range(1, 10)
    ]
    text = f"{HEAD}{''.join(parts)}{OUTPUT}".replace("One answer.", f"One answer.{mark}")
    return text + "# the end\n" * max(LINES - text.count("\n"), 0)


def output(draw: random.Random, parts: int) -> dict[str, Any]:
    """An output that keeps the contract."""

    def text(words: int) -> str:
        return " ".join(draw.choices(["amber", "birch", "cedar", "delta", "ember"], k=words))

    def part(depth: int) -> dict[str, Any]:
        fields = {"title": text(6), "code": f"AB-{draw.randrange(99)}", "mood": draw.choice(MOODS), "kind": "fact"}
        more = {"weight": draw.random(), "rank": 7, "tags": [text(2), text(2)], "note": text(20)}
        return {**fields, **more, "inner": part(depth - 1) if depth else None}

    return {"summary": text(40), "sure": True, "parts": [part(2) for _ in range(parts)], "first": part(1)}


def medians(once: Callable[[int], object], rounds: int = ROUNDS) -> float:
    """Median seconds of a call, after one that is not counted."""
    once(-1)
    times = []
    for number in range(rounds):
        started = time.perf_counter()
        once(number)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def measured() -> Iterator[dict[str, object]]:
    """The lines of the table."""
    lines = source().count("\n")
    yield _line(f"parse, {lines} lines", medians(lambda _: parse_schema(source(), "s.py")), "seconds", None)
    spec = parse_schema(source(), "s.py")
    yield _line(f"render, {lines} lines", medians(lambda _: render_schema(spec)), "seconds", None)
    whole = medians(lambda number: load_source(source(f" {number} {time.time_ns()}"), "s.py"))
    yield _line(f"parse, render and import, {lines} lines", whole, "seconds", 0.3)
    models = load_source(source(), "s.py")
    yield _line("contract and its fingerprint", medians(lambda _: models.output().sha), "seconds", None)
    contract = models.output()
    for parts in (1, 4, 20):
        yield validation(contract, parts)


def validation(contract: Contract, parts: int) -> dict[str, object]:
    """What validating outputs of a size takes."""
    draw = random.Random(1)
    outputs = [output(draw, parts) for _ in range(VALIDATIONS)]
    size = statistics.mean(len(json.dumps(one)) for one in outputs) / 1000
    seconds = medians(lambda _: [contract.validate(one) for one in outputs]) / VALIDATIONS
    case = f"validate an output of {size:.1f} KB"
    return _line(case, seconds / size * 1e6, "microseconds_per_kb", 50)


def _line(case: str, value: float, unit: str, limit: float | None) -> dict[str, object]:
    return {"case": case, unit: float(f"{value:.3g}"), **({"limit": limit} if limit is not None else {})}


def main() -> None:
    """Measure everything, print it, keep it."""
    results = list(measured())
    for line in results:
        print("  ".join(f"{key}={value}" for key, value in line.items()))
    target = Path(__file__).with_name("results") / "schema.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
