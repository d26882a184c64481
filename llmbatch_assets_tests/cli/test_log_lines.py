"""Log lines name the item, the attempt and the problem: in the terminal, in the log file and in the logs of Dagster's runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from llmbatch_assets_tests.chat_server import ChatServer, says, status
from llmbatch_assets_tests.project import ROWS, Project, make_project
from llmbatch_assets_tests.schema_answers import NEW, SCHEMA_PY, archived, asks_for_a_schema, fenced, with_schema_prompt

LOGGED = {"run": {"log_file": "run.log"}, "work_items": {"label_column": "id"}}
EXTRA = {"answer": "x", "certain": True, "note\x1b[2J\u202e": "1"}
REJECTION = {"reasons": ["too\n short", "not true"], "score": 10, "verdict": "FAIL"}


@pytest.fixture
def dagster_log(monkeypatch: pytest.MonkeyPatch) -> Callable[[Project], list[tuple[int, str]]]:
    """The levels and texts of what the runs of a project logged."""

    def lines_of(project: Project) -> list[tuple[int, str]]:
        monkeypatch.setenv("DAGSTER_HOME", str(project.path("dagster_home")))
        with dg.DagsterInstance.get() as instance:
            records = [record for run in instance.get_runs() for record in instance.all_logs(run.run_id)]
        return [(int(record.level), record.user_message) for record in records if record.dagster_event is None]

    return lines_of


def log_of(project: Project) -> str:
    return project.path("artifacts/logs/run.log").read_text(encoding="utf-8")


def test_an_invalid_answer_a_rejected_one_and_a_failed_item_are_named(
    project_with: Callable[..., Project],
    server: ChatServer,
    dagster_log: Callable[[Project], list[tuple[int, str]]],
) -> None:
    project = project_with(**LOGGED, prompts={"judge": {"enabled": True}})
    server.script("bridge", says(EXTRA), purpose="generate")
    server.script("the tower", says(REJECTION), purpose="judge")
    server.script("harbour", status(400, {"error": {"message": "the key secret-key\n is no \x07 harbour"}}))
    ended = project.llmbatch_here("run")
    assert ended.returncode == 3
    lines = {
        "invalid": r": LLM output invalid (attempt 1/3): extra_forbidden (note\x1b[2J\u202e)",
        "rejected": ": LLM output rejected by the judge (attempt 1/3, score 10): too short; not true",
        "failed": r" failed: no answer (attempt 1/3): bad_request: ",
    }
    for text in (ended.stdout, log_of(project)):
        for line in lines.values():
            assert line in text
        assert "secret-key" not in text
        assert not set(text) & {"\x1b", "\x07", "\u202e"}
    in_file = log_of(project)
    assert [line for line in in_file.splitlines() if " WARNING " in line and "q3-" in line]
    assert [line for line in in_file.splitlines() if " INFO " in line and lines["invalid"] in line]
    logged = dagster_log(project)
    assert [level for level, line in logged if lines["invalid"] in line] == [30]
    assert [level for level, line in logged if lines["rejected"] in line] == [30]
    assert [level for level, line in logged if "q3-" in line and "bad_request" in line] == [40]
    assert not [line for _, line in logged if "secret-key" in line]


def test_many_lines_of_a_kind_are_counted_in_the_terminal_and_kept_in_the_log_file(
    project_with: Callable[..., Project],
    server: ChatServer,
    dagster_log: Callable[[Project], list[tuple[int, str]]],
) -> None:
    project = project_with(**LOGGED, llm={"max_retries": 2, "max_workers": 4})
    project.table([(f"q{number}", "1", f"Question {number}?") for number in range(20)])
    server.script(lambda _: True, says("no JSON"), repeat_last=True)
    ended = project.llmbatch_here("run")
    assert ended.returncode == 3
    invalid, failed = ": LLM output invalid (attempt 1/2): ", " failed: LLM output invalid (attempt 2/2): "
    assert (ended.stdout.count(invalid), ended.stdout.count(failed)) == (3, 3)
    assert "... and 17 more attempts: not_json" in ended.stdout
    assert "... and 17 more attempts: failed: not_json" in ended.stdout
    in_file = log_of(project)
    assert (in_file.count(invalid), in_file.count(failed)) == (20, 20)
    assert "more attempts" not in in_file
    lines = [line for _, line in dagster_log(project)]
    assert sum(invalid in line for line in lines) == 10
    assert "... and 10 more attempts: not_json" in lines


def test_a_failed_item_has_one_line_without_a_log_file(
    project_with: Callable[..., Project], server: ChatServer
) -> None:
    # Without a handler, logging writes warnings to standard error.
    project = project_with()
    server.script("bridge", status(400, {"error": {"message": "not this one"}}))
    ended = project.llmbatch_here("run")
    assert ended.returncode == 3
    assert ended.stdout.count("not this one") == 1
    assert ended.stderr == ""


def test_nothing_is_said_of_attempts_without_progress_lines(
    project_with: Callable[..., Project], server: ChatServer
) -> None:
    project = project_with(cache={"verbose": 0})
    server.script("bridge", says(EXTRA))
    ended = project.llmbatch_here("run")
    assert (ended.returncode, "attempt 1/" in ended.stdout) == (0, False)


def test_a_broken_artifact_that_is_set_aside_is_named_in_all_logs(
    tmp_path: Path, server: ChatServer, dagster_log: Callable[[Project], list[tuple[int, str]]]
) -> None:
    project = make_project(tmp_path / "project", server.base_url, **LOGGED)
    assert project.llmbatch_here("run").returncode == 0
    broken = project.output_of(2)
    broken.write_text("{")
    # In a separate process: in this one, pytest captures the log.
    ended = project.llmbatch("run")
    assert ended.returncode == 0
    aside = f"{broken.name} was set aside as {broken.name}.broken because "
    assert aside in ended.stderr
    assert aside in log_of(project)
    assert [level for level, line in dagster_log(project) if aside in line] == [30]


def test_a_regenerated_schema_names_the_archived_one_and_both_fingerprints(
    project_with: Callable[..., Project],
    server: ChatServer,
    dagster_log: Callable[[Project], list[tuple[int, str]]],
) -> None:
    project = with_schema_prompt(lambda **_: project_with(**LOGGED))
    assert project.llmbatch_here("run").returncode == 0
    before = project.json("artifacts/cache/pipeline4_manifest.json")["meta"]["schema_sha"]
    server.script(asks_for_a_schema, says(fenced(NEW)))
    ended = project.llmbatch_here("run", "--select", "llm_schema_py,llm_schema_txt", "--force")
    assert ended.returncode == 0, ended.stderr
    kept = next(name for name in archived(project) if name.endswith(".py"))
    after = project.json("artifacts/cache/pipeline0_manifest.json")["meta"]["schema_sha"]
    assert before != after
    told = (
        f"The model wrote {SCHEMA_PY} in 1 attempt; archived the previous one as archived/{kept} "
        f"(schema_sha {before} -> {after})"
    )
    for text in (ended.stdout, log_of(project)):
        assert told in text
        assert f"Archived the previous {SCHEMA_PY} as archived/{kept}" in text
        assert "Archived the previous schema/llm_schema.txt as archived/llm_schema_" in text
    assert [line for _, line in dagster_log(project) if told in line]


def test_a_run_without_work_does_not_claim_to_generate(project_with: Callable[..., Project]) -> None:
    project = project_with(run={"log_file": "run.log"})
    assert project.llmbatch_here("run").returncode == 0
    project.path("artifacts/logs/run.log").unlink()
    ended = project.llmbatch_here("run")
    assert "Nothing to generate\n5 already done, 0 to run\n" in ended.stdout
    assert "Generating" not in ended.stdout
    assert " s: nothing to generate.\n" in log_of(project)
    assert "0 of 0" not in log_of(project)


def test_a_changed_row_that_reruns_its_group_is_explained_in_the_run(project_with: Callable[..., Project]) -> None:
    because = "Rows changed since the last run. The other rows of their groups run again, too"
    project = project_with(grouping={"enabled": True, "column": "team"})
    assert because not in project.llmbatch_here("run", "--limit", "2").stdout
    # The rest of an unchanged table.
    assert because not in project.llmbatch_here("run").stdout
    rows = [list(row) for row in ROWS]
    rows[3][2] = "Why is the river green?"
    project.table(rows)
    ended = project.llmbatch_here("run")
    assert "2 already done, 3 to run" in ended.stdout
    assert because in ended.stdout
    # A changed prompt is the reason of more.
    project.prompt("generation", {"user": "{context}\n\nAnswer well."})
    ended = project.llmbatch_here("run")
    assert "The generation prompt changed since the last run" in ended.stdout
    assert because not in ended.stdout
