"""Three batches in somebody else's code location: with DuckDB, and with resources that have the names of ours."""

import datetime as dt
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pandas as pd
import pyarrow as pa
import pytest
from dagster_duckdb_pandas import DuckDBPandasIOManager

from llmbatch_assets import BatchDefinitions, build_batch
from llmbatch_assets_tests.project import Project, make_project

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
RICH_SCHEMA = '''"""Values of every kind."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Part(BaseModel):
    """A part."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(...)
    size: int = Field(...)


class LLMOutput(BaseModel):
    """Values of every kind."""

    model_config = ConfigDict(extra="forbid")

    urgency: Literal["low", "high"] = Field(...)
    level: Literal[1, 2] = Field(...)
    count: int = Field(..., ge=0, le=9)
    maybe: int | None = Field(None)
    share: float = Field(..., ge=0, le=1)
    done: bool = Field(...)
    words: list[str] = Field(..., min_length=1, max_length=3)
    parts: list[Part] = Field(..., min_length=1, max_length=2)
    main_part: Part = Field(...)
'''


TYPES = {
    "ticket": "BIGINT",
    "zip": "VARCHAR",
    "price": "DOUBLE",
    "seats": "BIGINT",
    "paid": "BOOLEAN",
    "opened": "TIMESTAMP",
    "urgency": "VARCHAR",
    "level": "BIGINT",
    "maybe": "BIGINT",
    "share": "DOUBLE",
    "done": "BOOLEAN",
    "words": "VARCHAR[]",
    "main_part": 'STRUCT("name" VARCHAR, size INTEGER)',
    "judge_verdict": "VARCHAR",
    "judge_reasons_json": "VARCHAR",
    "meta_row_index": "BIGINT",
}
DTYPES = {
    "ticket": "Int64",
    "zip": "string",
    "price": "float64",
    "seats": "Int64",
    "paid": "boolean",
    "opened": "datetime64[us]",
    "urgency": "string",
    "maybe": "Int64",
    "share": "float64",
    "done": "boolean",
    "words": "object",
    "parts": "object",
    "main_part": "object",
}


class Foreign(dg.ConfigurableResource[None]):
    """A resource that happens to have the name of one of ours."""

    name: str = "foreign"


@dg.asset
def tickets() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "ticket": [101, 102, 103],
            "zip": ["01067", "80331", "20095"],
            "price": [1.5, 2.0, math.nan],
            "seats": pd.array([3, None, 5], dtype="Int64"),
            "paid": [True, False, True],
            "opened": pd.to_datetime(["2026-01-05 08:30", "2026-01-06 00:00", None]),
            "text": ["The login page is blank.", "How do I change my address?", "Everything is down!"],
        }
    )


@dataclass
class Location:
    """A code location with a Dagster instance."""

    definitions: dg.Definitions
    instance: dg.DagsterInstance
    database: Path

    def run(self, job: str, *assets: str, partition_key: str | None = None) -> dg.ExecuteInProcessResult:
        selection = [dg.AssetKey(asset.split("/")) for asset in assets] or None
        ended = self.definitions.resolve_job_def(job).execute_in_process(
            instance=self.instance, run_config=QUIET, asset_selection=selection, partition_key=partition_key
        )
        assert ended.success
        return ended

    def materialize(self, *assets: str, partition_key: str | None = None) -> dg.ExecuteInProcessResult:
        key = dg.AssetKey(assets[0].split("/"))
        job = self.definitions.resolve_implicit_job_def_def_for_assets([key])
        assert job is not None
        return self.run(job.name, *assets, partition_key=partition_key)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        with duckdb.connect(str(self.database)) as connection:
            return connection.sql(sql).fetchall()


def run_batch(location: Location, batch: BatchDefinitions) -> None:
    for job in ("prepare", "generate_pending", "publish"):
        location.run(batch.names.own(job))


def merged(*batches: BatchDefinitions, assets: Any, database: Path) -> dg.Definitions:
    foreign = dg.Definitions(
        assets=assets,
        resources={
            "io_manager": DuckDBPandasIOManager(database=str(database)),
            "llm": Foreign(),
            "json_io_manager": Foreign(),
        },
    )
    return dg.Definitions.merge(foreign, *(batch.definitions() for batch in batches))


@pytest.fixture
def rich(tmp_path: Path) -> Project:
    project = make_project(tmp_path / "rich", work_items={"label_column": "ticket"})
    project.write("schema/llm_schema.py", RICH_SCHEMA)
    return project


