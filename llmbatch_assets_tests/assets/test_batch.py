"""A batch through Dagster, in process, on an instance of the test's own: what Dagster shows, and what is on disk."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.storage.partition_status_cache import AssetPartitionStatus

from llmbatch_assets.assets import STAGES
from llmbatch_assets.assets.batch import BatchDefinitions, build_batch
from llmbatch_assets_tests.chat_server import ChatServer, refuses, says
from llmbatch_assets_tests.project import ROWS, Project, make_project, partition_states, settings

MATERIALIZED, FAILED = AssetPartitionStatus.MATERIALIZED, AssetPartitionStatus.FAILED
QUIET = {"console": {"config": {"log_level": "CRITICAL"}}}
WRONG = says("no JSON at all")
TOWER, BRIDGE, HARBOUR, RIVER, ROAD = (row[2] for row in ROWS)


@dataclass(frozen=True)
class Rig:
    """A batch, and the Dagster instance that it runs on."""

    project: Project
    batch: BatchDefinitions
    instance: dg.DagsterInstance

    def run(
        self, stage: str, key: str | None = None, tags: Mapping[str, str] | None = None, **config: Any
    ) -> dg.ExecuteInProcessResult:
        """One run of a stage; ``config`` is that of ``generate_items``. Partitions are materialized without a job."""
        names, definitions = self.batch.names, self.batch.definitions()
        by_partition = bool(key or tags)
        jobs = {"generate": "generate_pending"}
        job = (
            definitions.resolve_implicit_global_asset_job_def()
            if by_partition
            else definitions.resolve_job_def(names.own(jobs.get(stage, stage)))
        )
        return job.execute_in_process(
            run_config={"loggers": QUIET, "ops": {names.own("generate_items"): {"config": config}} if config else {}},
            instance=self.instance,
            asset_selection=[names.key("llm_outputs")] if by_partition else None,
            partition_key=key,
            tags=tags,
            raise_on_error=False,
        )

    def prepare(self) -> list[str]:
        """Run the first stage; gives the partition keys in the order of the table."""
        assert self.run("prepare").success
        return self.project.partition_keys()

    def run_range(self, first: str, last: str) -> dg.ExecuteInProcessResult:
        """One run of neighbouring partitions, as the UI and backfills launch them."""
        bounds = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
        return self.run("generate", tags=bounds)

    def states(self) -> dict[str, AssetPartitionStatus | None]:
        """How Dagster shows the partitions."""
        names = self.batch.names
        return partition_states(self.instance, "" if names.is_default else names.batch)

    def materializations(self, key: str) -> list[dg.AssetMaterialization]:
        """Those of one partition, the latest first."""
        wanted = dg.AssetRecordsFilter(self.batch.names.key("llm_outputs"), asset_partitions=[key])
        records = self.instance.fetch_materializations(wanted, limit=100).records
        return [made for record in records if (made := record.asset_materialization)]

    def totals(self) -> list[dg.AssetMaterialization]:
        """Those of whole runs, the latest first."""
        records = self.instance.fetch_materializations(self.batch.names.key("llm_outputs"), limit=100).records
        return [made for record in records if (made := record.asset_materialization) and made.partition is None]

    def observations(self) -> list[dg.AssetObservation]:
        """Those of all partitions, the latest first."""
        records = self.instance.fetch_observations(self.batch.names.key("llm_outputs"), limit=100).records
        return [seen for record in records if (seen := record.asset_observation)]

    def version(self, key: str) -> str:
        """The data version of a partition."""
        return (self.materializations(key)[0].tags or {})["dagster/data_version"]


def item_facts(made: dg.AssetMaterialization) -> dict[str, str]:
    """The facts that the page of a partition lists about its item."""
    rows = (
        tuple(line.strip("| ").split(" | ", 1))
        for line in str(made.metadata["item"].value).split("\n\n")[0].splitlines()[2:]
    )
    return dict(rows)  # type: ignore[arg-type]


RigMaker = Callable[..., Rig]


def failure_messages(rig: Rig, run_id: str) -> list[str]:
    """What Dagster shows first of the steps of a run that failed."""
    entries = rig.instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    failures = [entry.get_dagster_event().step_failure_data.user_failure_data for entry in entries]
    return [failure.description or "" for failure in failures if failure]


@pytest.fixture
def rig(project: Project, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> Rig:
    """The project whose model is the scripted server."""
    monkeypatch.setenv("TEST_KEY", "secret-key")
    return Rig(project, build_batch(project.config), instance)


@pytest.fixture
def offline_rig(tmp_path: Path, instance: dg.DagsterInstance) -> RigMaker:
    """A project that asks nobody, with further blocks in its configuration."""

    def make(**blocks: Any) -> Rig:
        project = make_project(tmp_path / "project", **blocks)
        return Rig(project, build_batch(project.config), instance)

    return make


def exported(project: Project) -> list[dict[str, str]]:
    with project.path("artifacts/outputs/output.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# Partitions: exactly what failed is shown as failed.


def test_a_range_run_marks_hits_and_fresh_outputs_and_only_what_failed(rig: Rig, server: ChatServer) -> None:
    tower, bridge, harbour, river, road = rig.prepare()
    assert rig.run("generate", limit=2).success
    server.script(HARBOUR, WRONG, repeat_last=True)

    assert not rig.run_range(tower, river).success

    assert rig.states() == {
        **dict.fromkeys((tower, bridge, river), MATERIALIZED),
        harbour: FAILED,
        road: None,
    }
    assert server.count() == 2 + 3 + 1
    sources = {key: [item_facts(made)["Source"] for made in rig.materializations(key)] for key in (tower, river)}
    assert sources == {tower: ["cache", "generated"], river: ["generated"]}


def test_a_range_that_is_planned_in_one_event_marks_what_failed(
    rig: Rig, server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_EMIT_PARTITION_SUBSET_IN_PLANNED_EVENTS", "1")
    tower, bridge, harbour, river, road = rig.prepare()
    server.script(HARBOUR, WRONG, repeat_last=True)
    ended = rig.run_range(tower, river)
    planned = dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED
    told = [entry.get_dagster_event().partition for entry in rig.instance.all_logs(ended.run_id, of_type=planned)]
    assert told == [None, harbour]
    assert rig.states() == {**dict.fromkeys((tower, bridge, river), MATERIALIZED), harbour: FAILED, road: None}


def test_a_range_run_that_is_stopped_shows_nothing_as_failed(rig: Rig, server: ChatServer) -> None:
    keys = rig.prepare()
    assert rig.run("generate", limit=1).success
    server.require_key = "another-key"

    assert not rig.run_range(keys[0], keys[-1]).success

    assert FAILED not in rig.states().values()
    assert rig.states()[keys[0]] is MATERIALIZED
    (latest,) = rig.instance.get_runs(limit=1)
    assert latest.status is dg.DagsterRunStatus.FAILURE
    (told,) = failure_messages(rig, latest.run_id)
    assert told.startswith("Run stopped: ")
    assert "refused the key" in told


def test_a_range_run_that_cannot_begin_shows_nothing_as_failed(rig: Rig) -> None:
    keys = rig.prepare()
    assert rig.run("generate", limit=3).success
    before = rig.states()
    rig.project.write("prompts/generation.yaml", "user: 'There is {nothing}.'")

    ended = rig.run_range(keys[0], keys[4])

    assert rig.states() == before == {**dict.fromkeys(keys[:3], MATERIALIZED), **dict.fromkeys(keys[3:])}
    run = rig.instance.get_run_by_id(ended.run_id)
    assert run is not None
    assert run.status is dg.DagsterRunStatus.FAILURE
    (told,) = failure_messages(rig, ended.run_id)
    assert "{nothing}" in told


def test_a_forced_output_that_cannot_be_replaced_stays_and_is_shown(rig: Rig, server: ChatServer) -> None:
    keys = rig.prepare()
    assert rig.run("generate").success
    before = rig.project.output_of(2).read_bytes()
    server.script(HARBOUR, WRONG, repeat_last=True)

    assert not rig.run("generate", select="keys", keys=keys[1:3], force=True).success
    assert rig.project.output_of(2).read_bytes() == before
    assert set(rig.states().values()) == {MATERIALIZED}

    assert not rig.run_range(keys[1], keys[2]).success
    assert rig.project.output_of(2).read_bytes() == before

    assert set(rig.states().values()) == {MATERIALIZED}


def test_one_partition_is_one_item(rig: Rig, server: ChatServer) -> None:
    keys = rig.prepare()

    assert rig.run("generate", key=keys[3]).success

    assert rig.states() == {**dict.fromkeys(keys), keys[3]: MATERIALIZED}
    (call,) = server.calls
    assert RIVER in call.text


def test_one_partition_that_fails_is_shown_as_failed(rig: Rig, server: ChatServer) -> None:
    keys = rig.prepare()
    server.script(RIVER, refuses())

    assert not rig.run("generate", key=keys[3]).success

    assert rig.states() == {**dict.fromkeys(keys), keys[3]: FAILED}


def test_a_run_without_partitions_finds_its_items_and_tries_scattered_failures_again_at_once(
    rig: Rig, server: ChatServer
) -> None:
    tower, bridge, harbour, river, road = rig.prepare()
    server.script(TOWER, WRONG, WRONG, WRONG)
    server.script(HARBOUR, WRONG, WRONG, WRONG)

    assert not rig.run("generate").success

    others = dict.fromkeys((bridge, river, road), MATERIALIZED)
    assert rig.states() == others | {tower: FAILED, harbour: FAILED}

    calls = server.count()
    assert rig.run("generate", select="failed").success

    assert server.count() == calls + 2
    assert rig.states() == others | {tower: MATERIALIZED, harbour: MATERIALIZED}
    # An item that nothing changed for has one event, however often the batch is run.
    assert rig.run("generate").success
    assert len(rig.materializations(bridge)) == 1


def test_keys_can_be_named_in_the_configuration(rig: Rig, server: ChatServer) -> None:
    keys = rig.prepare()

    assert rig.run("generate", select="keys", keys=[keys[4], keys[1]]).success

    assert [key for key, state in rig.states().items() if state] == [keys[1], keys[4]]
    assert server.count() == 2
    assert not rig.run("generate", select="keys", keys=["no-such-key"]).success


def test_a_partition_tells_what_was_made_and_what_it_cost(rig: Rig, server: ChatServer) -> None:
    keys = rig.prepare()
    server.script(TOWER, WRONG, says({"answer": "330 m", "certain": True}))
    assert rig.run("generate").success

    (made,) = rig.materializations(keys[0])

    artifact = rig.project.output_of(0)
    facts: dict[str, Any] = {name: value.value for name, value in made.metadata.items()}
    assert facts["path"] == f"artifacts/cache/llm_outputs/{artifact.name}"
    assert facts.keys() == {"item", "path"}
    item = item_facts(made)
    assert (item["Row"], item["Attempts"]) == ("1 (row_index 0)", "2")
    assert (item["Model"], item["Source"]) == ("test-model", "generated")
    assert re.fullmatch(r"[1-9]\d* input, [1-9]\d* output", item["Tokens"])
    assert item["Latency"].endswith(" s")
    assert "| answer | 330 m |\n| certain | true |" in facts["item"]
    assert "| question | How tall is the tower? |" in facts["item"]
    assert item["Report"].startswith("file:///")
    assert item["Report"].endswith(rf"/artifacts/reports/report.html\#item={keys[0]}")
    versions = {key: rig.version(key) for key in keys}
    assert len(set(versions.values())) == len(keys)

    # The same answer again is the same version; another answer is another.
    server.script(TOWER, says({"answer": "330 m", "certain": True}))
    server.script(BRIDGE, says({"answer": "Nobody knows.", "certain": False}))
    assert rig.run("generate", select="keys", keys=keys[:2], force=True).success
    assert rig.version(keys[0]) == versions[keys[0]]
    assert rig.version(keys[1]) != versions[keys[1]]


def test_what_was_spent_is_told_as_numbers(rig: Rig, server: ChatServer) -> None:
    prices = {"prices": {"test-model": {"input": 10, "output": 100}}}
    rig.project.parameters(**settings(server.base_url, budget=prices))
    keys = rig.prepare()
    server.script(TOWER, refuses())
    assert not rig.run("generate").success

    (made,) = rig.materializations(keys[1])
    (run,) = rig.totals()
    facts: dict[str, Any] = {name: value.value for name, value in run.metadata.items()}
    assert (facts["accepted"], facts["failed"], facts["requests"]) == (4, 1, 5)
    cost = float(item_facts(made)["Cost"].removeprefix("$"))
    assert facts["cost_usd"] > 4 * cost * 0.9 > 0

    # A run that has asked nothing has nothing to tell.
    assert rig.run("generate").success
    assert len(rig.totals()) == 1


# The partitions follow the table, the events follow the files.


def test_partitions_follow_the_rows_and_unchanged_ones_stay_as_they_are(rig: Rig, server: ChatServer) -> None:
    tower, bridge, harbour, river, road = rig.prepare()
    assert rig.run("generate").success
    files = rig.project.outputs()

    rig.project.table([("q0", "green", "Is this row new?"), *(row for row in ROWS if row[2] != BRIDGE)])
    new, *rest = rig.prepare()

    assert rest == [tower, harbour, river, road]
    assert rig.states() == dict.fromkeys(rest, MATERIALIZED) | {new: None}
    assert rig.project.outputs() == files
    assert rig.run("generate").success
    assert server.count() == 5 + 1

    rig.project.table(ROWS)
    assert rig.prepare() == [tower, bridge, harbour, river, road]
    assert set(rig.states().values()) == {MATERIALIZED}
    assert rig.run("generate").success
    assert server.count() == 5 + 1


@pytest.mark.parametrize("mode", ["group_output", "row_output_with_group_context"])
def test_the_same_table_again_adds_no_partition_and_writes_no_file(offline_rig: RigMaker, mode: str) -> None:
    rig = offline_rig(grouping={"enabled": True, "column": "team", "mode": mode})
    keys = rig.prepare()
    files = [path for path in rig.project.path("artifacts").rglob("*") if path.is_file()]
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in files}
    registered = rig.instance.get_dynamic_partitions("work_items")
    assert len(files) >= 3

    assert rig.prepare() == keys

    after = [path for path in rig.project.path("artifacts").rglob("*") if path.is_file()]
    assert {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in after} == before
    assert rig.instance.get_dynamic_partitions("work_items") == registered
    assert sorted(registered) == sorted(keys)


@pytest.mark.parametrize("broken", [b"", b'{"meta": {', b'{"meta": {"cache_id": "another"}}'])
def test_a_broken_output_is_set_aside_and_made_again(rig: Rig, server: ChatServer, broken: bytes) -> None:
    rig.prepare()
    assert rig.run("generate").success
    artifact = rig.project.output_of(2)
    artifact.write_bytes(broken)

    assert rig.run("generate").success

    assert server.count() == 5 + 1
    assert json.loads(artifact.read_bytes())["meta"]["row_index"] == 2
    assert [path.read_bytes() for path in artifact.parent.iterdir() if path.suffix != ".json"] == [broken]


def test_an_output_of_another_item_is_not_taken_for_this_one(rig: Rig, server: ChatServer) -> None:
    rig.prepare()
    assert rig.run("generate").success
    rig.project.output_of(2).write_bytes(rig.project.output_of(3).read_bytes())

    assert rig.run("generate").success

    assert server.count() == 5 + 1
    assert rig.project.rows_done() == [0, 1, 2, 3, 4]


def test_a_dagster_that_lost_its_events_gets_them_back_from_the_files(rig: Rig, server: ChatServer) -> None:
    rig.prepare()
    server.script(ROAD, refuses())
    assert not rig.run("generate").success
    before = rig.project.outputs()

    with dg.DagsterInstance.ephemeral() as fresh:
        again = Rig(rig.project, rig.batch, fresh)
        *accepted, refused = again.prepare()
        assert again.run("generate").success

        assert again.states() == dict.fromkeys(accepted, MATERIALIZED) | {refused: None}
        assert {item_facts(again.materializations(key)[0])["Source"] for key in accepted} == {"cache"}

    assert server.count() == 5
    assert rig.project.outputs() == before


# The three groupings, from the table to the report.


@pytest.mark.parametrize(
    ("grouping", "n_items", "n_contexts", "labels"),
    [
        ({"enabled": False, "column": "team"}, 5, 0, set()),
        ({"enabled": True, "column": "team", "mode": "group_output"}, 2, 0, {"red", "blue"}),
        ({"enabled": True, "column": "team", "mode": "row_output_with_group_context"}, 5, 2, {"red", "blue"}),
    ],
    ids=["row_wise", "group_output", "row_output_with_group_context"],
)
def test_every_grouping_goes_from_the_table_to_the_report(
    offline_rig: RigMaker, grouping: dict[str, Any], n_items: int, n_contexts: int, labels: set[str]
) -> None:
    rig = offline_rig(grouping=grouping, prompts={"judge": {"enabled": True}})

    for stage in STAGES:
        assert rig.run(stage).success

    assert len(rig.project.json("artifacts/cache/pipeline3_group_contexts.json")) == n_contexts
    assert list(rig.states().values()) == [MATERIALIZED] * n_items
    assert {key.rpartition("-")[0] for key in rig.states()} - {""} == labels
    records = exported(rig.project)
    assert [record["team"] for record in records] == (
        ["red", "blue"] if n_items == 2 else [team for _, team, _ in ROWS]
    )
    assert {record["judge_verdict"] for record in records} == {"PASS"}
    report = rig.project.path("artifacts/reports/report.md").read_text()
    assert f"{n_items} of {n_items} items accepted" in report
    for label in labels:
        assert f"| {label} |" in report
    assert rig.project.path("artifacts/reports/report.html").exists()
    manifests = [rig.project.json(f"artifacts/cache/pipeline{number}_manifest.json") for number in (4, 5, 6)]
    assert manifests[0]["counts"]["n_success"] == manifests[1]["counts"]["n_exported"] == n_items
    assert manifests[2]["counts"]["accepted"] == n_items


def test_what_failed_is_missing_from_the_export_and_counted_in_the_report(rig: Rig, server: ChatServer) -> None:
    rig.prepare()
    server.script(BRIDGE, refuses())
    assert not rig.run("generate", limit=4).success

    assert rig.run("publish").success

    assert [record["id"] for record in exported(rig.project)] == ["q1", "q3", "q4"]
    counts = rig.project.json("artifacts/cache/pipeline5_manifest.json")["counts"]
    told = {"n_records": 3, "n_items": 5, "n_exported": 3, "n_failed": 1, "n_missing": 1, "n_not_exported": 2}
    assert {name: count for name, count in counts.items() if count} == told
    assert "3 of 5 items accepted" in rig.project.path("artifacts/reports/report.md").read_text()


def test_the_export_shows_counts_columns_files_and_its_first_records(rig: Rig, server: ChatServer) -> None:
    rig.prepare()
    server.script(BRIDGE, says({"answer": "=x()|`<b>", "certain": True}))
    assert rig.run("generate", limit=4).success
    assert rig.run("publish").success

    made = rig.instance.get_latest_materialization_event(rig.batch.names.key("export"))
    assert made is not None
    assert made.asset_materialization is not None
    shown: dict[str, Any] = {name: entry.value for name, entry in made.asset_materialization.metadata.items()}
    assert (shown["n_exported"], shown["n_missing"], shown["dagster/row_count"]) == (4, 1, 4)
    columns = {column.name: column.type for column in shown["dagster/column_schema"].columns}
    assert (columns["id"], columns["answer"], columns["certain"]) == ("string", "string", "boolean")
    assert shown["csv_file"] == "artifacts/outputs/output.csv"
    assert shown["not_exported_file"] == "artifacts/outputs/output_not_exported.csv"
    assert "| `=x()/'<b>` |" in shown["preview"]


# Several batches, and their names.


def test_two_batches_in_one_instance_leave_each_other_alone(rig: Rig, server: ChatServer) -> None:
    project = rig.project
    config = project.parameters("second", **settings(server.base_url), llm_schema={"py_path": "schema/llm_schema.py"})
    second = Rig(project, build_batch(config), rig.instance)
    for stage in STAGES:
        assert rig.run(stage).success
    first_tree, first_states = project.tree(), rig.states()

    project.table([("q9", "red", "Only the second batch has this row?")])
    for stage in STAGES:
        assert second.run(stage).success

    assert rig.states() == first_states
    assert list(second.states().values()) == [MATERIALIZED]
    changed = {name for name, content in project.tree().items() if first_tree.get(name) != content}
    assert {name for name in changed if not name.startswith("artifacts/second/")} == {"raw_data/input.csv"}
    (call,) = server.calls[5:]
    assert "Only the second batch" in call.text


def test_two_batches_can_be_merged_into_one_code_location(rig: Rig, server: ChatServer) -> None:
    # Each batch once had an LLM resource of its own, and Dagster refuses to merge different objects with the same key.
    config = rig.project.parameters("second", **settings(server.base_url))
    merged = dg.Definitions.merge(rig.batch.definitions(), build_batch(config).definitions())
    assert merged.resolve_job_def("generate_pending") is not merged.resolve_job_def("second__generate_pending")


# Keys apart from the rest, so that a difference can be read.
DEPENDENCIES: dict[str, set[str]] = {
    "input_table": set(),
    "prompts": set(),
    "parameters": set(),
    "model_settings": set(),
    "llm_schema_py": {"parameters", "prompts"},
    "llm_schema_txt": {"llm_schema_py"},
    "input_snapshot": {"input_table", "parameters"},
    "group_contexts": {"input_snapshot", "parameters"},
    "work_items": {"input_snapshot", "parameters"},
    "llm_outputs": {"work_items", "group_contexts", "llm_schema_txt", "prompts", "model_settings"},
    "export": {"llm_outputs", "input_snapshot", "work_items"},
    "report": {"export", "llm_outputs", "input_snapshot", "work_items", "group_contexts", "llm_schema_txt"},
}


@pytest.mark.parametrize(("name", "prefix", "group"), [("parameters", "", "llmbatch"), ("second", "second/", "second")])
def test_asset_keys_and_dependencies(tmp_path: Path, name: str, prefix: str, group: str) -> None:
    project = make_project(tmp_path / "project")
    graph = build_batch(project.parameters(name, **settings())).definitions().resolve_asset_graph()

    keys = {key.to_user_string() for key in graph.get_all_asset_keys()}
    assert keys == {f"{prefix}{asset}" for asset in DEPENDENCIES}
    assert {
        key.to_user_string(): {parent.to_user_string() for parent in graph.get(key).parent_keys}
        for key in graph.get_all_asset_keys()
    } == {f"{prefix}{asset}": {f"{prefix}{parent}" for parent in parents} for asset, parents in DEPENDENCIES.items()}
    assert {graph.get(key).group_name for key in graph.get_all_asset_keys()} == {group}
    partitioned = [key.to_user_string() for key in graph.get_all_asset_keys() if graph.get(key).is_partitioned]
    assert partitioned == [f"{prefix}llm_outputs"]


@pytest.mark.parametrize(
    ("asset", "relative", "text"),
    [
        ("input_table", "raw_data/input.csv", "id,team,question\n1,red,Why?\n"),
        ("prompts", "prompts/generation.yaml", "user: '{context} Be brief.'"),
        ("parameters", "configs/parameters.yaml", "llm: {provider: offline, temperature: 0.1}"),
    ],
)
def test_a_changed_file_is_a_new_version_of_its_source(
    offline_rig: RigMaker, asset: str, relative: str, text: str
) -> None:
    rig = offline_rig()

    keys = [dg.AssetKey(name) for name in ("input_table", "prompts", "parameters")]
    observe = dg.define_asset_job("observe", selection=dg.AssetSelection.assets(*keys))
    job = dg.Definitions(assets=rig.batch.assets, jobs=[observe], resources=rig.batch.resources).resolve_job_def(
        "observe"
    )

    def versions() -> dict[str, str]:
        run = job.execute_in_process(instance=rig.instance, run_config={"loggers": QUIET})
        seen = [event.asset_observation_data.asset_observation for event in run.get_asset_observation_events()]
        return {made.asset_key.to_user_string(): made.tags["dagster/data_version"] for made in seen}

    before = versions()
    assert versions() == before

    rig.project.write(relative, text)

    assert {name for name, version in versions().items() if version != before[name]} == {asset}


# The plan.


def test_work_items_tell_what_a_run_would_do(rig: Rig) -> None:
    def headline() -> object:
        rig.prepare()
        event = rig.instance.get_latest_materialization_event(rig.batch.names.key("work_items"))
        made = event.asset_materialization if event else None
        return made.metadata["plan"].value if made and "plan" in made.metadata else None

    assert str(headline()).startswith("5 items: 0 cached, 5 new, 0 to rerun; cost unknown, about ")
    assert rig.run("generate").success
    assert headline() == "5 items: 5 cached, 0 new, 0 to rerun; nothing to pay for"


def test_new_items_are_registered_while_outputs_are_generated(tmp_path: Path) -> None:
    # Runs that share a pool wait for each other; a run of outputs can take hours.
    built = build_batch(make_project(tmp_path / "project").config)
    pools = {key.path[-1]: asset.op.pool for asset in built.assets if asset.is_executable for key in asset.keys}
    assert {asset for asset, pool in pools.items() if pool == "llm"} == {"llm_outputs"}
