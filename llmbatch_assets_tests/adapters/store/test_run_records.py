"""Provenance: every artifact can be traced back to the prompts and schemas that produced it."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from llmbatch_assets.adapters.store.run_records import (
    IdentityUse,
    earlier_identities,
    identity_as_kept,
    keep_provenance,
    kept_identities,
    kept_text,
    note_use,
    read_uses,
)
from llmbatch_assets.domain.items.identity import identity_of
from llmbatch_assets.stages.project import BatchFile
from llmbatch_assets_tests.domain.strategies import make_identity
from llmbatch_assets_tests.project import GENERATION, SCHEMA, make_project


def test_texts_are_kept_once_under_their_sha(tmp_path: Path) -> None:
    keep_provenance(tmp_path / "provenance", {"abc": {"user": "one"}})
    keep_provenance(tmp_path / "provenance", {"abc": {"user": "another"}, "def": "two"})
    kept = {path.name: json.loads(path.read_bytes()) for path in (tmp_path / "provenance").iterdir()}
    assert kept == {"abc.json": {"user": "one"}, "def.json": "two"}
    assert (kept_text(tmp_path / "provenance", "def"), kept_text(tmp_path, "def")) == ("two", None)


def test_a_use_is_noted_where_it_differs_from_the_last(tmp_path: Path) -> None:
    one, other = IdentityUse("1", "i", "c"), IdentityUse("2", "i", "d")
    for use in (one, one._replace(at_utc="9"), other, one._replace(at_utc="3")):
        note_use(tmp_path / "provenance", use)
    assert read_uses(tmp_path / "provenance") == [one, other, IdentityUse("3", "i", "c")]


def test_what_cannot_be_read_is_told_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "uses.jsonl").write_text('{"at_utc": "1", "identity": "i", "items": "c"}\n{"at_utc"\n')
    (tmp_path / "identity_x.json").write_text("{")
    (tmp_path / "abc.json").write_text("{")
    with caplog.at_level(logging.WARNING):
        assert read_uses(tmp_path) == [IdentityUse("1", "i", "c")]
        assert kept_identities(tmp_path) == []
        assert kept_text(tmp_path, "abc") is None
    assert len(caplog.records) == 3


def test_identities_are_known_again(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project", prompts={"judge": {"enabled": True}})
    batch = BatchFile(project.config).load()
    keep_provenance(tmp_path, batch.provenance())
    identity = batch.source.identity
    assert kept_identities(tmp_path) == [identity]
    assert earlier_identities(tmp_path, identity) == []
    assert earlier_identities(tmp_path, identity.model_copy(update={"judge_prompt_sha": "other"})) == [identity]


def test_requests_are_found_under_the_spelling_of_the_address_that_was_used_last(tmp_path: Path) -> None:
    identity = make_identity(settings={"base_url": "http://a/v1"})
    spelt = [make_identity(settings={"base_url": url}) for url in ("http://a/v1/", "HTTP://a/v1")]
    assert identity_as_kept(tmp_path, identity) == identity
    keep_provenance(
        tmp_path, {"identity_b": make_identity(settings={"base_url": "http://b/v1"}).model_dump(mode="json")}
    )
    assert identity_as_kept(tmp_path, identity) == identity
    keep_provenance(tmp_path, {f"identity_{spelt[0].sha}": spelt[0].model_dump(mode="json")})
    assert identity_as_kept(tmp_path, identity) == spelt[0]
    keep_provenance(tmp_path, {f"identity_{one.sha}": one.model_dump(mode="json") for one in [*spelt, identity]})
    for used in [*spelt, identity, spelt[0]]:
        note_use(tmp_path, IdentityUse("1", used.sha, "c"))
        assert identity_as_kept(tmp_path, identity) == used


def test_every_text_that_an_artifact_names_is_kept(tmp_path: Path) -> None:
    project = make_project(
        tmp_path / "project",
        prompts={"judge": {"enabled": True}},
        llm_schema={"trust": True},
        report={"enabled": False},
    )
    shown = "{judge_schema} {llm_schema_txt} " + GENERATION["user"]
    project.prompt("generation", {**GENERATION, "user": shown})
    assert project.llmbatch_here("run", "--limit", "1").returncode == 0
    (output,) = project.outputs().values()
    folder, parts = project.path("artifacts/cache/provenance"), output["meta"]["identity"]
    assert kept_text(folder, parts["prompt_sha"])["user"] == shown
    assert "{output_json}" in kept_text(folder, parts["judge_prompt_sha"])["user"]
    assert "answer" in kept_text(folder, parts["schema_sha"])["properties"]
    assert "verdict" in kept_text(folder, parts["judge"]["schema_sha"])["properties"]
    assert "LLMOutput" in json.loads(kept_text(folder, parts["llm_schema_txt"]))["models"]
    assert "verdict" in json.loads(kept_text(folder, parts["judge_schema"]))["properties"]
    # What a trusted module does beyond its JSON schema.
    identity = kept_text(folder, f"identity_{identity_of(parts).sha}")
    assert kept_text(folder, identity["schema_code_sha"]) == SCHEMA
    (use,) = read_uses(folder)
    assert use.identity == identity_of(parts).sha
    assert kept_text(folder, f"items_{use.items}")["context"]["kv_order"] == "input_order"


def test_a_second_run_adds_nothing(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project", report={"enabled": False})
    folder = project.path("artifacts/cache/provenance")
    trees = []
    for _ in range(2):
        assert project.llmbatch_here("run", "--select", "input_snapshot,work_items,llm_outputs").returncode == 0
        trees.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert trees[0] == trees[1]
