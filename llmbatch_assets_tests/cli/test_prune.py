"""``llmbatch prune``: only what no present setting points at goes, and only when it is asked for."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

import pytest

from llmbatch_assets.adapters.store.claims import claiming
from llmbatch_assets_tests.chat_server import ChatServer, says
from llmbatch_assets_tests.project import GENERATION, JUDGE, ROWS, Project, settings

RUN = ("run", "--select", "llm_schema_txt,input_snapshot,work_items,llm_outputs")
JUDGED = {"prompts": {"judge": {"enabled": True}}}
OUTPUTS, FAILURES = "artifacts/cache/llm_outputs", "artifacts/cache/llm_failures"
PRUNES = "import sys; from llmbatch_assets.cli import main; main(['prune', '--yes'])"


def ids(project: Project) -> set[str]:
    return set(project.outputs())


def kinds(project: Project, *arguments: str) -> dict[str, int]:
    ended = project.llmbatch_here("prune", "--json", *arguments)
    assert ended.returncode == 0, ended.stderr
    return {kind["kind"]: kind["n_files"] for kind in json.loads(ended.stdout)["kinds"]}


def with_other_prompt(project: Project) -> None:
    project.prompt("generation", {**GENERATION, "user": "{context} Answer it, please."})


def test_what_other_settings_left_is_listed_and_deleted_only_when_asked(project: Project, server: ChatServer) -> None:
    server.script("harbour", says("no"))
    assert project.llmbatch_here(*RUN).returncode == 0
    old = ids(project)
    with_other_prompt(project)
    server.script("river", says("no"))
    assert project.llmbatch_here(*RUN).returncode == 0
    new = ids(project) - old
    current_failures = {name for name in project.failures() if name.split("__")[0] in new}
    project.write(f"{OUTPUTS}/{'a' * 40}.json.broken", "cut")
    project.write(f"{OUTPUTS}/notes.json", "mine")
    project.write("archived/llm_schema_20260101_000000.py", "old")
    project.write("archived/mine.py", "mine")
    before = project.tree()

    listed = project.llmbatch_here("prune")

    assert listed.returncode == 0, listed.stderr
    assert project.tree() == before
    for told in (
        "outputs of other settings: 5 files",
        "failed attempts of other settings: 1 file,",
        "archived schema files: 1 file,",
    ):
        assert told in listed.stdout
    assert "If you delete these" in listed.stdout
    assert "llmbatch diff" in listed.stdout

    deleted = project.llmbatch_here("prune", "--yes")

    assert deleted.returncode == 0, deleted.stderr
    kept = {path.stem for path in project.path(OUTPUTS).glob("*.json")} - {"notes"}
    assert kept == new
    assert set(project.failures()) == current_failures != set()
    assert not list(project.path(OUTPUTS).glob("*.broken"))
    assert [path.name for path in project.path("archived").iterdir()] == ["mine.py"]
    assert project.path("artifacts/cache/usage.jsonl").read_bytes() == before["artifacts/cache/usage.jsonl"]
    calls = server.count()
    project.path(f"{OUTPUTS}/notes.json").unlink()
    assert project.llmbatch_here("run").returncode == 0
    assert server.count() == calls
    assert kinds(project) == {}


def test_outputs_of_rows_that_have_gone_stay_unless_they_are_asked_for(project: Project, server: ChatServer) -> None:
    assert project.llmbatch_here(*RUN).returncode == 0
    project.table(ROWS[:3])
    assert project.llmbatch_here(*RUN).returncode == 0
    assert "kept: 2 files of the current settings for rows that are no longer" in project.llmbatch_here("prune").stdout
    assert kinds(project, "--yes") == {}
    assert len(ids(project)) == 5
    assert kinds(project, "--yes", "--gone-rows") == {"outputs of rows that have gone": 2}
    assert len(ids(project)) == 3


def test_a_table_that_no_run_has_seen_yet_counts(project: Project) -> None:
    project.table(ROWS[:3])
    assert project.llmbatch_here(*RUN).returncode == 0
    project.table(ROWS)
    assert project.llmbatch_here(*RUN).returncode == 0
    project.table(ROWS[:2])
    project.llmbatch_here("run", "--select", "input_snapshot,work_items")
    project.table(ROWS)
    assert kinds(project, "--gone-rows") == {}


def test_what_the_present_judge_has_still_to_see_stays(
    project_with: Callable[..., Project], server: ChatServer
) -> None:
    project = project_with(**JUDGED)
    assert project.llmbatch_here(*RUN).returncode == 0
    project.prompt("judge", {**JUDGE, "user": "{context} Is it good? {output_json}"})
    assert kinds(project, "--yes") == {}
    assert project.llmbatch_here(*RUN).returncode == 0
    assert server.count("generate") == 5
    # Now that they are judged, they have served.
    assert kinds(project)["outputs of other settings"] == 5


def test_another_batch_has_its_own_files_and_a_shared_cache_stops_all(project: Project, server: ChatServer) -> None:
    assert project.llmbatch_here(*RUN).returncode == 0
    with_other_prompt(project)
    project.parameters("second", **settings(server.base_url, cache={"dir": "artifacts/cache"}))
    ended = project.llmbatch_here("prune", "--yes")
    assert ended.returncode == 2
    assert "Two batches must not write the same files" in ended.stderr
    assert len(ids(project)) == 5
    project.parameters("second", llm={"provider": "none"})
    assert kinds(project, "--yes")["outputs of other settings"] == 5


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such locks")
def test_nothing_is_deleted_while_a_run_is_at_work(project: Project) -> None:
    assert project.llmbatch_here(*RUN).returncode == 0
    with_other_prompt(project)
    with claiming(project.path("artifacts/cache/claims.lock")) as claims:
        assert claims.claim("f" * 40)
        ended = subprocess.run(
            [sys.executable, "-c", PRUNES],
            cwd=project.root,
            env=project.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 1
        assert "a run is working on this batch" in ended.stderr
        assert len(ids(project)) == 5
    assert project.llmbatch_here("prune", "--yes").returncode == 0
    assert ids(project) == set()
