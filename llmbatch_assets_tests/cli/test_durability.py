"""Nothing accepted is lost, and nothing is paid for twice: however a run ends, and however many there are."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from llmbatch_assets_tests.chat_server import ChatServer, says, status
from llmbatch_assets_tests.project import JUDGE, SCHEMA, Project, make_project, settings

MakeProject = Callable[..., Project]
JUDGED = {"prompts": {"judge": {"enabled": True}}}
GENERATE = ("run", "--select", "llm_outputs")


def questions(project: Project, count: int) -> None:
    project.table([(f"q{number}", "red", f"question {number}") for number in range(count)])


def waiting(project: Project) -> int:
    """How many answers wait for their judge."""
    return len(list(project.path("artifacts/cache/awaiting_judge").glob("*.json")))


# An answer that waits for its judge.


def test_an_answer_whose_judge_fails_is_judged_by_the_next_run_and_not_bought_again(
    project_with: MakeProject, server: ChatServer
) -> None:
    project = project_with(**JUDGED, llm={"give_up_after": 0.5})
    is_down = True
    server.script(lambda call: is_down, status(503), purpose="judge", repeat_last=True)
    assert project.llmbatch_here("run").returncode == 1
    generated = waiting(project)
    assert (server.count("generate"), project.outputs()) == (generated, {})
    assert generated >= 3
    is_down = False
    assert project.llmbatch_here("run").returncode == 0
    assert (server.count("generate"), waiting(project), len(project.outputs())) == (5, 0, 5)
    # What the output cost is what both runs paid for it.
    assert {output["usage"]["requests"] for output in project.outputs().values()} == {2}


def test_a_judge_is_shown_the_same_text_after_a_run_that_was_cut_short(
    project_with: MakeProject, server: ChatServer
) -> None:
    project = project_with(**JUDGED, llm={"give_up_after": 0.5})
    # Not in the order of the alphabet, in which files are written.
    project.write("schema/llm_schema.py", SCHEMA.replace("answer: str", "title: str\n    answer: str"))
    is_down = True
    server.script(lambda call: is_down, status(503), purpose="judge", repeat_last=True)
    assert project.llmbatch_here("run").returncode == 1
    is_down = False
    assert project.llmbatch_here("run").returncode == 0
    shown = [call.text for call in server.calls if call.purpose == "judge"]
    assert len(shown) > len(set(shown)) == 5


def test_an_answer_that_its_judge_rejects_waits_no_longer(project_with: MakeProject, server: ChatServer) -> None:
    project = project_with(**JUDGED, llm={"max_retries": 1})
    rejection = says({"reasons": ["no"], "score": 1, "verdict": "FAIL"})
    server.script(lambda call: True, rejection, purpose="judge", repeat_last=True)
    assert project.llmbatch_here("run").returncode == 3
    assert (server.count("generate"), waiting(project)) == (5, 0)


# Another judge.


def test_a_changed_judge_judges_what_there_is_before_anything_is_generated(
    project_with: MakeProject, server: ChatServer
) -> None:
    project = project_with(**JUDGED)
    project.llmbatch_here("run")
    project.prompt("judge", {**JUDGE, "system": "Judge strictly. {judge_schema}"})
    # The first one no longer passes: its reasons go to the model, which tries again.
    server.script(lambda call: True, says({"reasons": ["vague"], "score": 1, "verdict": "FAIL"}), purpose="judge")
    assert project.llmbatch_here("run").returncode == 0
    assert (server.count("generate"), server.count("judge")) == (5 + 1, 5 + 5 + 1)
    # Its reasons are in the one generation more.
    assert [call.purpose for call in server.calls if "vague" in call.text].count("generate") == 1
    assert len(project.outputs()) == 10


def test_an_answer_that_a_changed_judge_has_rejected_is_not_judged_again(
    project_with: MakeProject, server: ChatServer
) -> None:
    project = project_with(**JUDGED, llm={"max_retries": 1})
    project.llmbatch_here("run")
    project.prompt("judge", {**JUDGE, "system": "Judge strictly. {judge_schema}"})
    rejection = says({"reasons": ["vague"], "score": 1, "verdict": "FAIL"})
    server.script(lambda call: True, rejection, purpose="judge", repeat_last=True)
    assert project.llmbatch_here("run").returncode == 3
    # The earlier answers and a new one for each item.
    assert (server.count("generate"), server.count("judge")) == (5 + 5, 5 + 5 + 5)
    assert project.llmbatch_here("run").returncode == 3
    assert (server.count("generate"), server.count("judge")) == (10 + 5, 15 + 5)


def test_without_its_judge_an_output_is_filed_anew_without_a_call(
    project_with: MakeProject, server: ChatServer
) -> None:
    project = project_with(**JUDGED)
    project.llmbatch_here("run")
    project.parameters(**settings(server.base_url))
    assert project.llmbatch_here("run").returncode == 0
    assert server.count() == 10
    assert sorted(str(output["judge"]) for output in project.outputs().values())[:5] == ["None"] * 5


def test_a_forced_run_generates_though_another_judge_had_accepted(
    project_with: MakeProject, server: ChatServer
) -> None:
    project = project_with(**JUDGED)
    project.llmbatch_here("run")
    project.parameters(**settings(server.base_url))
    project.llmbatch_here("run", "--force")
    assert server.count("generate") == 10


# Two runs, and a run that is killed.


def test_two_runs_at_once_pay_for_no_item_twice(tmp_path: Path, server: ChatServer) -> None:
    # Long enough for the second run to begin while the first one works, on a busy machine, too.
    server.delay = 0.5
    project = make_project(tmp_path / "project", server.base_url, llm={"max_workers": 4})
    questions(project, 40)
    assert project.llmbatch_here("run", "--select", "input_snapshot,work_items").returncode == 0
    with ThreadPoolExecutor() as at_once:
        ended = [*at_once.map(lambda _: project.llmbatch(*GENERATE), range(2))]
    assert [run.returncode for run in ended] == [0, 0]
    assert len(project.outputs()) == 40
    assert server.count() == 40
    assert all("40 of 40 items accepted" in run.stdout for run in ended)
    # What one has made is no cache hit to the other, but it is told.
    told = [re.search(r"\((\d+) new, 0 from cache(?:, (\d+) by another run)?\)", run.stdout) for run in ended]
    assert [sum(int(count or 0) for count in one.groups()) if one else None for one in told] == [40, 40]


@pytest.mark.slow
@pytest.mark.parametrize("judged", [False, True])
def test_a_run_that_is_killed_loses_nothing_and_repeats_little(
    tmp_path: Path, server: ChatServer, judged: bool
) -> None:
    workers, items = 8, 60
    server.delay = 0.05
    project = make_project(
        tmp_path / "project", server.base_url, llm={"max_workers": workers}, **(JUDGED if judged else {})
    )
    questions(project, items)
    assert project.llmbatch_here("run", "--select", "input_snapshot,work_items").returncode == 0
    kept: dict[str, Any] = {}
    for _ in range(2):
        begun = server.count()
        process = subprocess.Popen(
            [sys.executable, "-m", "llmbatch_assets.cli", *GENERATE],
            cwd=project.root,
            env=project.environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while server.count() < begun + 20 and process.poll() is None:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert kept.items() <= project.outputs().items()
        kept = project.outputs()
    assert project.llmbatch_here(*GENERATE).returncode == 0
    assert kept.items() <= project.outputs().items()
    assert len(project.outputs()) == items
    assert server.count("generate") <= items + 2 * workers


# What stops a run, and what it leaves.


def test_a_batch_that_is_refused_from_the_start_stops_after_five_items(
    project_with: MakeProject, server: ChatServer
) -> None:
    project = project_with(llm={"max_workers": 1, "structured_output": "prompt"})
    questions(project, 30)
    server.script(lambda call: True, status(400, {"error": {"message": "no such thing"}}), repeat_last=True)
    ended = project.llmbatch_here("run")
    assert ended.returncode == 1
    assert server.count() == 5
    assert "5 items in a row were refused with the same message" in ended.stdout + ended.stderr
    counts = project.json("artifacts/cache/pipeline4_manifest.json")["counts"]
    assert (counts["n_fail"], counts["n_not_attempted"]) == (0, 30)


@pytest.mark.parametrize("limit", [{"max_failures": 3}, {"max_failure_rate": 0.1}])
def test_failures_beyond_a_limit_stop_the_run(
    project_with: MakeProject, server: ChatServer, limit: dict[str, float]
) -> None:
    project = project_with(llm={"max_workers": 1, "max_retries": 1, **limit})
    questions(project, 40)
    server.script(lambda call: call.number % 5 == 0, says("no"), repeat_last=True)
    ended = project.llmbatch_here("run")
    assert ended.returncode == 1
    assert server.count() < 40
    assert next(iter(limit)) in ended.stdout + ended.stderr


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_cannot_be_written_to_is_found_before_a_call(
    project_with: MakeProject, server: ChatServer
) -> None:
    project = project_with()
    project.llmbatch_here("run", "--select", "input_snapshot,work_items")
    outputs = project.path("artifacts/cache/llm_outputs")
    outputs.mkdir()
    outputs.chmod(0o500)
    ended = project.llmbatch_here(*GENERATE)
    outputs.chmod(0o700)
    assert (ended.returncode, server.count()) == (1, 0)
    assert "cannot be written to" in ended.stdout + ended.stderr


def mount_or_skip(folder: Path, options: str) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")


@pytest.mark.slow
def test_a_disk_that_has_no_room_for_dagster_either_is_told_in_one_line(tmp_path: Path, server: ChatServer) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    mount_or_skip(folder, "size=6m")
    try:
        project = make_project(folder, server.base_url, llm={"max_workers": 4})
        questions(project, 400)
        ended = project.llmbatch("run")
        assert ended.returncode == 1
        assert "Traceback" not in ended.stdout + ended.stderr
        assert "full" in ended.stderr or "cannot be written" in ended.stdout
        whole = project.outputs()
        assert 0 < len(whole) < 400
        assert server.count() <= len(whole) + 4
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False, capture_output=True)


@pytest.fixture
def small_disk(project_with: MakeProject) -> Iterator[Callable[[str], Project]]:
    """A project whose outputs lie on a file system of its own, mounted with the given options."""
    project = project_with()
    project.llmbatch_here("run", "--select", "input_snapshot,work_items")
    outputs = project.path("artifacts/cache/llm_outputs")
    outputs.mkdir()

    def mounted(options: str) -> Project:
        mount_or_skip(outputs, options)
        return project

    yield mounted
    subprocess.run(["umount", str(outputs)], check=False, capture_output=True)


def test_a_file_system_that_is_read_only_is_found_before_a_call(
    small_disk: Callable[[str], Project], server: ChatServer
) -> None:
    ended = small_disk("ro").llmbatch_here(*GENERATE)
    assert (ended.returncode, server.count()) == (1, 0)
    assert "cannot be written to" in ended.stdout + ended.stderr


def test_a_disk_that_fills_up_ends_the_run_and_what_is_on_it_is_whole(
    small_disk: Callable[[str], Project], server: ChatServer
) -> None:
    project = small_disk("size=128k")
    # Each output takes a page of the 32.
    questions(project, 60)
    project.llmbatch_here("run", "--select", "input_snapshot,work_items")

    ended = project.llmbatch_here(*GENERATE)

    assert ended.returncode == 1
    assert "an artifact cannot be read or written" in ended.stdout + ended.stderr
    whole = project.outputs()
    assert 0 < len(whole) < 40
    assert all(output["parsed"] for output in whole.values())
    asked = server.count()
    assert asked <= len(whole) + 8
    subprocess.run(["mount", "-o", "remount,size=2m", project.path("artifacts/cache/llm_outputs")], check=True)
    assert project.llmbatch_here(*GENERATE).returncode == 0
    assert len(project.outputs()) == 60
    assert server.count() == asked + 60 - len(whole)


def test_leftovers_of_writes_that_were_cut_short_are_swept_once_they_are_old(
    project_with: MakeProject, server: ChatServer
) -> None:
    project = project_with()
    old = [
        project.write(f"artifacts/{folder}/.a.json.0123abcd.tmp", "{")
        for folder in ("cache", "cache/llm_outputs", "cache/awaiting_judge", "outputs", "reports")
    ]
    theirs = project.write("artifacts/outputs/.notes.tmp", "somebody's own")
    young = project.write("artifacts/cache/llm_failures/.b.json.0123abcd.tmp", "{")
    for one in (*old, theirs):
        os.utime(one, (0, 0))
    assert project.llmbatch_here("run").returncode == 0
    assert not any(one.exists() for one in old)
    assert young.exists()
    assert theirs.exists()
    assert len(project.outputs()) == 5
