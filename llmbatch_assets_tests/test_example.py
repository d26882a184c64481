"""A batch in somebody else's Dagster: the example project, as it stands."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import dagster as dg
import pytest

EXAMPLE = Path(__file__).parents[1] / "examples/other_project"
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@pytest.fixture
def example(tmp_path: Path) -> ModuleType:
    """The example's module, of a copy, since it writes into its folder."""
    copy = tmp_path / "other_project"
    shutil.copytree(EXAMPLE, copy, ignore=shutil.ignore_patterns("artifacts", "archived", "llm_schema.txt"))
    spec = importlib.util.spec_from_file_location("other_project_definitions", copy / "definitions.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_table_of_another_asset_becomes_outputs_that_another_asset_uses(example: ModuleType, tmp_path: Path) -> None:
    storage = tmp_path / "storage"
    storage.mkdir()
    # The project's own I/O manager holds the table and what is made of the outputs.
    own = dg.Definitions(resources={"io_manager": dg.FilesystemIOManager(base_dir=str(storage))})
    definitions, names = dg.Definitions.merge(example.defs, own), example.batch.names
    with dg.DagsterInstance.local_temp(str(storage)) as instance:

        def run(job: str, *assets: str) -> None:
            selection = [dg.AssetKey(asset) for asset in assets] or None
            ended = definitions.resolve_job_def(job).execute_in_process(
                instance=instance, run_config=QUIET, asset_selection=selection
            )
            assert ended.success

        implicit = definitions.resolve_implicit_global_asset_job_def().name
        run(implicit, "tickets")
        for job in ("prepare", "generate_pending", "publish"):
            run(names.own(job))
        run(implicit, "urgent_tickets")

        keys = instance.get_dynamic_partitions(names.own("work_items"))
        assert [key.split("-")[0] for key in keys] == ["101", "102", "103"]
        assert instance.get_materialized_partitions(dg.AssetKey(["support", "llm_outputs"])) == set(keys)
        assert instance.get_latest_materialization_event(dg.AssetKey("urgent_tickets")) is not None


def test_every_asset_and_global_name_stands_under_the_prefix(example: ModuleType) -> None:
    batch = example.batch
    keys = {key for asset in batch.assets for key in ([asset.key] if isinstance(asset, dg.SourceAsset) else asset.keys)}
    assert {key.path[0] for key in keys} == {"support"}
    assert dg.AssetKey(["support", "input_table"]) not in keys
    assert {job.name.split("__")[0] for job in batch.jobs} == {"support"}
    assert {one.name.split("__")[0] for one in [*batch.sensors, *batch.schedules]} == {"support"}
