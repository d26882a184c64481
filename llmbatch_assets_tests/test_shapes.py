"""The shapes of the artifacts are promised: programs read them. Fields may be added, never renamed, moved or retyped.

Each example is an artifact with the fields that are promised, cut short; the tests hold them against a real run.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from llmbatch_assets_tests.chat_server import ChatServer, says
from llmbatch_assets_tests.memory_storage import kept_in_memory
from llmbatch_assets_tests.project import ROWS, Project, make_project

SHA1 = re.compile(r"[0-9a-f]{40}")
UTC_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(\+00:00|Z)")
CACHE = "artifacts/cache"

SNAPSHOT = {
    "meta": {"input_path": "raw_data/input.csv", "input_format": "csv", "n_rows": 5, "n_cols": 3, "columns": [""]},
    "n_rows": 5,
    "n_cols": 3,
    "columns": [""],
    "rows": [{"id": "", "team": "", "question": ""}],
    "records": [{"id": "", "team": "", "question": ""}],
}
WORK_ITEMS = {
    "meta": {"grouping": {"enabled": True, "mode": "row_output_with_group_context", "dedupe_group_context": True}},
    "n_items": 5,
    "n_group_contexts": 2,
    "group_contexts_artifact": "pipeline3_group_contexts.json",
    "items": [
        {
            "work_id": "",
            "group_key": "",
            "row_index": 0,
            "group_context_id": "",
            "meta": {"mode": "row_output_with_group_context", "deduped_group_context": True},
        }
    ],
}
GROUP_CONTEXTS = [
    {
        "group_context_id": "",
        "group_key": "",
        "context": "",
        "meta": {"grouping_column": "team", "n_rows_total": 2, "n_rows_used": 2, "row_cap_applied": False},
    }
]
SUCCESS = {
    "meta": {
        "cache_id": "",
        "work_id": "",
        "group_key": "",
        "row_index": 0,
        "group_context_id": "",
        "model": "",
        "temperature": 1.0,
        "generation_prompt_path": "",
        "judge_enabled": True,
        "judge_prompt_path": "",
        "attempt_outer": 1,
        "created_at_utc": "",
    },
    "parsed": {"answer": "", "certain": True},
    "judge": {"verdict": "PASS", "score": 90, "reasons": [""]},
}
FAILURE = {
    "meta": SUCCESS["meta"],
    "error": {"type": "", "message": ""},
    "class": "answer",
    "raw_text": "",
    "feedback": "",
    "usage": {"input_tokens": 0, "output_tokens": 0},
}
MANIFEST = {
    "meta": {
        "pipeline": 4,
        "generated_at_utc": "",
        "model_name": "",
        "temperature": 1.0,
        "judge_enabled": True,
        "prompt_sha": "",
        "schema_sha": "",
        "judge_prompt_sha": "",
        "elapsed_sec": 64.42,
        "verbose": 3,
        "progress_every_n": 3,
        "cache_skips_pre_scan": 40,
        "cache_skips_observed": 40,
        "max_workers": 10,
        "execution_mode": "parallel",
    },
    "counts": {"n_total": 5, "n_success": 4, "n_fail": 1, "n_cache_skipped": 0, "n_to_run": 5},
    "outputs": {"outputs_dir": "", "failures_dir": "", "success_files": [""], "failure_files": [""]},
}
MODEL = {"type": "object", "properties": {}, "required": [""], "additionalProperties": False}
SCHEMA_TEXT = {"title": "LLM Schema", "type": "object", "models": {"LLMOutput": MODEL, "JudgeResult": MODEL}}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A judged and grouped batch of which one item failed."""
    root = tmp_path_factory.mktemp("shapes") / "project"
    with ChatServer() as server, kept_in_memory(root / "dagster_home"):
        project = make_project(
            root,
            server.base_url,
            grouping={"enabled": True, "column": "team"},
            prompts={"judge": {"enabled": True}},
            llm={"max_retries": 1},
        )
        # The rows of a group see each other, so the question alone would not tell whose call it is.
        server.script(lambda call: call.text.rfind(ROWS[0][2]) > call.text.rfind(ROWS[1][2]), says("no object"))
        assert project.llmbatch_here("run").returncode == 3
    return project


def assert_holds(actual: Any, example: Any, place: str) -> None:
    """Every field of the example is there, as deep down, with a value of the same type."""
    assert type(actual) is type(example), f"{place} is {actual!r}"
    if isinstance(example, dict):
        assert example.keys() <= actual.keys(), place
        for name, value in example.items():
            assert_holds(actual[name], value, f"{place}.{name}")
    elif isinstance(example, list):
        assert actual, f"{place} is empty"
        for number, item in enumerate(actual):
            assert_holds(item, example[0], f"{place}[{number}]")


