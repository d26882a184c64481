"""The code location loads, and what is below Dagster does not need it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from llmbatch_assets import definitions
from llmbatch_assets.errors import ConfigError
from llmbatch_assets.stages.project import config_files
from llmbatch_assets_tests.project import Project, make_project, settings

LONGEST_IMPORT_SEC = 1.5
IMPORT_THE_DOMAIN = """
import importlib, json, pkgutil, sys, time
started = time.perf_counter()
import llmbatch_assets.domain, llmbatch_assets.errors
names = [module.name for module in pkgutil.walk_packages(llmbatch_assets.domain.__path__, "llmbatch_assets.domain.")]
for name in names:
    importlib.import_module(name)
print(json.dumps({"names": names, "took": time.perf_counter() - started, "all": sorted(sys.modules)}))
"""


@pytest.fixture
def two_batches(tmp_path: Path) -> Project:
    """A project with a default batch and one of another name."""
    project = make_project(tmp_path / "project")
    project.parameters("second", **settings())
    return project


@pytest.fixture
def loaded(two_batches: Project, monkeypatch: pytest.MonkeyPatch) -> dg.Definitions:
    """The definitions as a code server finds them in the project's folder."""
    monkeypatch.chdir(two_batches.root)
    monkeypatch.delenv("LLMBATCH_PARAMETERS", raising=False)

    return definitions.defs()


def test_every_configuration_file_is_a_batch(loaded: dg.Definitions) -> None:
    dg.Definitions.validate_loadable(loaded)

    graph = loaded.resolve_asset_graph()
    keys = {key.to_user_string() for key in graph.get_all_asset_keys()}
    assert len(keys) == 2 * len({key.removeprefix("second/") for key in keys})
    jobs = {job.name for job in loaded.resolve_all_job_defs() if not job.name.startswith("__")}
    names = ("prepare", "generate_pending", "publish", "run_all")
    assert jobs == {f"{batch}{name}" for batch in ("", "second__") for name in names}
    assert {job.executor_def for job in loaded.resolve_all_job_defs()} == {dg.in_process_executor}
    # What calls the model is off.
    on = {one.name for one in loaded.sensors or () if one.default_status is dg.DefaultSensorStatus.RUNNING}
    assert on == {
        f"{batch}{name}" for batch in ("", "second__") for name in ("prepare_after_changes", "publish_automatically")
    }
    off = dg.DefaultScheduleStatus.STOPPED
    schedules = [one for one in loaded.schedules or () if isinstance(one, dg.ScheduleDefinition)]
    assert {one.name: (one.job_name, one.default_status) for one in schedules} == {
        f"{batch}{job}_daily": (f"{batch}{job}", off) for batch in ("", "second__") for job in ("prepare", "run_all")
    }


