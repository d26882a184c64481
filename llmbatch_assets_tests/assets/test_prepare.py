"""``llm_schema_py`` and ``llm_schema_txt`` as Dagster sees them: what was done, and where it can be seen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from llmbatch_assets.assets.batch import build_batch
from llmbatch_assets.stages.project import BatchFile
from llmbatch_assets_tests.chat_server import ChatServer, says
from llmbatch_assets_tests.project import GENERATION, Project, make_project
from llmbatch_assets_tests.schema_answers import BROKEN, NEW, archived, fenced, with_schema_prompt

QUIET = {"console": {"config": {"log_level": "CRITICAL"}}}


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", "secret-key")


@pytest.fixture
def home(tmp_path: Path, server: ChatServer) -> Callable[..., Project]:
    """Makes a project with the shipped schema prompt."""

    def make(**blocks: Any) -> Project:
        return with_schema_prompt(lambda **more: make_project(tmp_path / "project", server.base_url, **more), **blocks)

    return make


def materialize(project: Project, instance: dg.DagsterInstance, asset: str, **config: Any) -> dg.ExecuteInProcessResult:
    """One run of one asset, as the UI launches it."""
    job = build_batch(project.config).definitions().resolve_job_def("prepare")
    return job.execute_in_process(
        instance=instance,
        asset_selection=[dg.AssetKey(asset)],
        run_config={"loggers": QUIET, "ops": {asset: {"config": config}} if config else {}},
        raise_on_error=False,
    )


def metadata(run: dg.ExecuteInProcessResult, asset: str) -> dict[str, Any]:
    """What the run tells of its asset."""
    assert run.success
    [event] = run.asset_materializations_for_node(asset)
    return {name: value.value for name, value in event.metadata.items()}


def logged(instance: dg.DagsterInstance, run: dg.ExecuteInProcessResult) -> str:
    """The run's log."""
    return "\n".join(entry.user_message for entry in instance.all_logs(run.run_id))


def sha_of(project: Project) -> str:
    return BatchFile(project.config).load().schema.output().sha


def test_a_schema_that_exists_is_vetted_and_its_fingerprint_reported(
    home: Callable[..., Project], server: ChatServer, instance: dg.DagsterInstance
) -> None:
    project = home()
    before = project.tree()

    run = materialize(project, instance, "llm_schema_py")

    told = metadata(run, "llm_schema_py")
    assert told["schema_sha"] == sha_of(project)
    assert (told["source"], told["schema_check"]) == ("existing file", "passed")
    assert told["models"] == "LLMOutput, JudgeResult"
    assert f"Using existing schema/llm_schema.py (checks passed, schema_sha={sha_of(project)})" in logged(instance, run)
    assert server.count() == 0
    assert {name: text for name, text in project.tree().items() if name in before} == before
    assert archived(project) == {}


def test_force_tells_attempts_archive_and_fingerprint(
    home: Callable[..., Project], server: ChatServer, instance: dg.DagsterInstance
) -> None:
    project = home()
    before = sha_of(project)
    server.script(lambda _: True, says(fenced(BROKEN)), says(fenced(NEW)))

    run = materialize(project, instance, "llm_schema_py", force=True)

    told = metadata(run, "llm_schema_py")
    assert told["attempts"] == 2
    assert told["tokens"] > 0
    assert told["archived"] == f"archived/{next(iter(archived(project)))}"
    assert told["schema_sha"] == sha_of(project) != before
    assert told["source"] == "generated (forced)"
    [event] = run.asset_materializations_for_node("llm_schema_py")
    assert (event.tags or {})["dagster/data_version"] == sha_of(project)
    assert "Schema answer 1 of 3 rejected" in logged(instance, run)


def test_a_schema_of_which_no_answer_passes_is_a_failed_run_that_says_why(
    home: Callable[..., Project], server: ChatServer, instance: dg.DagsterInstance
) -> None:
    project = home()
    server.fallback_answer = lambda _: fenced(BROKEN)

    run = materialize(project, instance, "llm_schema_py", force=True)

    assert not run.success
    assert run.asset_materializations_for_node("llm_schema_py") == []
    assert server.count() == 3
    [failure] = [event for event in run.all_events if event.is_step_failure]
    assert "none of 3 answers is a valid schema module" in str(failure.step_failure_data.error)


def test_a_trusted_schema_is_said_to_be_one(home: Callable[..., Project], instance: dg.DagsterInstance) -> None:
    project = home(llm_schema={"trust": True})
    run = materialize(project, instance, "llm_schema_py")
    assert metadata(run, "llm_schema_py")["schema_check"] == "skipped (llm_schema.trust)"
    assert "not checked, llm_schema.trust is set" in logged(instance, run)


def test_the_text_is_written_once_and_on_demand(home: Callable[..., Project], instance: dg.DagsterInstance) -> None:
    project = home()
    rewritten = [
        metadata(materialize(project, instance, "llm_schema_txt", **config), "llm_schema_txt")["file_changed"]
        for config in ({}, {}, {"force": True})
    ]
    assert rewritten == [True, False, True]
    assert len(archived(project)) == 1


# Items hold the values of the columns that prompts name.


def test_a_prompt_that_names_a_column_needs_new_items_and_a_run_without_them_says_so(
    home: Callable[..., Project], server: ChatServer, instance: dg.DagsterInstance
) -> None:
    project = home(context={"columns": {"mode": "include", "include": ["question"]}})
    definitions = build_batch(project.config).definitions()

    def launch(job: str) -> dg.ExecuteInProcessResult:
        quiet = {"loggers": QUIET}
        return definitions.resolve_job_def(job).execute_in_process(
            instance=instance, run_config=quiet, raise_on_error=False
        )

    assert launch("prepare").success
    assert launch("generate_pending").success
    n_calls = len(server.calls)
    project.prompt("generation", {**GENERATION, "user": "{{ team }} {context} Of team {team}."})
    refused = launch("generate_pending")
    assert not refused.success
    assert "llmbatch run --select work_items" in failure_of(instance, refused)
    assert len(server.calls) == n_calls
    prepared = launch("prepare")
    assert "`{{ team }}` is sent as `{ team }`; write {team} to insert the value" in logged(instance, prepared)
    assert launch("generate_pending").success
    assert {call.messages[-1]["content"].rpartition(" ")[2] for call in server.calls[n_calls:]} == {"red.", "blue."}


def failure_of(instance: dg.DagsterInstance, run: dg.ExecuteInProcessResult) -> str:
    """The messages of the steps that failed."""
    return "\n".join(str(event.event_specific_data) for event in run.all_events if event.is_step_failure)
