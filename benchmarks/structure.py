"""Measure how the package is organized: its size, its fullest folder, its functions, and the main path through it.

    python -m benchmarks.structure

Prints the figures and writes benchmarks/results/structure.json. Lines of code are lines without blanks, comments and
docstrings.
"""

from __future__ import annotations

import ast
import io
import json
import statistics
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1] / "llmbatch_assets"
RESULTS = Path(__file__).parent / "results/structure.json"
# The files that a newcomer reads to follow one row from the asset to the model, the file and the event.
MAIN_PATH = (
    "assets/llm_outputs.py",
    "stages/generate/choice.py",
    "stages/generate/run.py",
    "stages/generate/clients.py",
    "engine/workers.py",
    "engine/attempt.py",
    "engine/retry.py",
    "engine/metering.py",
    "engine/pacing.py",
    "adapters/providers/openai_client.py",
    "adapters/providers/responses.py",
    "adapters/store/outputs.py",
    "adapters/files/group_commit.py",
    "resources/events/partition_events.py",
    "resources/events/item_events.py",
)
_NO_CODE = {
    *(tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE),
    *(tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER),
}
_WITH_DOCSTRING = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def module_files() -> list[Path]:
    """The modules of the package, without the template of ``llmbatch init``."""
    return sorted(path for path in PACKAGE.rglob("*.py") if "cli/project" not in path.as_posix())


def lines_of_code(source: str) -> int:
    """The number of lines without blanks, comments and docstrings."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - set(_docstring_lines(ast.parse(source))))


def _docstring_lines(tree: ast.Module) -> Iterator[int]:
    for node in ast.walk(tree):
        if isinstance(node, _WITH_DOCSTRING) and ast.get_docstring(node, clean=False) is not None:
            yield from range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1)


def function_lengths(source: str) -> list[int]:
    """The lines of each function, with its signature and docstring."""
    return [
        (node.end_lineno or 0) - node.lineno + 1
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def main_path() -> list[Path]:
    """The files of the main path. Raises ``FileNotFoundError`` if one was moved."""
    found = [(pattern, sorted(PACKAGE.glob(pattern))) for pattern in MAIN_PATH]
    moved = [pattern for pattern, files in found if not files]
    if moved:
        raise FileNotFoundError(f"correct MAIN_PATH in {__file__}: there is no {', '.join(moved)}")
    return [path for _, files in found for path in files]


def measure() -> dict[str, Any]:
    """All figures."""
    sources = {path: path.read_text(encoding="utf-8") for path in module_files()}
    [(folder, most)] = Counter(path.parent for path in sources).most_common(1)
    lengths = sorted(length for source in sources.values() for length in function_lengths(source))
    path = main_path()
    return {
        "modules": len(sources),
        "lines_of_code": sum(map(lines_of_code, sources.values())),
        "fullest_folder": {"path": folder.relative_to(PACKAGE).as_posix(), "files": most},
        "function_lines": {
            "median": statistics.median(lengths),
            "p90": lengths[int(len(lengths) * 0.9)],
            "max": lengths[-1],
        },
        "main_path": {
            "files": [file.relative_to(PACKAGE).as_posix() for file in path],
            "lines": sum(len(sources[file].splitlines()) for file in path),
        },
    }


if __name__ == "__main__":
    figures = json.dumps(measure(), indent=2)
    print(figures)
    RESULTS.write_text(figures + "\n", encoding="utf-8")