def test_a_project_is_found_by_the_environment(
    two_batches: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLMBATCH_PARAMETERS", str(two_batches.config))

    assert dg.AssetKey("llm_outputs") in definitions.defs().resolve_asset_graph().get_all_asset_keys()


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another folder, in which Dagster is started; what the definitions set in the environment is undone."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    # Set before it is deleted, so that it is deleted again at the end.
    monkeypatch.setenv("LLMBATCH_PARAMETERS", "")
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    return folder


def validate(folder: Path, *arguments: str, **environment: str) -> str:
    """What ``dagster definitions validate`` prints in a folder."""
    own = {name: value for name, value in os.environ.items() if name not in ("LLMBATCH_PARAMETERS", "DAGSTER_HOME")}
    command = [sys.executable, "-m", "dagster", "definitions", "validate", *arguments]
    ended = subprocess.run(
        command, cwd=folder, env=own | environment, capture_output=True, text=True, check=False, timeout=120
    )
    return ended.stdout + ended.stderr


def test_a_project_is_validated_from_another_folder_by_its_workspace_file(tmp_path: Path, elsewhere: Path) -> None:
    project = make_project(tmp_path / "project")
    workspace = project.write("workspace.yaml", "load_from:\n  - python_module: llmbatch_assets.definitions\n")
    home = project.path("dagster_home")
    home.mkdir()
    # As a separate process, the code server only knows the instance.
    told = validate(elsewhere, "-w", str(workspace), "--load-with-grpc", DAGSTER_HOME=str(home))
    assert "All code locations passed validation" in told, told


def test_a_project_is_validated_from_another_folder_by_its_python_file(tmp_path: Path, elsewhere: Path) -> None:
    project = make_project(tmp_path / "project")
    file = project.write("definitions.py", "from llmbatch_assets.definitions import defs\n")
    assert "All code locations passed validation" in validate(elsewhere, "-f", str(file))


def test_a_workspace_file_elsewhere_names_the_project_as_working_directory(tmp_path: Path, elsewhere: Path) -> None:
    project = make_project(tmp_path / "project")
    module = f"module_name: llmbatch_assets.definitions\n      working_directory: {project.root}\n"
    workspace = elsewhere / "workspace.yaml"
    workspace.write_text(f"load_from:\n  - python_module:\n      {module}")
    told = validate(elsewhere, "-w", str(workspace), "--load-with-grpc")
    assert "All code locations passed validation" in told, told


def test_a_project_that_is_not_found_is_reported_with_what_helps_there(elsewhere: Path) -> None:
    with pytest.raises(ConfigError) as missing:
        definitions.defs()
    assert str(missing.value) == (
        f"no configs/parameters.yaml in {elsewhere} or above. Start Dagster in the folder of your project, or set the "
        "environment variable LLMBATCH_PARAMETERS to the path of its configs/parameters.yaml, or set working_directory to "
        "that folder for this python_module in workspace.yaml"
    )


def test_a_named_workspace_comes_before_the_current_folder_and_the_instance(
    tmp_path: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named, home, here = (make_project(tmp_path / name) for name in ("named", "home", "elsewhere"))
    monkeypatch.setenv("DAGSTER_HOME", str(home.path("dagster_home")))
    found = []
    for arguments in (["-w", str(named.path("workspace.yaml"))], [f"--workspace={named.path('workspace.yaml')}"], []):
        monkeypatch.setattr(sys, "argv", ["/bin/dagster", "dev", *arguments])
        monkeypatch.setenv("LLMBATCH_PARAMETERS", "")
        definitions.defs()
        # Processes of runs find the project by it; in the project's own folder, they need nothing.
        found.append(os.environ["LLMBATCH_PARAMETERS"])
    assert found == [str(named.config), str(named.config), ""]
    assert here.config.is_file()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLMBATCH_PARAMETERS", "")
    definitions.defs()
    assert os.environ["LLMBATCH_PARAMETERS"] == str(home.config)


def test_a_configuration_kept_elsewhere_is_one_batch(tmp_path: Path) -> None:
    (tmp_path / "other.yaml").touch()

    assert config_files(tmp_path / "batch.yaml") == [tmp_path / "batch.yaml"]


@pytest.mark.slow
def test_dagster_itself_finds_nothing_wrong(two_batches: Project) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "dagster", "definitions", "validate", "-m", "llmbatch_assets.definitions"],
        cwd=two_batches.root,
        env=two_batches.environment(DAGSTER_HOME=str(two_batches.root)),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    told = ended.stdout + ended.stderr
    assert ended.returncode == 0, told
    assert "Validation successful" in told


def test_the_domain_is_imported_quickly_and_without_frameworks(capsys: pytest.CaptureFixture[str]) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", IMPORT_THE_DOMAIN], capture_output=True, text=True, timeout=60, check=True
    )
    found = json.loads(ended.stdout)
    with capsys.disabled():
        sys.stdout.write(f"\nimport of {len(found['names'])} domain modules: {found['took']:.2f} s\n")

    assert len(found["names"]) > 10
    assert not {"dagster", "openai", "pandas", "yaml", "orjson", "click", "rich", "jinja2"} & set(found["all"])
    assert found["took"] < LONGEST_IMPORT_SEC


def test_the_command_line_imports_dagster_only_when_it_runs_something(tmp_path: Path) -> None:
    code = "import sys, llmbatch_assets.cli; print('dagster' in sys.modules, 'openai' in sys.modules)"

    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)

    assert ended.stdout.split() == ["False", "False"]


def test_a_bad_file_hides_its_own_batch_only(
    two_batches: Project, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    two_batches.parameters("broken", llm={"model": "x"})
    monkeypatch.chdir(two_batches.root)
    monkeypatch.delenv("LLMBATCH_PARAMETERS", raising=False)

    keys = {key.to_user_string() for key in definitions.defs().resolve_asset_graph().get_all_asset_keys()}
    definitions.defs()

    assert {"llm_outputs", "second/llm_outputs"} <= keys
    assert "broken/llm_outputs" not in keys
    told = caplog.text
    assert told.count("skipping batch broken") == 1
    assert "llm.model: unknown key" in told
    assert "llmbatch check --config" in told


def test_a_bad_file_of_the_project_itself_is_an_error(two_batches: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    two_batches.parameters(llm={"model": "x"})
    monkeypatch.chdir(two_batches.root)
    monkeypatch.delenv("LLMBATCH_PARAMETERS", raising=False)

    with pytest.raises(ConfigError, match=r"llm\.model"):
        definitions.defs()


@pytest.mark.parametrize("home", ["", "/somewhere"])
def test_an_unset_dagster_home_is_told_once_with_what_to_do(
    two_batches: Project, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, home: str
) -> None:
    monkeypatch.chdir(two_batches.root)
    monkeypatch.delenv("LLMBATCH_PARAMETERS", raising=False)
    monkeypatch.setenv("DAGSTER_HOME", home)

    definitions.defs()
    definitions.defs()

    assert caplog.text.count(f"export DAGSTER_HOME={two_batches.path('dagster_home')}") == (not home)


def test_an_unset_dagster_home_is_not_told_by_commands_that_run_nothing(
    two_batches: Project, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(two_batches.root)
    monkeypatch.delenv("LLMBATCH_PARAMETERS", raising=False)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.setattr(sys, "argv", ["dagster", "definitions", "validate"])

    definitions.defs()

    assert "DAGSTER_HOME" not in caplog.text
