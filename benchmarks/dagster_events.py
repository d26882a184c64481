"""Measure the time that Dagster adds per item: events, planned events, statuses, memory; on its default storage, ours, PostgreSQL.

    python -m benchmarks.dagster_events [--rounds 3] [--only default:1000,ours:20000]

Prints a table and writes benchmarks/results/dagster_events.json. Answers are made up (``offline``), so that what is left
is ours and Dagster's; each case runs in a process of its own, on a fresh instance.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import dagster as dg
import yaml
from dagster_graphql.test.utils import define_out_of_process_context, execute_dagster_graphql

from llmbatch_assets import BatchDefinitions, build_batch
from llmbatch_assets.cli.session import use_project_instance
from llmbatch_assets.resources.events import partition_events
from llmbatch_assets.resources.events.partition_events import EventGroups, PartitionEvents
from llmbatch_assets.stages.generate.run import GenerateRun
from llmbatch_assets_tests.postgres_server import find_server, postgres_server
from llmbatch_assets_tests.project import Project, make_project

CASES = ("default:1000", "ours:1000", "ours:20000", "postgres:1000", "postgres-subset:20000")
STORAGES: dict[str, dict[str, Any] | None] = {
    "default": {"sqlite": {"base_dir": {"env": "DAGSTER_HOME"}}},
    "ours": None,  # what a project is given
    "postgres": {"postgres": {"postgres_url": {"env": "DAGSTER_POSTGRES_URL"}}},
}
# Dagster plans a range in one event then; what failed is reported by the run itself.
SUBSET = {"DAGSTER_EMIT_PARTITION_SUBSET_IN_PLANNED_EVENTS": "1"}
WARM_QUERIES = 5
RESULT = "result.json"
STATUSES = """{ assetNodeOrError(assetKey: {path: ["llm_outputs"]}) { ... on AssetNode {
    partitionStats { numMaterialized numFailed numPartitions }
    assetPartitionStatuses { ... on DefaultPartitionStatuses { materializedPartitions failedPartitions } } } } }"""


class Clock:
    """Adds up the time in some functions; one that calls another counts once."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._busy = False

    def watch(self, owner: type, name: str) -> None:
        """Count a method's time from now on."""
        method = getattr(owner, name)

        def timed(*arguments: Any, **named: Any) -> Any:
            with nullcontext() if self._busy else self._counted():
                return method(*arguments, **named)

        setattr(owner, name, timed)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self._busy, started = True, time.perf_counter()
        try:
            yield
        finally:
            self._busy = False
            self.seconds += time.perf_counter() - started


class Rig:
    """A project of so many items, its batch, and a watched Dagster instance."""

    def __init__(self, project: Project, instance: dg.DagsterInstance) -> None:
        self.project, self.instance = project, instance
        self.batch: BatchDefinitions = build_batch(project.config)
        self.events, self.begun = Clock(), 0.0
        # What it takes to store them is to be seen, and not what it takes to hand them over.
        partition_events.MIN_EVENTS_FOR_PROCESS = sys.maxsize
        for owner, name in (
            (PartitionEvents, "add_materialized"),
            (PartitionEvents, "add_failed"),
            (EventGroups, "flush"),
        ):
            self.events.watch(owner, name)
        choose: Callable[..., Any] = GenerateRun.choose

        def begins(*arguments: Any, **named: Any) -> Any:
            self.begun = time.perf_counter()
            return choose(*arguments, **named)

        GenerateRun.choose = begins  # type: ignore[method-assign]

    def run(self, stage: str, tags: Mapping[str, str] | None = None) -> dict[str, float]:
        """One run: seconds in all, until its body begins, and for events."""
        self.events.seconds, started = 0.0, time.perf_counter()
        job = self.batch.definitions().resolve_job_def(stage)
        quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
        assert job.execute_in_process(run_config=quiet, instance=self.instance, tags=tags).success
        seconds = time.perf_counter() - started
        return {"seconds": seconds, "launch": self.begun - started, "events": self.events.seconds}

    def last_event(self) -> int:
        """The id of the last materialization of any partition."""
        (record,) = self.instance.get_asset_records([dg.AssetKey("llm_outputs")])
        return record.asset_entry.last_materialization_storage_id or 0


