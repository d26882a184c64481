"""The clients of a batch: one for generating and, only if there is a judge, one for judging."""

import asyncio
import json
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from llmbatch_assets.adapters.providers.registry import Opener, open_client
from llmbatch_assets.domain.configuration.parameters import DEFAULT_BATCH, Parameters
from llmbatch_assets.domain.layout import Layout
from llmbatch_assets.errors import RunPermanentError
from llmbatch_assets.resources.llm import LlmResource
from llmbatch_assets.stages.generate.clients import CallMeter
from llmbatch_assets.stages.project import Batch
from llmbatch_assets_tests.adapters.values import chat_request
from llmbatch_assets_tests.chat_server import ChatServer


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_KEY", "key-of-llm")
    monkeypatch.setenv("JUDGE_KEY", "key-of-judge")


def _meter(parameters: Parameters, root: Path, opener: Opener = open_client) -> CallMeter:
    return CallMeter(
        opener, Batch(root, Layout(DEFAULT_BATCH, parameters)), "run", lambda: "2026-01-02T00:00:00.000+00:00"
    )


def ask(root: Path, **blocks: dict[str, Any]) -> bool:
    """Ask every client once; gives whether there is a judge."""

    async def once() -> bool:
        async with _meter(Parameters.model_validate(blocks), root).clients(asyncio.Event()) as (generator, judge):
            await generator.complete(chat_request("generate"))
            if judge is not None:
                await judge.complete(chat_request("judge"))
            return judge is not None

    return asyncio.run(once())


def test_without_a_judge_there_is_one_client(server: ChatServer, tmp_path: Path) -> None:
    llm = {"base_url": server.base_url, "model_name": "m-1", "api_key_env": "LLM_KEY"}
    assert not ask(tmp_path, llm=llm, judge={"model_name": "m-2"})
    assert [call.model for call in server.calls] == ["m-1"]


def test_the_judge_differs_where_it_says_so_and_only_there(server: ChatServer, tmp_path: Path) -> None:
    llm = {"base_url": server.base_url, "model_name": "m-1", "api_key_env": "LLM_KEY", "temperature": 1.0, "seed": 7}
    judge = {"model_name": "m-2", "temperature": 0.0}
    assert ask(tmp_path, llm=llm, judge=judge, prompts={"judge": {"enabled": True}})
    generated, judged = (dict(call.body) for call in server.calls)
    assert [(body["model"], body["temperature"], body["seed"]) for body in (generated, judged)] == [
        ("m-1", 1.0, 7),
        ("m-2", 0.0, 7),
    ]
    assert [call.headers["Authorization"] for call in server.calls] == ["Bearer key-of-llm"] * 2


def test_the_key_of_the_llm_does_not_reach_the_judges_server(server: ChatServer, tmp_path: Path) -> None:
    with ChatServer() as other:
        blocks: dict[str, dict[str, Any]] = {
            "llm": {"base_url": server.base_url, "model_name": "m-1", "api_key_env": "LLM_KEY"},
            "judge": {"base_url": other.base_url},
            "prompts": {"judge": {"enabled": True}},
        }
        ask(tmp_path, **blocks)
        ask(tmp_path, **{**blocks, "judge": {"base_url": other.base_url, "api_key_env": "JUDGE_KEY"}})
        assert [call.headers["Authorization"] for call in other.calls] == ["Bearer none", "Bearer key-of-judge"]
        assert [call.text for call in other.calls] == ["Be brief.\njudge"] * 2
    assert {call.headers["Authorization"] for call in server.calls} == {"Bearer key-of-llm"}


def test_a_judge_without_its_key_is_no_judge_left_out(
    server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JUDGE_KEY")
    judge = {"base_url": server.base_url, "api_key_env": "JUDGE_KEY"}
    with pytest.raises(RunPermanentError, match="JUDGE_KEY"):
        ask(tmp_path, llm={"base_url": server.base_url}, judge=judge, prompts={"judge": {"enabled": True}})
    assert server.count() == 0


def test_offline_both_are_made_up(tmp_path: Path) -> None:
    assert ask(tmp_path, llm={"provider": "offline"}, prompts={"judge": {"enabled": True}})


def test_no_key_is_part_of_the_run_that_dagster_keeps(server: ChatServer, tmp_path: Path) -> None:
    @dg.asset
    def asked(llm: dg.ResourceParam[LlmResource]) -> None:
        parameters = {"base_url": server.base_url, "api_key_env": "LLM_KEY"}

        async def once() -> None:
            meter = _meter(Parameters.model_validate({"llm": parameters}), tmp_path, llm.client)
            async with meter.clients(asyncio.Event()) as (generator, _):
                await generator.complete(chat_request())

        asyncio.run(once())

    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize([asked], instance=instance, resources={"llm": LlmResource()})
        record = instance.get_run_record_by_id(result.run_id)
        logs = [str(entry) for entry in instance.all_logs(result.run_id)]
    assert record is not None
    assert len(logs) > 5
    kept = "".join([*logs, json.dumps(record.dagster_run.run_config), str(record.dagster_run.tags)])
    assert server.calls[0].headers["Authorization"] == "Bearer key-of-llm"
    assert "key-of-llm" not in kept
