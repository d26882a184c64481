"""Every command gives the same answer to the state of an item, and reads each artifact at most once to find it."""

from __future__ import annotations

import csv
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from llmbatch_assets.adapters.store.artifact_cache import ARTIFACTS
from llmbatch_assets_tests.chat_server import ChatServer, refuses, says
from llmbatch_assets_tests.memory_storage import kept_in_memory
from llmbatch_assets_tests.project import GENERATION, Project, make_project

OUTPUTS = "artifacts/cache/llm_outputs"
# The state of each item by its label.
STATES = {
    "good": "accepted",
    "valid": "accepted",
    "forced": "accepted",
    "invalid": "missing",
    "cut": "missing",
    "foreign": "missing",
    "failed": "failed",
    # Its output is broken, too.
    "spoilt": "failed",
    "refused": "failed_permanently",
    "awaiting": "missing",
    "missing": "missing",
}
BROKEN = {"invalid", "cut", "foreign", "spoilt"}
STAGES = "input_snapshot,work_items,llm_outputs"


@pytest.fixture
def mixed(tmp_path: Path, server: ChatServer) -> Any:
    """A project with an item in each state, all of which have an output from an earlier prompt."""
    project = make_project(tmp_path / "project", server.base_url, work_items={"label_column": "id"})
    project.table([(label, "red", f"Question {label}?") for label in STATES])
    with kept_in_memory(tmp_path / "project/dagster_home"):
        assert project.llmbatch_here("run", "--select", STAGES).returncode == 0
        project.prompt("generation", {**GENERATION, "user": "{context} Please answer."})
        server.script("Question failed?", says("no"), repeat_last=True)
        server.script("Question spoilt?", says("no"), says("no"), says("no"))
        server.script("Question refused?", refuses())
        assert project.llmbatch_here("run", "--select", STAGES).returncode == 3
        spoil(project)
        yield project


def ids(project: Project) -> dict[str, str]:
    """The current cache ids by label."""
    shown = {label: json.loads(project.llmbatch_here("show", label, "--json").stdout) for label in STATES}
    return {label: found["cache_id"] for label, found in shown.items()}


def spoil(project: Project) -> None:
    found = ids(project)
    path = {label: project.path(f"{OUTPUTS}/{cache_id}.json") for label, cache_id in found.items()}
    edit(path["valid"], answer="corrected")
    edit(path["invalid"], answer=["a list"])
    path["cut"].write_bytes(path["cut"].read_bytes()[:-20])
    path["foreign"].write_bytes(path["good"].read_bytes())
    path["spoilt"].write_bytes(b"")
    project.write(f"artifacts/cache/forced/{found['forced']}", "")
    waiting = json.loads(path["awaiting"].read_bytes())
    answer = {name: waiting[name] for name in ("parsed", "usage", "latency_sec")}
    kept = {"cache_id": found["awaiting"], "attempt": 1, "raw_text": "{}", **answer}
    project.write(f"artifacts/cache/awaiting_judge/{found['awaiting']}.json", json.dumps(kept))
    path["awaiting"].unlink()
    path["missing"].unlink()


def edit(path: Path, **fields: Any) -> None:
    content = json.loads(path.read_bytes())
    content["parsed"].update(fields)
    path.write_text(json.dumps(content))


def told(project: Project, *command: str) -> Any:
    ended = project.llmbatch_here(*command, "--json")
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def label(partition_key: str) -> str:
    return partition_key.rpartition("-")[0]


def test_every_command_comes_to_the_same_states(mixed: Project, server: ChatServer) -> None:
    accepted = {name for name, state in STATES.items() if state == "accepted"}
    pending = {name for name, state in STATES.items() if state in ("missing", "failed")} | {"forced"}
    artifacts = {name: content for name, content in mixed.tree().items() if "/llm_" in name}

    assert {name: told(mixed, "show", name)["state"] for name in STATES} == STATES

    status = told(mixed, "status")
    assert Counter({name: n for name, n in status["items"].items() if name != "total"}) == Counter(STATES.values())
    causes = {failure["class"]: failure["n_items"] for failure in status["failures"]}
    assert (sum(causes.values()), causes["item_permanent"]) == (3, 1)

    plan = told(mixed, "plan")
    assert {label(item["partition_key"]) for item in plan["items"]} == pending
    assert (plan["counts"]["cached"], plan["counts"]["held_back"]) == (len(accepted) - 1, 1)

    diff = told(mixed, "diff")
    kinds = diff["counts"]
    assert (kinds["newly_failing"], kinds["not_made_yet"]) == (3, 5)
    assert kinds["changed"] + kinds["unchanged"] == len(accepted)
    failing = {label(pair["partition_key"]) for pair in diff["items"] if pair["change"] == "newly_failing"}
    assert failing == {"failed", "spoilt", "refused"}

    assert mixed.llmbatch_here("run", "--select", "export").returncode == 0
    with mixed.path("artifacts/outputs/output.csv").open(encoding="utf-8") as file:
        assert {row["id"] for row in csv.DictReader(file)} == accepted
    with mixed.path("artifacts/outputs/output_not_exported.csv").open(encoding="utf-8") as file:
        left = {label(row["partition_key"]): row["state"] for row in csv.DictReader(file)}
    assert {name for name, state in left.items() if state == "failed"} == {"failed", "spoilt", "refused"}
    # The others have an output of the earlier prompt.
    assert {name for name, state in left.items() if state == "outdated"} == STATES.keys() - accepted - {
        "failed",
        "spoilt",
        "refused",
    }

    # Outputs of the earlier prompt and nothing else, however broken the current ones are.
    assert {kind["kind"]: kind["n_files"] for kind in told(mixed, "prune")["kinds"]} == {
        "outputs of other settings": len(STATES),
        "prompts and schemas of other settings": 2,
    }
    # So far, everything only looked.
    assert {name: content for name, content in mixed.tree().items() if "/llm_" in name} == artifacts

    before = len(server.calls)
    mixed.llmbatch_here("run", "--select", "llm_outputs")
    asked = " ".join(call.messages[-1]["content"] for call in server.calls[before:])
    assert {name for name in STATES if f"Question {name}?" in asked} == pending - {"awaiting"}
    broken = {path.name.partition(".")[0] for path in mixed.path(OUTPUTS).glob("*.broken")}
    assert broken == {cache_id for name, cache_id in ids(mixed).items() if name in BROKEN}


COMMANDS = (
    ("run",),
    ("plan", "--json"),
    ("status", "--json"),
    ("show", "good", "--json"),
    ("show", "refused", "--json"),
    ("diff", "--json"),
    ("run", "--select", "export"),
    ("run", "--select", "report"),
    ("prune", "--json"),
)


def test_a_command_opens_each_artifact_at_most_once(mixed: Project, opened: list[str]) -> None:
    mixed.llmbatch_here("run")
    for command in COMMANDS:
        # As in a new process.
        ARTIFACTS.clear()
        opened.clear()
        mixed.llmbatch_here(*command)
        assert opened, command
        assert [name for name, count in Counter(opened).items() if count > 1] == [], command


def test_a_run_reads_its_table_once(project: Project, opened: list[str]) -> None:
    # A table that was written a moment ago could change without showing it, so it is read again.
    time.sleep(0.03)
    assert project.llmbatch_here("run").returncode == 0
    # Once for its fingerprint. The check before the run keeps what it has read.
    assert [Path(name).name for name in opened if Path(name).suffix == ".csv"] == ["input.csv"] * 2
