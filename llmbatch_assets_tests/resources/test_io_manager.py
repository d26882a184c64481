"""Artifacts on their way through Dagster: what is written, what comes back, and what is said of one that cannot."""

import json
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from llmbatch_assets.adapters.files.atomic import json_bytes
from llmbatch_assets.domain.items.grouping import plan_work
from llmbatch_assets.domain.items.table import Snapshot
from llmbatch_assets.domain.items.work import GroupContext, WorkItems, work_items_of
from llmbatch_assets.domain.outcome import AcceptedOutput
from llmbatch_assets.domain.usage import TokenUsage
from llmbatch_assets.errors import ArtifactError, LlmBatchError, MissingArtifactError
from llmbatch_assets.resources.io_manager import JsonIOManager
from llmbatch_assets.stages.artifacts import BatchOutputs, artifact_path, batch_outputs, load_artifact, output_store
from llmbatch_assets.stages.project import Batch, BatchFile
from llmbatch_assets_tests.project import Project, make_project

CONTEXT = GroupContext(group_context_id="abc", group_key="né", context="red\n\n[1]\na: b", meta={"n_rows_total": 1})


@pytest.fixture
def home(tmp_path: Path) -> Project:
    return make_project(tmp_path)


def batch_of(project: Project) -> Batch:
    return BatchFile(project.config).load()


def snapshot_of(project: Project) -> Snapshot:
    return batch_of(project).read_snapshot()


def run(
    project: Project, *assets: dg.AssetsDefinition | dg.AssetSpec, config: Path | None = None
) -> dg.ExecuteInProcessResult:
    manager = JsonIOManager(config_file=str(config or project.config))
    return dg.materialize(list(assets), resources={"io_manager": manager})


def refused(project: Project, *assets: dg.AssetsDefinition | dg.AssetSpec) -> LlmBatchError:
    """The error of ours that the run ends with."""
    with pytest.raises(dg.Failure) as raised:
        run(project, *assets)
    error = raised.value.__context__
    assert isinstance(error, LlmBatchError)
    # What Dagster shows first.
    assert raised.value.description == str(error)
    return error


@dg.asset
def export(context: dg.AssetExecutionContext, input_snapshot: Snapshot) -> dict[str, Any]:
    """Stands for whatever reads a snapshot."""
    return {"columns": input_snapshot.columns, "n_rows": input_snapshot.n_rows}


# From one asset to the next.


def test_a_value_comes_out_as_it_went_in(home: Project) -> None:
    seen: list[Any] = []

    @dg.asset
    def input_snapshot() -> Snapshot:
        return snapshot_of(home)

    @dg.asset
    def group_contexts(input_snapshot: Snapshot) -> list[GroupContext]:
        seen.append(input_snapshot)
        return [CONTEXT]

    @dg.asset
    def work_items(input_snapshot: Snapshot, group_contexts: list[GroupContext]) -> WorkItems:
        seen.append(group_contexts)
        parameters = batch_of(home).parameters
        return work_items_of(plan_work(input_snapshot, parameters), parameters, "pipeline3_group_contexts.json")

    @dg.asset
    def report(work_items: WorkItems) -> dict[str, Any]:
        seen.append(work_items)
        return {"né": [1.5, None]}

    assert run(home, input_snapshot, group_contexts, work_items, report).success
    assert seen[0] == snapshot_of(home)
    assert seen[1] == [CONTEXT]
    assert [item.row_index for item in seen[2].items] == [0, 1, 2, 3, 4]
    assert home.json("artifacts/cache/pipeline2_input.json")["n_rows"] == 5
    assert home.json("artifacts/cache/pipeline3_group_contexts.json")[0]["group_key"] == "né"
    assert home.json("artifacts/cache/pipeline6_manifest.json") == {"né": [1.5, None]}


def test_the_same_value_is_the_same_bytes_and_a_person_can_read_them(home: Project) -> None:
    @dg.asset
    def input_snapshot() -> Snapshot:
        return snapshot_of(home)

    path = home.path("artifacts/cache/pipeline2_input.json")
    run(home, input_snapshot)
    first = path.read_bytes()
    run(home, input_snapshot)
    assert path.read_bytes() == first
    assert first.endswith(b"}\n")
    assert list(json.loads(first)) == sorted(json.loads(first))
    assert str(home.root).encode() not in first


def test_where_and_how_large_is_told_to_dagster(home: Project) -> None:
    @dg.asset
    def input_snapshot() -> Snapshot:
        return snapshot_of(home)

    [event] = run(home, input_snapshot).asset_materializations_for_node("input_snapshot")
    assert event.metadata["path"] == dg.MetadataValue.path("artifacts/cache/pipeline2_input.json")
    size = home.path("artifacts/cache/pipeline2_input.json").stat().st_size
    assert event.metadata["bytes"] == dg.MetadataValue.int(size)


def test_another_batch_keeps_its_artifacts_apart(home: Project) -> None:
    night = home.parameters("night", llm={"provider": "offline"})

    @dg.asset(key_prefix="night")
    def input_snapshot() -> Snapshot:
        return snapshot_of(home)

    run(home, input_snapshot, config=night)
    assert home.path("artifacts/night/cache/pipeline2_input.json").is_file()
    assert not home.path("artifacts/cache").exists()


