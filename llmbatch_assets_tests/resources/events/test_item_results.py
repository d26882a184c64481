"""A failed item is explained on its partition's page and in the run's log, and its cost includes earlier attempts."""

from __future__ import annotations

import logging
from typing import Any

import dagster as dg
import pytest

from llmbatch_assets import build_batch
from llmbatch_assets.resources.events import item_results
from llmbatch_assets_tests.assets.test_batch import BRIDGE, HARBOUR, TOWER, WRONG, Rig, item_facts
from llmbatch_assets_tests.chat_server import ChatServer, refuses, says
from llmbatch_assets_tests.project import GENERATION, Project, settings

PRICES = {"prices": {"test-model": {"input": 10, "output": 100}}}


@pytest.fixture
def rig(project: Project, server: ChatServer, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> Rig:
    """A project with prices, whose model is the scripted server."""
    monkeypatch.setenv("TEST_KEY", "secret-key")
    project.parameters(**settings(server.base_url, budget=PRICES))
    return Rig(project, build_batch(project.config), instance)


def failure_of(rig: Rig, key: str) -> dict[str, Any]:
    """The metadata of the latest observation of a partition."""
    seen = next(seen for seen in rig.observations() if seen.partition == key)
    return {name: value.value for name, value in seen.metadata.items()}


def error_lines(rig: Rig, run_id: str) -> list[str]:
    return [
        entry.user_message
        for entry in rig.instance.all_logs(run_id)
        if entry.level == logging.ERROR and not entry.is_dagster_event
    ]


def test_a_failed_item_says_why_and_what_to_do(rig: Rig, server: ChatServer) -> None:
    tower, bridge, *_ = rig.prepare()
    server.script(TOWER, says("secret-key | <b>no JSON</b>"), repeat_last=True)
    server.script(BRIDGE, refuses())
    ended = rig.run("generate")
    assert not ended.success

    failure = failure_of(rig, tower)
    assert "| Cause | not_json |" in failure["failure"]
    assert "| What to do | State in the prompt" in failure["failure"]
    assert "| Attempts | 3 |" in failure["failure"]
    assert "Output shown here" not in failure["failure"]
    assert failure["answer"] == "```\n[key] | <b>no JSON</b>\n```"
    assert "| question | How tall is the tower? |" in failure["input"]
    assert rig.project.path(failure["file"]).name in rig.project.failures()
    assert failure["file"].endswith("__a3.json")
    assert failure["run"] == f"/runs/{ended.run_id}"
    refused = failure_of(rig, bridge)
    assert "| Cause | refused |" in refused["failure"]
    assert "answer" not in refused

    beginnings = {": ".join(line.split(": ")[:2]) for line in error_lines(rig, ended.run_id)}
    assert beginnings == {f"{tower} failed after 3 attempts: not_json", f"{bridge} failed after 1 attempt: refused"}
    assert "secret-key" not in str(rig.instance.all_logs(ended.run_id))


def test_an_older_output_beside_a_failure_is_marked(rig: Rig, server: ChatServer) -> None:
    tower, bridge, *_ = rig.prepare()
    assert rig.run("generate").success
    older = rig.project.output_of(0).name
    rig.project.prompt("generation", {**GENERATION, "user": "{context}\n\nAnswer it well."})
    server.script(TOWER, WRONG, repeat_last=True)
    assert not rig.run("generate").success
    shown = failure_of(rig, tower)
    assert "Made with earlier settings (since changed: generation prompt) and not exported" in shown["failure"]
    assert older in shown["failure"]

    # A forced item keeps its output, which is the current one.
    server.script(BRIDGE, WRONG, repeat_last=True)
    assert not rig.run("generate", select="keys", keys=[bridge], force=True).success
    assert "The current output. Only its regeneration failed." in failure_of(rig, bridge)["failure"]


def test_many_failures_do_not_flood_the_log(rig: Rig, server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_results, "MAX_FAILURE_LINES", 2)
    keys = rig.prepare()
    server.script(lambda call: True, WRONG, repeat_last=True)
    ended = rig.run("generate")
    lines = error_lines(rig, ended.run_id)
    assert len(lines) == 3
    assert lines[-1] == "... and 3 more failed items. Run `llmbatch status` for all causes."
    # Each has its observation, though.
    assert {seen.partition for seen in rig.observations()} == set(keys)


def test_the_cost_of_an_item_includes_its_attempts_in_this_run_and_in_earlier_ones(
    rig: Rig, server: ChatServer
) -> None:
    tower, bridge, harbour, *_ = rig.prepare()
    usage = {"prompt_tokens": 100, "completion_tokens": 10}
    wrong, good = says("no", usage=usage), says({"answer": "yes", "certain": True}, usage=usage)
    server.script(TOWER, wrong, wrong, wrong, good)
    server.script(BRIDGE, wrong, good)
    server.script(HARBOUR, good)
    assert not rig.run("generate").success
    assert "| Cost | $0.006000 |" in failure_of(rig, tower)["failure"]
    assert rig.run("generate").success

    facts = {key: item_facts(rig.materializations(key)[0]) for key in (tower, bridge, harbour)}
    assert {key: fact["Attempts"] for key, fact in facts.items()} == {tower: "4", bridge: "2", harbour: "1"}
    assert {key: fact["Cost"] for key, fact in facts.items()} == {
        tower: "$0.008000",
        bridge: "$0.004000",
        harbour: "$0.002000",
    }
    assert facts[tower]["Tokens"] == "400 input, 40 output"

    # An instance that knows nothing gets the same from the files.
    with dg.DagsterInstance.ephemeral() as fresh:
        again = Rig(rig.project, rig.batch, fresh)
        again.prepare()
        assert again.run("generate").success
        assert item_facts(again.materializations(tower)[0])["Cost"] == "$0.008000"
