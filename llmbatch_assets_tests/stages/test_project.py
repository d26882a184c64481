"""Finding the configuration file, and loading a batch from it."""

import os
from pathlib import Path

import pytest

from llmbatch_assets.errors import ConfigError, PromptError, SchemaError, TableError
from llmbatch_assets.stages.project import CONFIG_ENV, BatchFile, find_config
from llmbatch_assets_tests.project import Project, make_project


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")
    return path.resolve()


@pytest.fixture
def offline_project(tmp_path: Path) -> Project:
    return make_project(tmp_path / "village")


# Which file is taken.


def test_the_option_goes_before_the_environment_and_the_folders(tmp_path: Path) -> None:
    given, named = touch(tmp_path / "given.yaml"), touch(tmp_path / "named.yaml")
    nearest = touch(tmp_path / "configs/parameters.yaml")
    environment = {CONFIG_ENV: str(named)}
    assert find_config(str(given), environment, tmp_path) == given
    assert find_config(None, environment, tmp_path) == named
    assert find_config(None, {}, tmp_path) == nearest


def test_the_nearest_file_upwards_is_taken(tmp_path: Path) -> None:
    outer = touch(tmp_path / "configs/parameters.yaml")
    inner = touch(tmp_path / "a/configs/parameters.yaml")
    deep = tmp_path / "a/b/c"
    deep.mkdir(parents=True)
    assert find_config(None, {}, deep) == inner
    inner.unlink()
    assert find_config(None, {}, deep) == outer


def test_names_are_relative_to_where_one_stands(tmp_path: Path) -> None:
    other = touch(tmp_path / "a/configs/other.yaml")
    assert find_config("configs/other.yaml", {}, tmp_path / "a") == other
    assert find_config(None, {CONFIG_ENV: "../a/configs/other.yaml"}, tmp_path / "a") == other


def test_an_empty_variable_names_nothing(tmp_path: Path) -> None:
    nearest = touch(tmp_path / "configs/parameters.yaml")
    assert find_config(None, {CONFIG_ENV: ""}, tmp_path) == nearest


def test_a_folder_is_no_configuration_file(tmp_path: Path) -> None:
    nearest = touch(tmp_path / "configs/parameters.yaml")
    (tmp_path / "a/configs/parameters.yaml").mkdir(parents=True)
    assert find_config(None, {}, tmp_path / "a") == nearest


def test_a_named_file_that_is_not_there_is_not_replaced_by_another(tmp_path: Path) -> None:
    touch(tmp_path / "configs/parameters.yaml")
    with pytest.raises(ConfigError, match=r"gone\.yaml does not exist \(named by --config\)"):
        find_config("gone.yaml", {}, tmp_path)
    with pytest.raises(ConfigError, match=rf"gone\.yaml does not exist \(named by {CONFIG_ENV}\)"):
        find_config(None, {CONFIG_ENV: "gone.yaml"}, tmp_path)


def test_without_any_file_it_is_said_where_was_looked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no configs/parameters\.yaml in .* or above; .*--config") as refusal:
        find_config(None, {}, tmp_path)
    assert str(tmp_path) in str(refusal.value)


# What a batch makes of it.


def test_the_project_is_the_folder_that_holds_configs(tmp_path: Path) -> None:
    assert BatchFile(tmp_path / "configs/parameters.yaml").root == tmp_path
    assert BatchFile(tmp_path / "elsewhere/batch.yaml").root == tmp_path / "elsewhere"


def test_the_default_batch_has_plain_paths_and_another_has_its_own(offline_project: Project) -> None:
    other = offline_project.parameters("night", llm={"provider": "offline"})
    plain, night = BatchFile(offline_project.config).load(), BatchFile(other).load()
    assert str(plain.layout.work_items) == "artifacts/cache/pipeline3_work_items.json"
    assert str(night.layout.work_items) == "artifacts/night/cache/pipeline3_work_items.json"


def test_a_batch_is_called_by_its_own_name_or_its_file(offline_project: Project) -> None:
    named = offline_project.parameters("night", run={"name": "Night shift"})
    unnamed = offline_project.parameters("day")
    batches = [BatchFile(path).load() for path in (named, unnamed, offline_project.config)]
    assert [batch.title for batch in batches] == ["Night shift", "day", "LLM batch"]


def test_offline_replaces_the_provider_and_tells_so_in_every_id(project: Project) -> None:
    online, offline = BatchFile(project.config).load(), BatchFile(project.config, offline=True).load()
    assert (online.source.provider, offline.source.provider) == ("openai", "offline")
    assert online.source.identity.cache_id("w") != offline.source.identity.cache_id("w")


def test_a_project_that_is_moved_keeps_its_ids(tmp_path: Path) -> None:
    here, there = make_project(tmp_path / "here"), make_project(tmp_path / "there/deep")
    first, second = (BatchFile(one.config).load().source.identity.cache_id("w") for one in (here, there))
    assert first == second


def test_files_are_shown_relative_to_the_project(offline_project: Project) -> None:
    batch = BatchFile(offline_project.config).load()
    assert batch.shown(offline_project.root / "schema" / "llm_schema.py") == "schema/llm_schema.py"
    outside = offline_project.root.parent / "other" / "x.py"
    assert batch.shown(outside) == outside.as_posix()


def test_the_judge_takes_part_only_when_it_is_enabled(offline_project: Project) -> None:
    without = BatchFile(offline_project.config).load()
    offline_project.parameters(llm={"provider": "offline"}, prompts={"judge": {"enabled": True}})
    with_judge = BatchFile(offline_project.config).load()
    assert without.judge_prompt is None
    assert with_judge.judge_prompt is not None
    assert with_judge.source.identity.cache_id("w") != without.source.identity.cache_id("w")
    texts, judged_texts = ({name for name in of.provenance() if "_" not in name} for of in (without, with_judge))
    assert texts == {without.generation_prompt.sha, without.schema.output().sha}
    assert texts < judged_texts
    assert f"identity_{without.source.identity.sha}" in without.provenance()


def test_a_batch_that_is_not_judged_needs_no_judges_file(offline_project: Project) -> None:
    offline_project.path("prompts/judge.yaml").unlink()
    assert BatchFile(offline_project.config).load().conversations.judge is None


def test_missing_files_are_named_when_they_are_needed(offline_project: Project) -> None:
    for relative in ("raw_data/input.csv", "prompts/generation.yaml", "schema/llm_schema.py"):
        offline_project.path(relative).unlink()
    batch = BatchFile(offline_project.config).load()
    with pytest.raises(TableError, match=r"input\.csv does not exist; set input\.path"):
        batch.read_snapshot()
    with pytest.raises(PromptError, match=r"generation\.yaml does not exist"):
        _ = batch.generation_prompt
    with pytest.raises(SchemaError, match=r"llm_schema\.py does not exist"):
        _ = batch.schema


def test_the_snapshot_does_not_say_where_the_project_lies(offline_project: Project) -> None:
    snapshot = BatchFile(offline_project.config).load().read_snapshot()
    assert snapshot.n_rows == 5
    assert os.fspath(offline_project.root) not in snapshot.model_dump_json()


def test_every_change_of_a_parameter_is_another_fingerprint(offline_project: Project) -> None:
    before = BatchFile(offline_project.config).load().config_sha()
    assert BatchFile(offline_project.config).load().config_sha() == before
    offline_project.parameters(llm={"provider": "offline", "max_workers": 2})
    assert BatchFile(offline_project.config).load().config_sha() != before
