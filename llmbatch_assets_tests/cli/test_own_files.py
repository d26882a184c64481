"""No file of the user's or of another batch is overwritten: ``check``, ``plan``, ``run`` and Dagster refuse to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from llmbatch_assets import definitions
from llmbatch_assets.errors import ConfigError, SharedFilesError
from llmbatch_assets_tests.memory_storage import kept_in_memory
from llmbatch_assets_tests.project import SCHEMA, Project, make_project, settings

COMMANDS = (("check",), ("plan",), ("run", "--limit", "2"), ("run", "--select", "export"), ("prune", "--yes"))


def is_told(project: Project, message: str) -> None:
    """Every command ends in this message and changes no file."""
    before = project.tree()
    for command in COMMANDS:
        ended = project.llmbatch_here(*command)
        assert ended.returncode == 2, (command, ended.stdout)
        assert f"{project.config}: {message}" in ended.stdout + ended.stderr
        assert project.tree() == before


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        (
            {"outputs": {"formats": ["csv"], "csv_path": "raw_data/input.csv"}},
            (
                "outputs.csv_path: raw_data/input.csv is also the input table (input.path), which a run would overwrite; "
                "name another file"
            ),
        ),
        (
            {"outputs": {"formats": ["csv"], "csv_path": "RAW_DATA/Input.csv"}},
            (
                "outputs.csv_path: RAW_DATA/Input.csv is the same as raw_data/input.csv, the input table (input.path), "
                "which a run would overwrite; name another file"
            ),
        ),
        (
            {"report": {"md_path": "configs/parameters.yaml"}},
            (
                "report.md_path: configs/parameters.yaml is also the configuration, which a run would overwrite; "
                "name another file"
            ),
        ),
        (
            {"report": {"html_path": "prompts/generation.yaml"}},
            (
                "report.html_path: prompts/generation.yaml is also the generation prompt (prompts.generation.path), which a "
                "run would overwrite; name another file"
            ),
        ),
        (
            {"run": {"log_file": "schema/llm_schema.py"}},
            "run.log_file: schema/llm_schema.py is also the schema module (llm_schema.py_path); give each its own path",
        ),
        (
            {"llm_schema": {"txt_path": "credentials.yaml"}},
            (
                "llm_schema.txt_path: credentials.yaml is also the file with the API keys, which a run would overwrite; "
                "name another file"
            ),
        ),
        (
            {"outputs": {"not_exported_path": "artifacts/cache/usage.jsonl"}},
            (
                "outputs.not_exported_path: artifacts/cache/usage.jsonl is also the call log (cache.dir); give each "
                "its own path"
            ),
        ),
        (
            {"outputs": {"formats": ["csv"], "csv_path": "made"}, "report": {"md_path": "made"}},
            "report.md_path: made is also the csv export (outputs.csv_path); give each its own path",
        ),
        (
            {"outputs": {"formats": ["csv"], "csv_path": "made"}, "report": {"md_path": "made/report.md"}},
            (
                "outputs.csv_path: made is also the folder of made/report.md, the Markdown report (report.md_path); "
                "name another file"
            ),
        ),
        (
            {"outputs": {"formats": ["jsonl"], "jsonl_path": "artifacts/cache/llm_outputs/a.json"}},
            (
                "outputs.jsonl_path: artifacts/cache/llm_outputs/a.json is in artifacts/cache/llm_outputs, a folder of "
                "artifacts; name a file elsewhere"
            ),
        ),
        (
            {"outputs": {"formats": ["csv"], "csv_path": "schema"}},
            (
                "outputs.csv_path: schema is also the folder of schema/llm_schema.txt, the schema text "
                "(llm_schema.txt_path); name another file"
            ),
        ),
        (
            {"artifacts": {"dir": "raw_data/input.csv"}},
            (
                "artifacts.dir: raw_data/input.csv cannot be written, because raw_data/input.csv is a file, not a folder; "
                "name another path"
            ),
        ),
    ],
)
def test_a_path_that_a_run_would_overwrite_is_refused(tmp_path: Path, blocks: dict[str, Any], message: str) -> None:
    is_told(make_project(tmp_path / "project", **blocks), message)


def test_a_link_to_the_table_is_refused(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project", outputs={"formats": ["csv"], "csv_path": "made/out.csv"})
    project.path("made").mkdir()
    project.path("made/out.csv").symlink_to(project.path("raw_data/input.csv"))
    is_told(project, "outputs.csv_path: made/out.csv is the same as raw_data/input.csv, the input table (input.path)")


def test_dagster_overwrites_nothing_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = make_project(tmp_path / "project")
    monkeypatch.chdir(project.root)
    loaded = definitions.defs()
    # Edited while Dagster runs.
    project.parameters(**settings(outputs={"formats": ["csv"], "csv_path": "raw_data/input.csv"}))
    before = project.tree()
    with dg.DagsterInstance.ephemeral() as instance, pytest.raises(dg.Failure, match="is also the input table"):
        loaded.resolve_job_def("prepare").execute_in_process(instance=instance)
    assert project.tree() == before
    with pytest.raises(ConfigError, match="is also the input table"):
        definitions.defs()


# Files that exist already.

ELSEWHERE: dict[str, Any] = {
    "outputs": {
        "formats": ["csv", "psv", "tsv", "jsonl", "xlsx", "parquet"],
        "csv_path": "made/a.csv",
        "psv_path": "made/a.psv",
        "tsv_path": "made/a.tsv",
        "jsonl_path": "made/a.jsonl",
        "xlsx_path": "made/a.xlsx",
        "parquet_path": "made/a.parquet",
        "not_exported_path": "made/rest.csv",
    },
    "report": {"md_path": "made/report.md", "html_path": "made/report.html"},
    "run": {"log_file": "made/run.log"},
}


def test_a_file_that_no_run_has_written_stays(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project", **ELSEWHERE)
    names = [name for name in (*ELSEWHERE["outputs"].values(), *ELSEWHERE["report"].values()) if isinstance(name, str)]
    for name in [*names, "made/run.log"]:
        project.write(name, "id,name\n1,mine\n")
    before = project.tree()
    for command in (("check",), ("plan",), ("run", "--limit", "2")):
        ended = project.llmbatch_here(*command)
        assert ended.returncode == 2
        told = ended.stdout + ended.stderr
        assert told.count("exists and was not written by a run; move it away, or name another file") == len(names) + 1
        assert f"{project.config}: outputs.csv_path: made/a.csv exists" in told
        assert f"{project.config}: run.log_file: made/run.log exists" in told
    assert project.tree() == before


def test_what_runs_have_written_is_replaced_even_if_the_record_is_lost(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project", **ELSEWHERE)
    with kept_in_memory(project.path("dagster_home")):
        assert project.llmbatch_here("run").returncode == 0
        made = {name: content for name, content in project.tree().items() if name.startswith("made/a.")}
        assert len(made) == 6
        for manifest in ("pipeline5_manifest.json", "pipeline6_manifest.json"):
            project.path(f"artifacts/cache/{manifest}").unlink()
        assert project.llmbatch_here("run").returncode == 0
        # Recorded, whatever an editor has made of it.
        project.write("made/a.csv", "edited")
        assert project.llmbatch_here("run").returncode == 0
    assert {name: project.tree()[name] for name in made} == made


def test_dagster_replaces_no_file_of_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = make_project(tmp_path / "project", outputs={"formats": ["csv"], "csv_path": "raw_data/other.csv"})
    monkeypatch.chdir(project.root)
    loaded = definitions.defs()
    with dg.DagsterInstance.ephemeral() as instance:
        for job in ("prepare", "generate_pending"):
            loaded.resolve_job_def(job).execute_in_process(instance=instance)
        project.write("raw_data/other.csv", "id,name\n1,mine\n")
        with pytest.raises(dg.Failure, match=r"raw_data/other\.csv exists and was not written by a run"):
            loaded.resolve_job_def("publish").execute_in_process(instance=instance)
    assert project.path("raw_data/other.csv").read_text() == "id,name\n1,mine\n"


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_folder_that_cannot_be_written_is_reported_before_anything_is_paid(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project", outputs={"formats": ["csv"], "csv_path": "locked/a.csv"})
    project.path("locked").mkdir(mode=0o500)
    for command in ("check", "run"):
        ended = project.llmbatch_here(command)
        assert ended.returncode == 2
        assert "outputs.csv_path: locked/a.csv cannot be written: no permission" in ended.stdout + ended.stderr


# Two batches.


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (
            {"artifacts": {"dir": "made"}},
            {"artifacts": {"dir": "made"}},
            "artifacts.dir: made is also the folder for artifacts (artifacts.dir) of configs/second.yaml",
        ),
        (
            {},
            {"cache": {"dir": "artifacts/cache"}},
            "cache.dir: artifacts/cache is also the cache folder (cache.dir) of configs/second.yaml",
        ),
        (
            {},
            {"artifacts": {"dir": "artifacts/cache/second"}},
            (
                "cache.dir: artifacts/cache and artifacts/cache/second are nested folders; the latter is the folder for "
                "artifacts (artifacts.dir) of configs/second.yaml"
            ),
        ),
        (
            {"outputs": {"formats": ["csv"], "csv_path": "a.csv"}},
            {"outputs": {"not_exported_path": "a.csv"}},
            (
                "outputs.csv_path: a.csv is also the list of items that were not exported (outputs.not_exported_path) of "
                "configs/second.yaml"
            ),
        ),
        (
            {"report": {"md_path": "report.md"}},
            {"report": {"md_path": "report.md"}},
            "report.md_path: report.md is also the Markdown report (report.md_path) of configs/second.yaml",
        ),
        (
            {"llm_schema": {"txt_path": "schema/text"}},
            {"llm_schema": {"txt_path": "schema/text"}},
            "llm_schema.txt_path: schema/text is also the schema text (llm_schema.txt_path) of configs/second.yaml",
        ),
    ],
)
def test_two_batches_that_write_the_same_files_are_refused(
    tmp_path: Path, first: dict[str, Any], second: dict[str, Any], message: str
) -> None:
    project = make_project(tmp_path / "project", **first)
    project.parameters("second", **settings(**second))
    remedy = ". Two batches must not write the same files: name another path in one of them"
    is_told(project, message + remedy)
    refused = project.llmbatch_here("run", "--config", "configs/second.yaml")
    assert refused.returncode == 2
    assert "configs/parameters.yaml" in refused.stderr
    # A batch that cannot run does not stop another one.
    project.parameters("second", **settings(**second, promts={}))
    assert project.llmbatch_here("plan").returncode == 0


def test_a_pair_that_shares_files_does_not_take_down_the_other_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    project = make_project(tmp_path / "project", artifacts={"dir": "made"})
    project.parameters("second", **settings(artifacts={"dir": "made"}))
    project.parameters("third", **settings())
    project.write("schema/third/llm_schema.py", SCHEMA)
    monkeypatch.chdir(project.root)
    loaded = definitions.defs()
    jobs = {job.name for job in loaded.resolve_all_job_defs() if not job.name.startswith("__")}
    assert jobs == {f"third__{name}" for name in ("prepare", "generate_pending", "publish", "run_all")}
    told = caplog.text
    assert "skipping batch second" in told
    assert "skipping batch parameters" in told
    with kept_in_memory(project.path("dagster_home")):
        assert project.llmbatch_here("run", "--config", "configs/third.yaml").returncode == 0
    # With nothing left, the reason is the error.
    project.path("configs/third.yaml").unlink()
    with pytest.raises(SharedFilesError, match="Two batches must not write the same files"):
        definitions.defs()
