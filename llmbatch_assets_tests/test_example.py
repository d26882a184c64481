"""A batch in somebody else's Dagster: the example project, as it stands."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import dagster as dg
import duckdb
import pytest

EXAMPLE = Path(__file__).parents[1] / "examples/other_project"
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The example's module, of a copy, since it writes into its folder."""
    monkeypatch.setenv("WAREHOUSE", str(tmp_path / "warehouse.duckdb"))
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
    definitions, names = example.defs, example.batch.names
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
    with duckdb.connect(str(tmp_path / "warehouse.duckdb")) as connection:
        urgent = connection.sql("select ticket, reason from public.urgent_tickets").fetchall()
    made = [json.loads(line) for line in exported_lines(tmp_path)]
    assert urgent == [(int(one["input"]["ticket"]), one["parsed"]["reason"]) for one in made if one["parsed"]["urgent"]]
    assert urgent


def exported_lines(tmp_path: Path) -> list[str]:
    return (tmp_path / "other_project/artifacts/outputs/output.jsonl").read_text(encoding="utf-8").splitlines()


def test_every_asset_and_global_name_stands_under_the_prefix(example: ModuleType) -> None:
    batch = example.batch
    keys = {key for asset in batch.assets for key in asset.keys}
    assert {key.path[0] for key in keys} == {"support"}
    assert dg.AssetKey(["support", "input_table"]) not in keys
    assert {job.name.split("__")[0] for job in batch.jobs} == {"support"}
    assert {one.name.split("__")[0] for one in [*batch.sensors, *batch.schedules]} == {"support"}


def test_the_code_on_the_page_about_embedding_runs(example: ModuleType, tmp_path: Path) -> None:
    page = (EXAMPLE.parents[1] / "docs/embedding.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    # The page's project is the example's.
    shown: dict[str, Any] = {"__file__": str(example.__file__)}
    for block in blocks:
        # This file postpones its annotations, which Dagster could not read in theirs.
        exec(compile(block, "embedding.md", "exec", dont_inherit=True), shown)  # noqa: S102  # our own page
    definitions = dg.Definitions.merge(shown["defs"], dg.Definitions(assets=[shown["notification"]]))
    definitions.validate_loadable(definitions)
    graph = definitions.resolve_asset_graph()
    assert graph.get(dg.AssetKey("urgent_tickets")).parent_keys == {dg.AssetKey(["support", "export"])}
    assert graph.get(dg.AssetKey("notification")).partitions_def == shown["batch"].names.partitions
    assert graph.get(dg.AssetKey(["support", "report"])).owners == ["team:support"]