@pytest.mark.parametrize(
    ("artifact", "example"),
    [
        (f"{CACHE}/pipeline2_input.json", SNAPSHOT),
        (f"{CACHE}/pipeline3_work_items.json", WORK_ITEMS),
        (f"{CACHE}/pipeline3_group_contexts.json", GROUP_CONTEXTS),
        (f"{CACHE}/pipeline4_manifest.json", MANIFEST),
        ("schema/llm_schema.txt", SCHEMA_TEXT),
    ],
)
def test_an_artifact_has_every_promised_field(finished: Project, artifact: str, example: Any) -> None:
    assert_holds(finished.json(artifact), example, artifact)


def test_outputs_and_failures_have_every_promised_field_and_name(finished: Project) -> None:
    outputs, failures = finished.outputs(), finished.failures()

    assert (len(outputs), len(failures)) == (4, 1)
    for cache_id, output in outputs.items():
        assert SHA1.fullmatch(cache_id)
        assert output["meta"]["cache_id"] == cache_id
        assert_holds(output, SUCCESS, cache_id)
    for name, failure in failures.items():
        assert name == f"{failure['meta']['cache_id']}__a{failure['meta']['attempt_outer']}.json"
        assert_holds(failure, FAILURE, name)


def test_ids_are_sha1_and_times_are_utc(finished: Project) -> None:
    items = finished.work_items()
    contexts = {one["group_context_id"]: one for one in finished.json(f"{CACHE}/pipeline3_group_contexts.json")}
    manifest = finished.json(f"{CACHE}/pipeline4_manifest.json")["meta"]

    assert all(SHA1.fullmatch(item["work_id"]) for item in items)
    assert {item["group_context_id"] for item in items} == contexts.keys()
    for identity, one in contexts.items():
        assert identity == hashlib.sha1(one["context"].encode(), usedforsecurity=False).hexdigest()
    assert all(SHA1.fullmatch(manifest[name]) for name in ("prompt_sha", "schema_sha", "judge_prompt_sha"))
    assert UTC_TIME.fullmatch(manifest["generated_at_utc"])
    for output in finished.outputs().values():
        assert UTC_TIME.fullmatch(output["meta"]["created_at_utc"])
        assert output["meta"]["generation_prompt_path"] == "prompts/generation.yaml"
        assert output["meta"]["judge_prompt_path"] == "prompts/judge.yaml"


def test_the_manifest_names_the_files_and_its_counts_add_up(finished: Project) -> None:
    manifest = finished.json(f"{CACHE}/pipeline4_manifest.json")
    files, counts = manifest["outputs"], manifest["counts"]

    assert files["outputs_dir"] == f"{CACHE}/llm_outputs"
    assert files["failures_dir"] == f"{CACHE}/llm_failures"
    assert sorted(files["success_files"]) == sorted(f"{cache_id}.json" for cache_id in finished.outputs())
    assert files["failure_files"] == list(finished.failures())
    assert counts["n_success"] + counts["n_fail"] + counts["n_not_attempted"] == counts["n_total"] == len(ROWS)


def test_the_snapshot_repeats_itself_only_where_it_says_so(finished: Project) -> None:
    snapshot = finished.json(f"{CACHE}/pipeline2_input.json")

    assert snapshot["rows"] == snapshot["records"] == [dict(zip(snapshot["columns"], row, strict=True)) for row in ROWS]
    for name in ("n_rows", "n_cols", "columns"):
        assert snapshot["meta"][name] == snapshot[name]


def test_an_output_without_a_judge_and_groups_has_the_same_fields(project_with: Callable[..., Project]) -> None:
    project = project_with(grouping={"enabled": False, "column": "team"})

    assert project.llmbatch_here("run").returncode == 0

    for output in project.outputs().values():
        assert SUCCESS.keys() <= output.keys()
        assert SUCCESS["meta"].keys() <= output["meta"].keys()
        assert output["judge"] is output["meta"]["group_key"] is output["meta"]["group_context_id"] is None
    assert project.json(f"{CACHE}/pipeline3_group_contexts.json") == []
    work_items = project.json(f"{CACHE}/pipeline3_work_items.json")
    assert WORK_ITEMS.keys() <= work_items.keys()
    assert work_items["meta"]["grouping"]["enabled"] is False


def test_every_json_artifact_is_written_in_the_one_form(finished: Project) -> None:
    paths = sorted(finished.path("artifacts").rglob("*.json"))

    assert len(paths) > 10
    for path in paths:
        content = json.loads(path.read_bytes())
        assert path.read_bytes() == (json.dumps(content, ensure_ascii=False, indent=2, sort_keys=True) + "\n").encode()