def one_case(storage: str, count: int, root: Path) -> dict[str, float]:
    """All figures of one storage and size."""
    project = make_project(root, llm={"max_workers": 16})
    project.table([(f"q{number}", "red", f"question {number}") for number in range(count)])
    if (settings := STORAGES[storage]) is not None:
        project.write(
            "dagster_home/dagster.yaml", yaml.safe_dump({"storage": settings, "telemetry": {"enabled": False}})
        )
    use_project_instance(root)
    os.chdir(root)
    with dg.DagsterInstance.get() as instance:
        rig = Rig(project, instance)
        rig.run("prepare")
        fresh = rig.run("generate")
        before = rig.last_event()
        again = rig.run("generate")
        assert rig.last_event() == before, "an event for an item that has not changed"
        keys = project.partition_keys()
        bounds = {"dagster/asset_partition_range_start": keys[0], "dagster/asset_partition_range_end": keys[-1]}
        ranged = rig.run("generate", bounds)
        rss_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        first, warm = graphql_seconds(instance)
    return {
        "materialized_ms": 1000 * fresh["events"] / count,
        "planned_ms": 1000 * (ranged["launch"] - again["launch"]) / count,
        "hits_of_a_range_ms": 1000 * ranged["events"] / count,
        "statuses_first_s": first,
        "statuses_warm_s": warm,
        "rss_mb": rss_mb,
        "generate_s": fresh["seconds"],
        "nothing_changed_s": again["seconds"],
    }


def graphql_seconds(instance: dg.DagsterInstance) -> tuple[float, float]:
    """Seconds for the statuses of all partitions: the first time, and the median of later ones."""
    taken: list[float] = []
    with define_out_of_process_context(str(Path(__file__).with_name("code_location.py")), None, instance) as context:
        for _ in range(1 + WARM_QUERIES):
            started = time.perf_counter()
            answer = execute_dagster_graphql(context, STATUSES)
            taken.append(time.perf_counter() - started)
            node = answer.data["assetNodeOrError"]
            assert node["partitionStats"]["numMaterialized"] == node["partitionStats"]["numPartitions"] > 0
    return taken[0], statistics.median(taken[1:])


def measured(case: str, rounds: int) -> dict[str, object]:
    """Medians of a case."""
    name, count = case.split(":")
    storage, *subset = name.split("-")
    runs: list[dict[str, float]] = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder, _database(storage) as url:
            environment = os.environ | {"DAGSTER_POSTGRES_URL": url} | (SUBSET if subset else {})
            environment.pop("DAGSTER_HOME", None)
            command = [sys.executable, "-m", "benchmarks.dagster_events", "--case", f"{storage}:{count}", folder]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
            runs.append(json.loads((Path(folder) / RESULT).read_text()))
    medians = {key: round(statistics.median(run[key] for run in runs), 3) for key in runs[0]}
    return {"storage": name, "items": int(count), "rounds": rounds, **medians}


@contextmanager
def _database(storage: str) -> Iterator[str]:
    program = find_server()
    if storage != "postgres":
        yield ""
    elif program is None:
        raise SystemExit("no PostgreSQL server found; leave its cases out with --only")
    else:
        with postgres_server(program, durable=True) as url:
            yield url


def main() -> None:
    """Measure everything, print it, keep it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default=",".join(CASES))
    parser.add_argument("--case", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        storage, count = options.case[0].split(":")
        folder = Path(options.case[1])
        (folder / RESULT).write_text(json.dumps(one_case(storage, int(count), folder / "project")))
        return
    results = []
    for case in options.only.split(","):
        results.append(measured(case, options.rounds))
        print("  ".join(f"{key}={value}" for key, value in results[-1].items()), flush=True)
    target = Path(__file__).with_name("results") / "dagster_events.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
