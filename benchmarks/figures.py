"""Write the latest figures into docs/performance.md, between the comments that name this module.

    python -m benchmarks.figures

They come from benchmarks/results/speed.json and exports.json; a case that was not measured has no row.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.contenders import OURS
from benchmarks.exports import BARE, COMPARED
from benchmarks.exports import RESULTS as EXPORTS
from benchmarks.medians import Result
from benchmarks.speed import AMONG_PEERS, ROW_BYTES, cases
from benchmarks.speed import RESULTS as SPEED

PAGE = Path(__file__).parents[1] / "docs/performance.md"
BEGIN, END = "<!-- Written by `python -m benchmarks.figures`: -->", "<!-- end -->"
WIDTH = 124
CONTENDERS = {
    OURS: "`llmbatch run`",
    "aiohttp": "a bare loop on aiohttp",
    "openai": "a bare loop on `AsyncOpenAI`",
    "curator": "Curator",
    "data-designer": "Data Designer",
}
OTHERS = {**CONTENDERS, "import dagster": '`python -c "import dagster"`', "without": "without these artifacts"}
# The name of a case as a pattern, and its description.
DESCRIPTIONS = {
    r"fresh-(\d+)-0ms-(\d+)": "{0:,} items, instant answers, {1} in flight",
    r"fresh-(\d+)-(\d+)ms-(\d+)": "{0:,} items, answers after {1} ms, {2} in flight",
    r"nothing-to-do-(\d+)": "nothing to do, {0:,} items",
    r"edit-loop-(\d+)": "`run --limit 5 --offline` after an edit of the prompt, {0:,} items",
    r"plan-(\d+)": "`llmbatch plan`, {0:,} items",
    r"huge-cache": "`run --select llm_outputs`, nothing to do, 20,000 items, a million artifacts of earlier settings",
}


def description(case: str) -> str:
    """A case in words."""
    plain = case.removesuffix("-judge")
    for pattern, words in DESCRIPTIONS.items():
        if found := re.fullmatch(pattern, plain):
            return words.format(*map(int, found.groups())) + (", with verdicts" if plain != case else "")
    raise KeyError(case)


def peers_table(result: Result) -> Iterator[str]:
    """All contenders of the case in which all take part."""
    yield f"| {description(result['case'])} | seconds | CPU, seconds | peak memory | again, nothing to do |"
    yield "| --- | --- | --- | --- | --- |"
    for name, words in CONTENDERS.items():
        if told := result.get(name):
            stage = f" (generate stage {told['generate_sec']:.1f})" if name == OURS else ""
            yield (
                f"| {words} | {told['seconds']:.1f}{stage} | {told['cpu_sec']:.1f} | {told['peak_mb']} MB | "
                f"{told['again_sec']:.1f} s |"
            )


def commands_table(results: Sequence[Result], exports: Sequence[Result]) -> Iterator[str]:
    """Our commands, each with what it is compared with."""
    yield "| | seconds | CPU, seconds | peak memory | compared with |"
    yield "| --- | --- | --- | --- | --- |"
    for result in results:
        told = result[OURS]
        others = [
            f"{result[f'seconds_of_{name}']} × {OTHERS[name]}" for name in OTHERS if f"seconds_of_{name}" in result
        ]
        yield command_row(description(result["case"]), told, ", ".join(others))
    for told in exports:
        if told["case"] == COMPARED:
            others = [f"{told['cpu_of_bare']} × the CPU time of a {BARE} that writes the same bytes"]
            yield command_row(f"the export alone, {told['items']:,} items to psv, jsonl and csv", told, *others)


def command_row(words: str, told: Result, compared: str) -> str:
    """A row of the table of commands."""
    return f"| {words} | {told['seconds']:.1f} | {told['cpu_sec']:.1f} | {told['peak_mb']} MB | {compared} |"


def text(speed: Sequence[Result], exports: Sequence[Result]) -> str:
    """Both tables, and how their figures were measured."""
    order = [name for name, _ in cases()]
    results = sorted(speed, key=lambda result: order.index(result["case"]))
    among_peers = [result for result in results if result["case"] == AMONG_PEERS.name]
    rounds = sorted({result[OURS]["rounds"] for result in results}, reverse=True)
    measured = (
        f"Rows have {ROW_BYTES} bytes. Times are of whole commands, from the shell to the report. They are medians; the number "
        f"of rounds, in which contenders took turns, was {' or '.join(map(str, rounds))}. Memory is the highest of all rounds, "
        "over all processes of a command."
    )
    lines = [
        *(textwrap.fill(measured, WIDTH), ""),
        *(line for result in among_peers for line in (*peers_table(result), "")),
        *commands_table([result for result in results if result not in among_peers], exports),
    ]
    return "\n".join(lines)


def main() -> None:
    """Replace what was between the comments."""
    told = text(json.loads(SPEED.read_text())["cases"], json.loads(EXPORTS.read_text()))
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{told}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