def test_an_asset_that_fails_leaves_the_old_artifact(home: Project) -> None:
    home.write("artifacts/cache/pipeline2_input.json", "old")

    @dg.asset
    def input_snapshot() -> Snapshot:
        raise ValueError("no table today")

    with pytest.raises(ValueError, match="no table today"):
        run(home, input_snapshot)
    assert home.path("artifacts/cache/pipeline2_input.json").read_text() == "old"


# Artifacts that cannot be loaded.

SPEC = dg.AssetSpec("input_snapshot").with_io_manager_key("io_manager")


def test_a_missing_artifact_names_the_command_that_makes_it(home: Project) -> None:
    fault = refused(home, SPEC, export)
    assert isinstance(fault, MissingArtifactError)
    assert "llmbatch run --select input_snapshot" in str(fault)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "cannot be read as JSON"),
        ('{"meta": {', "cannot be read as JSON"),
        ("[]", "is not what input_snapshot writes"),
        ('{"meta": {}, "n_rows": 1}', "n_cols: Field required"),
        (
            '{"meta": {}, "n_rows": 1, "n_cols": 1, "columns": ["a"], "rows": [{"a": 3}]}',
            "rows.0.a: Input should be a valid string",
        ),
    ],
)
def test_a_broken_artifact_is_named_with_what_to_do(home: Project, content: str, told: str) -> None:
    path = home.write("artifacts/cache/pipeline2_input.json", content)
    with pytest.raises(ArtifactError) as fault:
        load_artifact(batch_of(home), "input_snapshot", Snapshot)
    assert str(path) in str(fault.value)
    assert told in str(fault.value)
    assert path.read_text() == content


def test_a_broken_artifact_ends_a_run_with_its_own_message(home: Project) -> None:
    path = home.write("artifacts/cache/pipeline2_input.json", "{")
    fault = refused(home, SPEC, export)
    assert isinstance(fault, ArtifactError)
    assert str(path) in str(fault)


def test_a_list_of_values_is_checked_one_by_one(home: Project) -> None:
    home.write("artifacts/cache/pipeline3_group_contexts.json", '[{"group_key": "a"}]')
    with pytest.raises(ArtifactError, match=r"0\.group_context_id: Field required"):
        load_artifact(batch_of(home), "group_contexts", list[GroupContext])


def test_a_configuration_that_has_been_broken_meanwhile_is_one_message(home: Project) -> None:
    home.write("configs/parameters.yaml", "llm: {temprature: 1}")
    assert "did you mean temperature" in str(refused(home, SPEC, export))


# Outputs.


def planned(project: Project) -> WorkItems:
    """The work items of the project, on disk."""
    batch = batch_of(project)
    items = work_items_of(plan_work(batch.read_snapshot(), batch.parameters), batch.parameters, "c.json")
    project.write("artifacts/cache/pipeline3_work_items.json", json_bytes(items).decode())
    return items


def keep_output(project: Project, row: int) -> None:
    batch = batch_of(project)
    item = planned(project).items[row]
    output = AcceptedOutput(
        meta=batch.source.meta(item, 1, "now"), parsed={"row": row}, judge=None, usage=TokenUsage(), latency_sec=0
    )
    path = output_store(batch).index.output_path(output.meta["cache_id"])
    project.write(str(path.relative_to(project.root)), output.model_dump_json())


def test_outputs_come_as_a_reader_in_the_order_of_the_items(home: Project) -> None:
    rows: list[int] = []

    @dg.asset
    def report(llm_outputs: BatchOutputs) -> dict[str, Any]:
        rows.extend(output.parsed["row"] for _, output in llm_outputs)
        return {}

    for row in (3, 0, 4):
        keep_output(home, row)
    run(home, dg.AssetSpec("llm_outputs").with_io_manager_key("io_manager"), report)
    assert rows == [0, 3, 4]


def test_the_reader_shows_the_outputs_of_the_configuration_that_is_in_force(home: Project) -> None:
    keep_output(home, 0)
    assert len(list(batch_outputs(batch_of(home)))) == 1
    home.parameters(llm={"provider": "offline", "model_name": "another"})
    assert list(batch_outputs(batch_of(home))) == []


def test_outputs_without_a_plan_name_the_command_that_makes_it(home: Project) -> None:
    with pytest.raises(MissingArtifactError, match="--select work_items"):
        batch_outputs(batch_of(home))


def test_failures_are_kept_as_the_configuration_says(home: Project) -> None:
    assert output_store(batch_of(home)).keep_failures
    home.parameters(llm={"provider": "offline"}, cache={"dump_failures": False, "dir": "elsewhere"})
    store = output_store(batch_of(home))
    assert not store.keep_failures
    assert store.index.folders.outputs == home.path("elsewhere/llm_outputs")


@pytest.mark.parametrize(
    ("asset", "file"),
    [
        ("input_snapshot", "pipeline2_input.json"),
        ("group_contexts", "pipeline3_group_contexts.json"),
        ("work_items", "pipeline3_work_items.json"),
        ("llm_outputs", "pipeline4_manifest.json"),
        ("export", "pipeline5_manifest.json"),
        ("report", "pipeline6_manifest.json"),
    ],
)
def test_every_asset_has_its_file(home: Project, asset: str, file: str) -> None:
    assert artifact_path(batch_of(home), asset) == home.path(f"artifacts/cache/{file}")
