"""The version of work items covers how they are made, not which rows there are; mistakes elsewhere do not stop them."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmbatch_assets.stages.prepare import (
    SOURCE_VERSIONS,
    outlook_on,
    prepare_work,
    snapshot_of_asset,
    snapshot_version,
)
from llmbatch_assets.stages.project import Batch, BatchFile
from llmbatch_assets_tests.project import ROWS, Project, make_project, settings


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return make_project(tmp_path / "project")


def batch_of(project: Project) -> Batch:
    return BatchFile(project.config).load()


def version_of(project: Project) -> str:
    batch = batch_of(project)
    return prepare_work(batch, batch.read_snapshot()).version


def test_a_new_row_leaves_the_version_and_another_context_does_not(project: Project) -> None:
    before = version_of(project)
    project.table([*ROWS, ("q9", "green", "Is this row new?")])
    assert version_of(project) == before
    project.parameters(**settings(context={"max_context_chars": 10}))
    assert version_of(project) != before


def test_a_table_of_another_asset_has_the_version_of_its_content(project: Project) -> None:
    batch = batch_of(project)
    records = [{"a": "1"}, {"a": "2"}]
    versions = [snapshot_version(snapshot_of_asset(batch, table, "t")) for table in (records, records, records[:1])]
    assert versions[0] == versions[1] != versions[2]


def test_a_mistake_in_the_prompt_leaves_the_outlook_open(project: Project) -> None:
    batch = batch_of(project)
    plan = prepare_work(batch, batch.read_snapshot()).plan
    outlook = outlook_on(batch, plan)
    assert outlook is not None
    assert outlook.headline.startswith("5 items")
    assert outlook.age.message == "5 of 5 items have no output. Run generate_pending to make them."
    project.write("prompts/generation.yaml", "user: '{contxt}'")
    assert outlook_on(batch_of(project), plan) is None


def test_a_source_has_another_version_once_its_file_changes(project: Project) -> None:
    before = {name: version(batch_of(project)) for name, version in SOURCE_VERSIONS.items()}
    project.table(ROWS[:2])
    project.write("prompts/generation.yaml", "user: '{context} Be brief.'")
    project.parameters(**settings(llm={"max_workers": 7}))
    after = {name: version(batch_of(project)) for name, version in SOURCE_VERSIONS.items()}
    assert {name for name in before if before[name] != after[name]} == {"input_table", "prompts", "parameters"}
    # Only what changes the outputs.
    project.parameters(**settings(llm={"temperature": 0.7}))
    last = {name: version(batch_of(project)) for name, version in SOURCE_VERSIONS.items()}
    assert {name for name in before if last[name] != after[name]} == {"parameters", "model_settings"}
