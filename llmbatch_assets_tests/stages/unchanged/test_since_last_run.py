"""A run leaves out only work whose result is already there, in the files and in Dagster."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import dagster as dg
import pytest

from llmbatch_assets.adapters.store.artifact_cache import ARTIFACTS
from llmbatch_assets.stages.project import BatchFile
from llmbatch_assets.stages.unchanged.records import RecordMark
from llmbatch_assets.stages.unchanged.run_state import load_state
from llmbatch_assets.stages.unchanged.since_last_run import SinceLastRun
from llmbatch_assets_tests.project import GENERATION, ROWS, SCHEMA, Project, make_project, settings

NOTHING = "Nothing to do"
ENVIRONMENT = Project.environment


def run(project: Project, *arguments: str) -> str:
    ARTIFACTS.clear()
    ended = project.llmbatch_here("run", *arguments)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.fixture
def done(tmp_path: Path) -> Project:
    """A batch of which everything is done."""
    project = make_project(tmp_path / "project")
    run(project)
    return project


def versions(project: Project) -> dict[str, tuple[int, int]]:
    files = [path for path in project.root.rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in files if ".lock" not in path.name}


def test_a_run_with_nothing_to_do_opens_no_output_and_writes_nothing(done: Project, opened: list[str]) -> None:
    before = versions(done)
    opened.clear()
    said = run(done)
    assert said.startswith(NOTHING)
    assert "5 of 5 items accepted (0 new, 5 from cache), 0 failed, 0 not attempted" in said
    assert "artifacts/outputs/output.csv" in said
    assert opened == []
    assert versions(done) == before


def test_it_repeats_the_warnings_and_writes_the_log_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    project = make_project(tmp_path, run={"log_file": "run.log"})
    project.prompt("generation", {**GENERATION, "user": "{context} {{question}}"})
    run(project)
    log = project.path("artifacts/logs/run.log")
    log.unlink()
    caplog.clear()
    assert run(project).startswith(NOTHING)
    assert "{{question}}" in caplog.text
    assert NOTHING in log.read_text()


def edited(path: str, text: str) -> Callable[[Project], None]:
    def change(project: Project) -> None:
        file = project.path(path)
        file.write_text(file.read_text(encoding="utf-8") + text, encoding="utf-8")

    return change


def removed(path: str) -> Callable[[Project], None]:
    def change(project: Project) -> None:
        target = project.path(path)
        shutil.rmtree(target) if target.is_dir() else target.unlink()

    return change


def first_output(project: Project) -> Path:
    return sorted(project.path("artifacts/cache/llm_outputs").glob("*.json"))[0]


def mark_forced(project: Project) -> None:
    forced = project.path("artifacts/cache/forced")
    forced.mkdir(exist_ok=True)
    (forced / first_output(project).stem).touch()


def other_code(project: Project) -> None:
    path = project.path("artifacts/cache/run_state.json")
    state = json.loads(path.read_bytes())
    state["sources"]["code"] = "of an earlier version"
    path.write_text(json.dumps(state))


@contextmanager
def records(project: Project) -> Iterator[dg.DagsterInstance]:
    home = project.path("dagster_home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", str(home))
        with dg.DagsterInstance.from_config(str(home)) as instance:
            yield instance


def delete_run(project: Project) -> None:
    with records(project) as instance:
        instance.delete_run(instance.get_runs(limit=1)[0].run_id)


def wipe_asset(project: Project) -> None:
    with records(project) as instance:
        instance.wipe_assets([dg.AssetKey("llm_outputs")])


def remove_partition(project: Project) -> None:
    with records(project) as instance:
        instance.delete_dynamic_partition("work_items", project.partition_keys()[0])


def remove_databases(project: Project) -> None:
    for database in project.path("dagster_home/history").rglob("*.db*"):
        database.unlink()


def report_by_hand(project: Project) -> None:
    with records(project) as instance:
        instance.report_runless_asset_event(dg.AssetMaterialization("export"))


CHANGES: dict[str, Callable[[Project], object]] = {
    "a new row": lambda project: project.table([*ROWS, ("q6", "red", "Is it new?")]),
    "an edited row": lambda project: project.table([("q1", "red", "Is it edited?"), *ROWS[1:]]),
    "the prompt": lambda project: project.prompt("generation", {**GENERATION, "user": "{context} Be brief."}),
    "the schema": lambda project: project.write("schema/llm_schema.py", SCHEMA.replace("The answer.", "It.")),
    "the schema's text": removed("schema/llm_schema.txt"),
    "the configuration": lambda project: project.parameters(**settings(outputs={"formats": ["csv"]})),
    "the code": other_code,
    "an output that was edited": lambda project: edited(str(first_output(project)), " ")(project),
    "an output that is gone": lambda project: first_output(project).unlink(),
    "a marker to force an item": mark_forced,
    "the export": edited("artifacts/outputs/output.csv", "x"),
    "the list of what is not exported": removed("artifacts/outputs/output_not_exported.csv"),
    "the report": removed("artifacts/reports/report.html"),
    "the work items": edited("artifacts/cache/pipeline3_work_items.json", " "),
    "the snapshot": removed("artifacts/cache/pipeline2_input.json"),
    "a manifest": removed("artifacts/cache/pipeline4_manifest.json"),
    "the state after the last run": lambda project: (
        project.path("artifacts/cache/run_state.json").write_text("{}") and None
    ),
    "the call log": removed("artifacts/cache/usage.jsonl"),
    "the run history": edited("artifacts/cache/run_history.jsonl", "\n"),
    "all of Dagster's records": removed("dagster_home"),
    "Dagster's databases": remove_databases,
    "Dagster's settings": edited("dagster_home/dagster.yaml", "\n# edited\n"),
    "a run that was deleted in Dagster": delete_run,
    "an asset that was wiped in Dagster": wipe_asset,
    "a partition that was removed in Dagster": remove_partition,
    "an event of another process": report_by_hand,
}


def test_whatever_has_changed_the_next_run_does_its_work_and_the_one_after_it_nothing(done: Project) -> None:
    for what, change in CHANGES.items():
        change(done)
        said = run(done)
        assert not said.startswith(NOTHING), what
        assert "0 failed, 0 not attempted" in said, what
        statuses = {key: str(state) for key, state in done.partition_states().items()}
        assert set(statuses.values()) == {"AssetPartitionStatus.MATERIALIZED"}, what
        assert list(statuses) == done.partition_keys() or set(statuses) == set(done.partition_keys()), what
        assert run(done).startswith(NOTHING), what


def test_a_lost_database_of_known_outputs_costs_no_more_than_reading_them(done: Project, opened: list[str]) -> None:
    done.path("artifacts/cache/known_outputs.sqlite3").unlink()
    opened.clear()
    assert run(done).startswith(NOTHING)
    assert len(opened) == len(ROWS)
    opened.clear()
    assert run(done).startswith(NOTHING)
    assert opened == []


def test_known_outputs_that_claim_otherwise_are_not_believed(done: Project, caplog: pytest.LogCaptureFixture) -> None:
    output = first_output(done)
    stored = json.loads(output.read_bytes())
    with closing(sqlite3.connect(done.path("artifacts/cache/known_outputs.sqlite3"))) as database, database:
        database.execute("UPDATE outputs SET sha = 'wrong', score = 1")
    stored["parsed"] = {"answer": 3}
    output.write_text(json.dumps(stored))
    assert "(1 new, 4 from cache)" in run(done)
    assert "was set aside" in caplog.text


@pytest.mark.parametrize("block", [{"cache": {"force": True}}, {"cache": {"enabled": False}}])
def test_settings_that_make_every_run_generate_do_so(tmp_path: Path, block: Mapping[str, Mapping[str, bool]]) -> None:
    project = make_project(tmp_path, "", **block)
    run(project)
    assert "(5 new, 0 from cache)" in run(project)


def test_force_is_never_nothing(done: Project) -> None:
    assert "(5 new, 0 from cache)" in run(done, "--force")


def test_failed_items_are_tried_again(tmp_path: Path) -> None:
    project = make_project(tmp_path, budget={"max_items": 3})
    assert project.llmbatch_here("run").returncode == 1
    project.parameters(**settings())
    assert "(2 new, 3 from cache)" in run(project)


def test_a_mistake_is_reported_although_nothing_else_has_changed(done: Project) -> None:
    done.write("configs/parameters.yaml", done.config.read_text() + "\nunknown: 1\n")
    ended = done.llmbatch_here("run")
    assert ended.returncode == 2
    assert "unknown" in ended.stderr


def test_another_instance_of_dagster_gets_its_records(done: Project, tmp_path: Path) -> None:
    home = str(tmp_path / "home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            Project, "environment", lambda self, **extra: {**ENVIRONMENT(self, **extra), "DAGSTER_HOME": home}
        )
        assert not run(done).startswith(NOTHING)
        assert run(done).startswith(NOTHING)
    assert not run(done).startswith(NOTHING)


def test_a_trusted_module_may_depend_on_anything(tmp_path: Path) -> None:
    project = make_project(tmp_path, llm_schema={"trust": True})
    project.write("schema/words.py", 'MEANING = "The answer."')
    module = SCHEMA.replace('"The answer."', "words.MEANING").replace("from typing", "import words\nfrom typing")
    project.write("schema/llm_schema.py", f"import sys\nsys.path.insert(0, {str(tmp_path / 'schema')!r})\n{module}")
    run(project)
    assert not run(project).startswith(NOTHING)


def end_of_a_run(done: Project, during: Callable[[], object], before_publishing: Callable[[], object]) -> bool:
    """Go through a run in which others do something; return whether the next one would have nothing to do."""
    batch_file = BatchFile(done.config)
    last = SinceLastRun.of(batch_file)
    assert last.state is not None
    last.table = last.state.table
    last.note_prepared()
    during()
    before_publishing()
    last.note_generated()
    last.save(RecordMark(None, ""), n_accepted=len(ROWS))
    state = load_state(batch_file.load())
    return state is not None and state.settled is not None


def test_a_run_during_which_nobody_edited_anything_is_settled(done: Project) -> None:
    assert end_of_a_run(done, lambda: None, lambda: None)


@pytest.mark.parametrize("path", ["configs/parameters.yaml", "prompts/generation.yaml", "raw_data/input.csv"])
def test_an_edit_that_was_taken_back_during_a_run_may_have_been_read(done: Project, path: str) -> None:
    text = done.path(path).read_text()
    assert not end_of_a_run(done, lambda: done.write(path, f"{text}\n"), lambda: done.write(path, text))


def test_an_output_that_vanished_during_a_run_is_missed(done: Project) -> None:
    assert not end_of_a_run(done, first_output(done).unlink, lambda: None)


@pytest.mark.parametrize("path", ["artifacts/outputs/output.csv", "artifacts/reports/report.html"])
def test_a_published_file_that_was_edited_before_the_end_is_noticed(done: Project, path: str) -> None:
    assert not end_of_a_run(done, lambda: edited(path, "x")(done), lambda: None)


def prepared(said: str) -> str:
    """The line that names the assets which the prepare stage has made."""
    return next((line for line in said.splitlines() if line.startswith("prepare: ")), "")


def test_an_edited_prompt_reads_no_table_and_makes_no_items(done: Project, opened: list[str]) -> None:
    items = done.path("artifacts/cache/pipeline3_work_items.json").stat()
    done.prompt("generation", {**GENERATION, "user": "{context} Be brief."})
    opened.clear()
    said = run(done, "--limit", "2")
    # The schema has the prompts among its sources in Dagster.
    assert prepared(said) == "prepare: llm_schema_py, llm_schema_txt"
    assert [name for name in opened if name.endswith("input.csv")] == []
    assert done.path("artifacts/cache/pipeline3_work_items.json").stat() == items
    assert "2 of 5 items accepted (2 new" in said
    said = run(done)
    assert prepared(said) == ""
    assert "(3 new, 2 from cache)" in said


def test_a_prompt_that_names_another_column_makes_the_items_that_it_needs(done: Project) -> None:
    done.prompt("generation", {**GENERATION, "user": "{question}"})
    assert "work_items" in prepared(run(done, "--limit", "2"))
    # The items have its values now.
    done.prompt("generation", {**GENERATION, "user": "{question} Be brief."})
    assert prepared(run(done)) == "prepare: llm_schema_py, llm_schema_txt"


def test_warnings_about_empty_columns_stay_without_reading_the_table(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    project = make_project(tmp_path)
    project.table([("q1", "red", ""), *ROWS[1:]])
    project.prompt("generation", {**GENERATION, "user": "{question}"})
    run(project)
    caplog.clear()
    project.prompt("generation", {**GENERATION, "user": "{question} Be brief."})
    run(project)
    assert "no value for {question} in 1 row (1): the model gets no input" in caplog.text


def test_a_run_of_some_assets_makes_all_of_them(done: Project) -> None:
    assert (
        prepared(run(done, "--select", "input_snapshot,work_items"))
        == "prepare: input_snapshot, group_contexts, work_items"
    )
    assert not run(done).startswith(NOTHING)
    assert run(done).startswith(NOTHING)


def test_two_batches_do_not_hide_each_others_changes(done: Project) -> None:
    done.parameters("other", **settings(llm_schema={"py_path": "schema/llm_schema.py", "txt_path": "schema/other.txt"}))
    arguments = ("run", "--config", "configs/other.yaml")
    assert done.llmbatch_here(*arguments).returncode == 0
    assert run(done).startswith(NOTHING)
    assert done.llmbatch_here(*arguments).stdout.startswith(NOTHING)


def test_a_project_moved_elsewhere_does_its_work_once(done: Project, tmp_path: Path) -> None:
    shutil.copytree(done.root, tmp_path / "copy")
    copy = Project(tmp_path / "copy")
    assert not run(copy).startswith(NOTHING)
    assert run(copy).startswith(NOTHING)