def test_three_batches_merge_with_duckdb_and_foreign_resources(
    rich: Project, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    # From a DataFrame in DuckDB; the default batch of another project; and a second batch of that project.
    other = make_project(tmp_path / "other")
    support = build_batch(
        rich.config, input_asset=tickets, key_prefix="support", table_io_manager_key="io_manager", tags={"domain": "cx"}
    )
    other.write("schema/second/llm_schema.py", other.path("schema/llm_schema.py").read_text())
    plain = build_batch(other.config)
    second = build_batch(other.parameters("second", llm={"provider": "offline"}), key_prefix=["cards"])
    seen: dict[str, Any] = {}

    @dg.asset(ins={"llm_outputs": dg.AssetIn(key=support.names.key("llm_outputs"))})
    def urgent(llm_outputs: pd.DataFrame) -> pd.DataFrame:
        seen["outputs"] = llm_outputs
        return llm_outputs[["ticket", "zip", "opened", "urgency", "count", "words", "main_part"]]

    @dg.asset(ins={"export": dg.AssetIn(key=support.names.key("export"))})
    def arrow(export: pa.Table) -> None:
        seen["arrow"] = export

    @dg.asset(ins={"export": dg.AssetIn(key=plain.names.key("export"))})
    def answers(export: pd.DataFrame, llm: dg.ResourceParam[Foreign]) -> pd.DataFrame:
        assert llm.name == "foreign"
        return export[["id", "answer", "certain"]]

    database = tmp_path / "warehouse.duckdb"
    location = Location(
        merged(support, plain, second, assets=[tickets, urgent, arrow, answers], database=database), instance, database
    )

    location.materialize("tickets")
    # Stage by stage, or all in one run.
    for batch in (support, second):
        run_batch(location, batch)
    location.run("run_all")
    location.materialize("urgent", "arrow", "answers")

    # The stored types are those of the schema and of the user's table, whatever the values are.
    assert location.query("select ticket, zip, opened from public.urgent order by ticket") == [
        (101, "01067", dt.datetime(2026, 1, 5, 8, 30)),
        (102, "80331", dt.datetime(2026, 1, 6)),
        (103, "20095", None),
    ]
    types = dict(
        location.query("select column_name, data_type from duckdb_columns() where table_name = 'export_table'")
    )
    assert {name: types[name] for name in TYPES} == TYPES
    assert "NULL" not in " ".join(types.values())
    assert location.query("select count(*) from public.answers") == [(5,)]
    outputs = seen["outputs"]
    assert list(outputs["partition_key"]) == instance.get_dynamic_partitions("support__work_items")
    assert {name: str(outputs[name].dtype) for name in DTYPES} == DTYPES
    assert outputs["zip"].tolist() == ["01067", "80331", "20095"]
    assert outputs["seats"].tolist() == [3, pd.NA, 5]
    assert isinstance(outputs["words"][0], list)
    assert isinstance(outputs["parts"][0][0]["size"], int)
    assert seen["arrow"].schema.field("words").type == pa.list_(pa.string())
    assert seen["arrow"].schema.field("count").type == pa.int64()
    assert seen["arrow"]["main_part"].to_pylist() == outputs["main_part"].tolist()
    assert instance.get_dynamic_partitions("cards__second__work_items")


def keys_of(batch: BatchDefinitions) -> dict[str, dg.AssetSpec]:
    return {spec.key.path[-1]: spec for asset in batch.assets for spec in asset.specs}


def test_attributes_are_those_of_every_asset(rich: Project) -> None:
    batch = build_batch(
        rich.config,
        key_prefix=["my-team", "cx"],
        group_name="triage",
        owners=["team:support", "ann@example.com"],
        tags={"domain": "cx"},
    )
    graph = batch.definitions().resolve_asset_graph()
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        assert key.path[:2] == ["my-team", "cx"]
        assert (node.group_name, node.owners) == ("triage", ["team:support", "ann@example.com"])
        assert node.tags["domain"] == "cx"
    # Dagster refuses hyphens in the names of jobs.
    assert {job.name.rpartition("__")[0] for job in batch.jobs} == {"my_team__cx"}


def test_kinds_stay_beside_the_tags_of_the_user(rich: Project) -> None:
    [outputs] = [
        spec for name, spec in keys_of(build_batch(rich.config, tags={"a": "b"})).items() if name == "llm_outputs"
    ]
    assert outputs.kinds == {"llm", "json"}


def test_a_condition_is_that_of_export_and_report(rich: Project) -> None:
    condition = dg.AutomationCondition.on_cron("@daily")
    specs = keys_of(build_batch(rich.config, automation_condition=condition, table_io_manager_key="io_manager"))
    published = {"export", "report", "export_table"}
    assert {name for name, spec in specs.items() if spec.automation_condition == condition} == published


def test_without_a_condition_nothing_follows_by_itself(rich: Project) -> None:
    batch = build_batch(rich.config, automation_condition=None, table_io_manager_key="io_manager")
    assert not any(spec.automation_condition for spec in keys_of(batch).values())
    assert "publish_automatically" not in {sensor.name for sensor in batch.sensors}


def test_the_table_is_published_with_the_export(rich: Project) -> None:
    batch = build_batch(rich.config, table_io_manager_key="io_manager")
    location = merged(batch, assets=[], database=Path("none"))
    for job in ("publish", "run_all"):
        assert dg.AssetKey("export_table") in location.resolve_job_def(job).asset_layer.executable_asset_keys
    [sensor] = [one for one in batch.sensors if one.name == "publish_automatically"]
    assert isinstance(sensor, dg.AutomationConditionSensorDefinition)
    targets = sensor.asset_selection.resolve(location.resolve_asset_graph())
    assert {key.path[-1] for key in targets} == {"export", "report", "export_table"}


@pytest.mark.parametrize(
    "given",
    [tickets, dg.AssetSpec("tickets"), dg.AssetKey("tickets"), "tickets", ["tickets"]],
    ids=["asset", "spec", "key", "text", "path"],
)
def test_the_input_asset_is_named_in_each_way_that_dagster_knows(rich: Project, given: Any) -> None:
    batch = build_batch(rich.config, input_asset=given)
    graph = dg.Definitions.merge(batch.definitions(), dg.Definitions(assets=[tickets])).resolve_asset_graph()
    assert dg.AssetKey("tickets") in graph.get(dg.AssetKey("input_snapshot")).parent_keys


# Assets with the partitions of the batch.


def partitioned(rich: Project, instance: dg.DagsterInstance, tmp_path: Path) -> tuple[Location, list[Any]]:
    """A batch with all its outputs but the last, and an asset of one partition that keeps what it gets."""
    batch = build_batch(rich.config)
    seen: list[Any] = []

    @dg.asset(partitions_def=batch.names.partitions, io_manager_key="mem")
    def each(llm_outputs: dict[str, Any]) -> None:
        seen.append(llm_outputs)

    @dg.asset(partitions_def=batch.names.partitions, io_manager_key="mem")
    def framed(llm_outputs: pd.DataFrame) -> None:
        seen.append(llm_outputs)

    @dg.asset(io_manager_key="mem")
    def manifest(llm_outputs: dict[str, Any]) -> None:
        seen.append(llm_outputs)

    foreign = dg.Definitions(assets=[each, framed, manifest], resources={"mem": dg.mem_io_manager})
    location = Location(dg.Definitions.merge(batch.definitions(), foreign), instance, tmp_path / "none")
    location.run("prepare")
    job = location.definitions.resolve_job_def("generate_pending")
    config = {**QUIET, "ops": {"generate_items": {"config": {"limit": 4}}}}
    assert job.execute_in_process(instance=instance, run_config=config).success
    return location, seen


def test_an_asset_with_the_same_partitions_gets_the_output_of_its_item(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    location, seen = partitioned(make_project(tmp_path / "project"), instance, tmp_path)
    keys = instance.get_dynamic_partitions("work_items")

    location.materialize("each", partition_key=keys[1])
    location.materialize("framed", partition_key=keys[2])
    location.materialize("manifest")

    record, frame, manifest = seen
    assert record["meta"]["row_index"] == 1
    assert set(record["parsed"]) == {"answer", "certain"}
    assert (frame["partition_key"].tolist(), frame["id"].tolist()) == ([keys[2]], ["q3"])
    assert manifest["counts"]["n_success"] == 4


def test_a_range_of_partitions_gets_its_outputs_by_key(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    location, seen = partitioned(make_project(tmp_path / "project"), instance, tmp_path)
    keys = instance.get_dynamic_partitions("work_items")
    job = location.definitions.resolve_implicit_job_def_def_for_assets([dg.AssetKey("each")])
    assert job is not None
    bounds = {"dagster/asset_partition_range_start": keys[0], "dagster/asset_partition_range_end": keys[2]}
    ended = location.definitions.resolve_job_def(job.name).execute_in_process(
        instance=instance, run_config=QUIET, asset_selection=[dg.AssetKey("each")], tags=bounds
    )
    assert ended.success
    assert {key: record["meta"]["row_index"] for key, record in seen[0].items()} == {keys[0]: 0, keys[1]: 1, keys[2]: 2}


def test_a_partition_without_an_output_is_one_sentence(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    location, _ = partitioned(make_project(tmp_path / "project"), instance, tmp_path)
    missing = instance.get_dynamic_partitions("work_items")[4]
    with pytest.raises(dg.Failure, match=f"no accepted output for partition {missing}; generate it with: llm"):
        location.materialize("each", partition_key=missing)
