"""A plain Dagster project to compare with: the stages of a batch as assets that do nothing, on the same storage.

Served by ``running_plain``; the benchmarks make its runs.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any
from unittest.mock import patch

import dagster as dg

from llmbatch_assets.cli.session import EVENT_BATCH_SIZE
from llmbatch_assets.stages.project import prepare_dagster_home
from llmbatch_assets_tests.dagster_api import RunningUi, running_webserver
from llmbatch_assets_tests.project import Project

LOCATION = "benchmarks.plain_project"
REPOSITORY = Path(__file__).parents[1]
PARTITIONS = dg.DynamicPartitionsDefinition(name="plain_items")


# As many assets around the partitioned one as around llm_outputs.
BEFORE = [f"source_{number}" for number in range(8)]
AFTER = [f"total_{number}" for number in range(3)]
ASSETS = [*BEFORE, "plain", *AFTER]


def empty_asset(
    name: str, deps: Sequence[str], condition: dg.AutomationCondition[Any] | None = None
) -> dg.AssetsDefinition:
    """Return an asset that does nothing."""

    @dg.asset(name=name, deps=deps, automation_condition=condition)
    def empty() -> None:
        pass

    return empty


@dg.asset(deps=BEFORE, partitions_def=PARTITIONS, backfill_policy=dg.BackfillPolicy.single_run(), output_required=False)
def plain(context: dg.AssetExecutionContext) -> Iterator[dg.Output[None]]:
    """Logs a materialization of each partition, with the one entry that Dagster's I/O managers add."""
    for key in context.partition_keys:
        path = dg.MetadataValue.path(f"artifacts/cache/llm_outputs/{key}.json")
        context.log_event(dg.AssetMaterialization("plain", partition=key, metadata={"path": path}))
    yield from ()


@dg.sensor(job_name="before")
def never() -> dg.SkipReason:
    """Does nothing."""
    return dg.SkipReason("There is nothing to do.")


# The sensor of the automation conditions is off by default.
defs = dg.Definitions(
    assets=[
        *(empty_asset(name, []) for name in BEFORE),
        plain,
        *(empty_asset(name, ["plain"], dg.AutomationCondition.eager()) for name in AFTER),
    ],
    jobs=[
        dg.define_asset_job("before", BEFORE),
        dg.define_asset_job("empty", BEFORE[:1]),
        dg.define_asset_job("all_partitions", ["plain"]),
        dg.define_asset_job("after", AFTER),
    ],
    sensors=[never],
    executor=dg.in_process_executor,
)


@contextmanager
def plain_instance(project: Project, keys: Sequence[str]) -> Iterator[dg.DagsterInstance]:
    """The Dagster instance of this folder, on the storage of our projects, with these partitions."""
    with patch.dict(os.environ, plain_environment(project)), dg.DagsterInstance.get() as instance:
        instance.add_dynamic_partitions(str(PARTITIONS.name), keys)
        yield instance


def plain_environment(project: Project) -> dict[str, str]:
    """Make the folder of the Dagster instance; return the environment variables of processes that use it."""
    home = project.path("dagster_home")
    prepare_dagster_home(home, resources.files("llmbatch_assets.cli").joinpath("dagster.yaml").read_bytes())
    return {"DAGSTER_HOME": str(home), "DAGSTER_EVENT_BATCH_SIZE": EVENT_BATCH_SIZE}


@contextmanager
def running_plain(project: Project) -> Iterator[RunningUi]:
    """``dagster dev`` of the plain project, on the instance of this folder."""
    module = ("dagster", "dev", "-m", LOCATION, "-d", str(REPOSITORY))
    with running_webserver(project, *module, **plain_environment(project)) as ui:
        yield ui
