"""The package stays easy to find one's way in: small folders, one meaning for each name, and a test beside each module."""

from __future__ import annotations

import ast
import re
from collections import Counter, defaultdict
from pathlib import Path

from benchmarks.structure import PACKAGE, function_lengths, lines_of_code, module_files

TESTS = Path(__file__).parent
MOST_FILES = 15
VAGUE_NAMES = {"utils", "helpers", "common", "core", "base", "manager"}
# Names of modules in Dagster's own terms.
DAGSTER_NAMES = {"io_manager"}
QUESTIONS = ("What", "Which", "How", "Whether")
MODULES = {path.relative_to(PACKAGE).as_posix(): path for path in module_files()}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


def test_no_folder_has_too_many_files() -> None:
    counts = Counter(path.parent.relative_to(PACKAGE).as_posix() for path in MODULES.values())
    assert {folder: count for folder, count in counts.items() if count > MOST_FILES} == {}


def test_no_public_class_name_means_two_things() -> None:
    places = defaultdict(list)
    for name, tree in TREES.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(name)
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_no_module_docstring_begins_with_a_question_word() -> None:
    others = [*TESTS.rglob("*.py"), *(PACKAGE.parent / "benchmarks").glob("*.py")]
    trees = TREES | {str(path): ast.parse(path.read_text(encoding="utf-8")) for path in others}
    first_words = {name: (ast.get_docstring(tree) or "").partition(" ")[0] for name, tree in trees.items()}
    assert {name: word for name, word in first_words.items() if word in QUESTIONS} == {}


def test_no_module_has_a_name_that_says_nothing() -> None:
    vague = {
        name
        for name in MODULES
        for part in name.removesuffix(".py").split("/")
        if VAGUE_NAMES & set(part.split("_")) and part not in DAGSTER_NAMES
    }
    assert vague == set()


def test_every_module_has_a_test_module_or_is_listed_as_tested_by_behaviour() -> None:
    untested = {
        name
        for name, path in MODULES.items()
        if path.stem not in ("__init__", "__main__") and not (TESTS / name).with_name(f"test_{path.name}").exists()
    }
    listed = listed_modules((PACKAGE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    assert untested - listed == set(), "add a test module, or a row to the table in CONTRIBUTING.md"
    assert listed - untested == set(), "remove these rows from the table in CONTRIBUTING.md"


def listed_modules(page: str) -> set[str]:
    """The modules in the first column of the table below the words "tested by behaviour"."""
    _, _, below = page.partition("ested by behaviour")
    rows = re.search(r"(?:^\|.*\n)+", below + "\n", re.MULTILINE)
    cells = [row.split("|")[1] for row in rows[0].splitlines()] if rows else []
    return {module for cell in cells for module in re.findall(r"`([\w/]+\.py)`", cell)}


def test_the_table_of_modules_is_read() -> None:
    page = (
        "Tested by behaviour:\n\n| module | by |\n| --- | --- |\n| `cli/a.py`, `cli/b.py` | `c.py` |\n\n| `d.py` | |\n"
    )
    assert listed_modules(page) == {"cli/a.py", "cli/b.py"}


def test_figures_leave_out_what_is_no_code() -> None:
    source = (
        '"""Doc."""\n\n# comment\nx = """a\nb"""\n\n\ndef f():\n    """Doc."""\n    return (\n        1  # one\n    )\n'
    )
    assert lines_of_code(source) == 6
    assert function_lengths(source) == [5]


def test_the_docs_name_only_files_that_exist() -> None:
    root = PACKAGE.parent
    pages = [root / "README.md", root / "CONTRIBUTING.md", *sorted((root / "docs").glob("*.md"))]
    named = {path for page in pages for path in re.findall(r"`((?:\w+/)+\w+\.py)`", page.read_text(encoding="utf-8"))}
    assert len(named) > 30
    assert {path for path in named if not any((base / path).exists() for base in (root, PACKAGE, TESTS))} == set()


def test_the_main_path_on_the_architecture_page_is_that_of_the_code() -> None:
    page = (PACKAGE.parent / "docs/architecture.md").read_text(encoding="utf-8")
    diagram = page.partition("## The main path")[2].split("```")[1]
    steps = re.findall(r"((?:\w+/)+\w+\.py) +([\w.]+)", diagram)
    assert len(steps) > 10
    missing = [(path, name) for path, name in steps if name not in defined_in(TREES[path])]
    assert missing == []


def defined_in(tree: ast.Module) -> set[str]:
    """The names of classes, functions, and methods as ``Class.method``, wherever they are defined."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {
                f"{node.name}.{part.name}"
                for part in node.body
                if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)
            }
    return names
