"""The results that ``llmbatch run`` prints, as a table in a terminal and as lines elsewhere."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.cells import cell_len

from llmbatch_assets.cli.results import INPUT_CHARS, print_results
from llmbatch_assets.cli.session import TextConsole
from llmbatch_assets.domain.run.results import ResultRow
from llmbatch_assets.domain.text import CUT_MARK
from llmbatch_assets_tests.chat_server import ChatServer, says
from llmbatch_assets_tests.cli.test_terminal import all_of
from llmbatch_assets_tests.project import ROWS, Project, make_project

LABELLED = {"work_items": {"label_column": "id"}}
# Without export and report, which take most of the time of a small run.
GENERATE = ("--select", "input_snapshot,work_items,llm_outputs")
LONG = "word " * 100
ANSI = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
ONE = ResultRow("q1", {"question": LONG, "team": "red"}, {"answer": LONG, "certain": "true"})


def printed(rows: list[ResultRow], width: int, *, shorten: bool = True) -> list[str]:
    """The lines on a screen of this width."""
    screen = TextConsole(file=io.StringIO(), width=width, force_terminal=False)
    print_results(rows, screen, shorten=shorten)
    return screen.file.getvalue().splitlines()  # type: ignore[attr-defined, no-any-return]


def test_a_table_has_a_line_per_item_that_fits_the_terminal() -> None:
    header, line, *failed = printed([ONE, ResultRow("q2", {}, {}, f"not_json: {LONG}")], 80)
    assert header.split() == ["item", "question", "team", "answer", "certain"]
    assert line.split()[0] == "q1"
    # What is narrow is whole, and the long texts share the rest.
    assert line.rstrip().endswith("  true")
    assert line.count("…") == 2
    assert failed[0].startswith("item q2 failed: not_json: word")
    assert [len(one) for one in (header, line, *failed)] == [80, 80, 80]


@pytest.mark.parametrize(
    ("width", "columns"),
    [(60, "item question team answer certain"), (41, "item question answer certain")],
)
def test_inputs_make_room_for_fields(width: int, columns: str) -> None:
    assert printed([ONE], width)[0].split() == columns.split()


def test_the_last_input_is_not_hidden() -> None:
    assert [line.split()[0] for line in printed([ONE], 30)] == ["item", "question:", "team:", "answer:", "certain:"]


def test_fields_that_do_not_fit_beside_each_other_are_lines() -> None:
    fields = {f"field{number}": LONG for number in range(9)}
    lines = printed([ResultRow("q1", {"question": LONG}, fields)], 80)
    assert [line.split()[0] for line in lines] == ["item", "question:", *(f"{name}:" for name in fields)]
    assert {len(line) for line in lines[1:]} == {80}


def test_wide_characters_count_twice() -> None:
    lines = printed([ResultRow("q1", {"question": "橋は誰が" * 30}, {"answer": "川" * 90})], 70)
    assert max(map(cell_len, lines)) <= 70


def test_texts_are_no_markup() -> None:
    row = ResultRow("[red]", {"[b]in[/b]": "[i]x"}, {"[u]": ":smile:[/]"})
    for shorten in (True, False):
        shown = "\n".join(printed([row], 80, shorten=shorten))
        assert [text for text in ("[red]", "[b]in[/b]", "[i]x", "[u]", ":smile:[/]") if text not in shown] == []


def test_without_a_terminal_outputs_are_whole_and_long_inputs_marked_as_cut() -> None:
    lines = printed([ONE, ResultRow("q2", {"team": "red"}, {}, f"not_json: {LONG}")], 40, shorten=False)
    assert lines == [
        "item q1",
        f"  question: {LONG[:INPUT_CHARS].rstrip()}{CUT_MARK}",
        "  team: red",
        f"  answer: {LONG}",
        "  certain: true",
        f"item q2 failed: not_json: {LONG}",
    ]


def results_of(output: str) -> list[str]:
    """The lines of the results within the output of a run."""
    return [line for line in output.splitlines() if line.startswith(("item ", "  answer: ", "everything about"))]


def test_a_limited_run_prints_its_results_in_table_order_by_the_names_that_show_takes(
    project_with: Callable[..., Project], server: ChatServer
) -> None:
    project = project_with(**LABELLED)
    server.script("bridge", *[says("I would rather not.")] * 3)
    server.script("harbour", says({"answer": "in\n1900\x1b[2J", "certain": False}))
    ended = project.llmbatch_here("run", "--limit", "3")
    lines = results_of(ended.stdout)
    assert lines[0] == "item q1"
    assert lines[2].startswith("item q2 failed: not_json: ")
    assert lines[3:5] == ["item q3", r"  answer: in 1900\x1b[2J"]
    assert lines[5:] == ["everything about one item: llmbatch show q1"]
    # As soon as they are there.
    assert ended.stdout.index("item q1\n") < ended.stdout.index("publish:")
    assert project.llmbatch_here("show", "q3").returncode == 0


@pytest.mark.parametrize(
    ("options", "n_shown"),
    [
        (["--limit", "12"], 10),
        (["--sample", "3"], 3),
        (["--limit", "4", "--show", "2"], 2),
        (["--limit", "4", "--show", "0"], 0),
        (["--show", "11"], 11),
        ([], 0),
    ],
)
def test_show_says_how_many_results_are_printed(project: Project, options: list[str], n_shown: int) -> None:
    project.table([(f"q{row}", "red", f"Question {row}?") for row in range(12)])
    ended = project.llmbatch_here("run", *GENERATE, "--offline", *options)
    assert ended.returncode == 0, ended.stderr
    assert sum(line.startswith("item ") for line in ended.stdout.splitlines()) == n_shown
    n_others = 2 if options[-1:] in (["12"], ["2"]) else 0
    n_others = 1 if options[-1:] == ["11"] else n_others
    assert ("more result" in ended.stdout) == bool(n_others)
    assert not n_others or f"{n_others} more result" in ended.stdout


def test_results_are_printed_from_memory(project: Project, opened: list[str]) -> None:
    ended = project.llmbatch_here("run", *GENERATE, "--limit", "2")
    assert len(results_of(ended.stdout)) == 5
    assert [path for path in opened if "llm_outputs" in path] == []


def test_a_run_without_new_results_says_how_to_see_old_ones(project: Project) -> None:
    project.llmbatch_here("run", *GENERATE)
    ended = project.llmbatch_here("run", *GENERATE, "--limit", "2")
    assert "no new results to show. To see an existing output: llmbatch show ROW" in ended.stdout
    assert "no new results" not in project.llmbatch_here("run", *GENERATE).stdout


def test_a_run_with_nothing_to_do_at_all_says_so_too(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    assert project.llmbatch_here("run", "--offline").returncode == 0
    for options, told in ((["--sample", "2"], True), (["--show", "3"], True), ([], False)):
        ended = project.llmbatch_here("run", "--offline", *options)
        assert "Nothing to do" in ended.stdout
        assert ("an existing output: llmbatch show ROW --offline" in ended.stdout) == told


def test_show_without_outputs_is_a_usage_error(project: Project) -> None:
    ended = project.llmbatch_here("run", "--select", "export", "--show", "3")
    assert ended.returncode == 2
    assert "--show" in ended.stderr


def test_answers_are_not_copied_to_the_log_file(project_with: Callable[..., Project], server: ChatServer) -> None:
    project = project_with(run={"log_file": "run.log"}, artifacts={"logs_dir": "logs"})
    server.script("tower", says({"answer": "a confidential height", "certain": True}))
    ended = project.llmbatch_here("run", *GENERATE, "--limit", "1")
    assert "a confidential height" in ended.stdout
    assert "a confidential height" not in project.path("logs/run.log").read_text(encoding="utf-8")


def test_a_terminal_shows_a_table_that_fits(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project", work_items={"label_column": "id"})
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "llmbatch_assets.cli", "run", "--offline", "--limit", "2", *GENERATE],
        cwd=project.root,
        env=project.environment(TERM="xterm", COLUMNS="70"),
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=subprocess.STDOUT,
    ) as run:
        os.close(theirs)
        lines = ANSI.sub("", all_of(ours)).splitlines()
    assert run.returncode == 0, lines
    (table,) = ([line, *lines[at + 1 : at + 3]] for at, line in enumerate(lines) if "item  input" in line)
    assert [line.split()[0] for line in table[1:]] == ["q1", "q2"]
    assert ROWS[0][2][:8] in table[1]
    assert max(map(cell_len, table[1:])) <= 70
