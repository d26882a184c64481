"""``llmbatch run`` against a real server that is told what to answer.

``project.llmbatch`` is the command as a process of its own, ``project.llmbatch_here`` the same one in this process.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from dagster._core.storage.partition_status_cache import AssetPartitionStatus

from llmbatch_assets_tests.chat_server import ChatCall, ChatServer, refuses, says, status
from llmbatch_assets_tests.memory_storage import kept_in_memory
from llmbatch_assets_tests.project import ROWS, Project, make_project, settings

MATERIALIZED, FAILED = AssetPartitionStatus.MATERIALIZED, AssetPartitionStatus.FAILED
ALL_ROWS = [0, 1, 2, 3, 4]
TOWER = "How tall is the tower?"
HARBOUR = "When was the harbour dug?"
WRONG = says("I would rather talk about something else.")
REJECTION = {"reasons": ["The unit is missing."], "score": 10, "verdict": "FAIL"}
BY_TEAM = {"enabled": True, "column": "team"}
JUDGED = {"judge": {"enabled": True}}


def asked_about(server: ChatServer, text: str) -> list[ChatCall]:
    """The calls that generate the item with this text."""
    return [call for call in server.calls if call.purpose == "generate" and text in call.text]


def test_failed_items_are_told_kept_apart_and_tried_again(tmp_path: Path, server: ChatServer) -> None:
    project = make_project(tmp_path / "project", server.base_url)
    server.script(HARBOUR, WRONG, WRONG, WRONG)

    ended = project.llmbatch("run")

    assert ended.returncode == 3, ended.stderr
    assert "4 of 5 items accepted" in ended.stdout
    assert "1 failed" in ended.stdout
    assert "not exported: 1 failed items; see artifacts/outputs/output_not_exported.csv" in ended.stdout
    assert "Traceback" not in ended.stdout + ended.stderr
    assert server.count() == 4 + 3
    tower, bridge, harbour, river, road = project.partition_keys()
    others = dict.fromkeys((tower, bridge, river, road), MATERIALIZED)
    assert project.partition_states() == others | {harbour: FAILED}
    (failed,) = {name.split("__")[0] for name in project.failures()}
    assert sorted(project.failures()) == [f"{failed}__a{number}.json" for number in (1, 2, 3)]
    assert len(project.path("artifacts/outputs/output.csv").read_text().splitlines()) == 1 + 4
    assert "1 failed" in project.path("artifacts/reports/report.md").read_text()
    before = project.outputs()

    ended = project.llmbatch_here("run")

    assert ended.returncode == 0, ended.stderr
    assert server.count() == 4 + 3 + 1
    assert project.partition_states() == others | {harbour: MATERIALIZED}
    assert project.outputs().keys() == before.keys() | {failed}
    assert project.rows_done() == ALL_ROWS


def test_a_run_answers_every_row_and_the_next_one_asks_nothing(tmp_path: Path, server: ChatServer) -> None:
    project = make_project(tmp_path / "project", server.base_url)

    ended = project.llmbatch("run")

    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    assert "5 of 5 items accepted (5 new, 0 from cache), 0 failed" in ended.stdout
    for place in ("artifacts/cache/llm_outputs/", "artifacts/outputs/output.csv", "artifacts/reports/report.html"):
        assert place in ended.stdout
        assert project.path(place).exists()
    assert server.count() == len(ROWS)
    assert set(project.partition_states().values()) == {MATERIALIZED}
    first = project.tree()

    ended = project.llmbatch_here("run")

    assert ended.returncode == 0, ended.stderr
    assert "5 of 5 items accepted (0 new, 5 from cache), 0 failed" in ended.stdout
    assert server.count() == len(ROWS)
    second = project.tree()
    kept = ("artifacts/cache/llm_outputs/", "artifacts/outputs/", "schema/")
    assert [name for name in first if name.startswith(kept) and first[name] != second.get(name)] == []


def test_an_unusable_answer_is_shown_to_the_model_and_put_right(project: Project, server: ChatServer) -> None:
    server.script(TOWER, says({"answer": "High.", "certain": "rather"}))

    ended = project.llmbatch_here("run")

    assert ended.returncode == 0, ended.stderr
    first, second = asked_about(server, TOWER)
    opening, (assistant, user) = second.messages[:-2], second.messages[-2:]
    assert opening == first.messages
    assert assistant == {"role": "assistant", "content": first.answered_with.text}
    assert user["role"] == "user"
    assert "certain" in user["content"]
    accepted = json.loads(project.output_of(0).read_bytes())
    assert accepted["meta"]["attempt_outer"] == 2
    (failure,) = project.failures().values()
    assert failure["raw_text"] == first.answered_with.text
    assert failure["meta"]["attempt_outer"] == 1


def test_what_the_judge_says_is_shown_to_the_model_until_it_passes(
    project_with: Callable[..., Project], server: ChatServer
) -> None:
    project = project_with(prompts=JUDGED)
    server.script(TOWER, says(REJECTION), purpose="judge")

    ended = project.llmbatch_here("run")

    assert ended.returncode == 0, ended.stderr
    assert (server.count("generate"), server.count("judge")) == (6, 6)
    first, second = asked_about(server, TOWER)
    opening, (assistant, user) = second.messages[:-2], second.messages[-2:]
    assert opening == first.messages
    assert assistant == {"role": "assistant", "content": first.answered_with.text}
    assert user["role"] == "user"
    assert "The unit is missing." in user["content"]
    accepted = json.loads(project.output_of(0).read_bytes())
    assert accepted["judge"]["verdict"] == "PASS"
    assert accepted["meta"]["attempt_outer"] == 2
    (failure,) = project.failures().values()
    assert failure["judge"] == REJECTION


def test_what_the_judge_never_passes_is_not_kept(project_with: Callable[..., Project], server: ChatServer) -> None:
    project = project_with(prompts=JUDGED, llm={"max_retries": 2})
    server.script(TOWER, says(REJECTION), purpose="judge", repeat_last=True)

    ended = project.llmbatch_here("run")

    assert ended.returncode == 3
    assert "judge_rejected" in ended.stdout
    assert project.rows_done() == ALL_ROWS[1:]
    assert len(project.failures()) == 2


# A server that cannot be used ends the run; nothing that was paid for is lost.


def test_nothing_listening_stops_the_run_at_once_and_loses_nothing(project: Project) -> None:
    with ChatServer() as gone:
        project.parameters(**settings(gone.base_url))
        assert project.llmbatch_here("run", "--limit", "2").returncode == 0
    done = project.outputs()
    assert len(done) == 2

    started = time.monotonic()
    ended = project.llmbatch_here("run")

    assert time.monotonic() - started < 15
    assert ended.returncode == 1
    assert f"no connection to {gone.base_url}" in ended.stdout + ended.stderr
    assert "llm.base_url" in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr
    assert project.outputs() == done
    assert sorted(map(str, project.partition_states().values())) == sorted(map(str, [MATERIALIZED] * 2 + [None] * 3))

    with ChatServer(port=gone.port) as back:
        assert project.llmbatch_here("run").returncode == 0
        assert back.count() == 3
    assert project.rows_done() == ALL_ROWS


def test_a_refused_key_stops_the_run_after_a_few_calls(project: Project, server: ChatServer) -> None:
    project.table([*ROWS, *((f"x{number}", "red", f"Extra question {number}?") for number in range(40))])
    server.require_key = "another-key"

    ended = project.llmbatch_here("run")

    assert ended.returncode == 1
    assert "refused the key" in ended.stdout + ended.stderr
    assert "secret-key" not in ended.stdout + ended.stderr
    assert server.count() <= 3
    assert FAILED not in project.partition_states().values()

    server.require_key = "secret-key"
    assert project.llmbatch_here("run").returncode == 0
    assert len(project.outputs()) == 45


def test_a_missing_key_is_named_before_anything_is_asked(project: Project, server: ChatServer) -> None:
    before = project.tree()

    ended = project.llmbatch_here("run", TEST_KEY="")

    assert ended.returncode == 2
    assert "TEST_KEY is not set" in ended.stderr
    assert project.tree() == before
    assert project.llmbatch_here("plan", TEST_KEY="").returncode == 0
    assert server.count() == 0


def test_what_makes_no_call_needs_no_key(project: Project, server: ChatServer) -> None:
    assert project.llmbatch_here("run").returncode == 0
    assert project.llmbatch_here("run", TEST_KEY="").returncode == 0
    assert project.llmbatch_here("run", "--select", "export,report", TEST_KEY="").returncode == 0
    assert project.llmbatch_here("run", "--force", TEST_KEY="").returncode == 2
    assert server.count() == 5


def test_a_used_up_quota_stops_the_run(project: Project, server: ChatServer) -> None:
    exhausted = {"error": {"message": "You exceeded your quota.", "code": "insufficient_quota"}}
    server.script(lambda call: True, status(429, exhausted), repeat_last=True)

    ended = project.llmbatch_here("run")

    assert ended.returncode == 1
    assert "quota" in ended.stdout + ended.stderr
    assert server.count() <= 3


# Fewer items.


def test_a_limit_is_not_exceeded_and_the_next_run_goes_on(project: Project, server: ChatServer) -> None:
    ended = project.llmbatch_here("run", "--limit", "2")

    assert ended.returncode == 0, ended.stderr
    assert server.count() == 2
    assert "2 of 5 items accepted" in ended.stdout
    assert "3 not attempted" in ended.stdout
    assert list(project.partition_states().values()).count(None) == 3

    assert project.llmbatch_here("run", "--limit", "2").returncode == 0
    assert server.count() == 4
    assert len(project.rows_done()) == 4


def test_a_sample_takes_from_every_group_and_is_always_the_same(
    project_with: Callable[..., Project], server: ChatServer
) -> None:
    project = project_with(grouping=BY_TEAM)

    assert project.llmbatch_here("run", "--sample", "2").returncode == 0

    taken = project.outputs()
    assert sorted(output["meta"]["group_key"] for output in taken.values()) == ["blue", "red"]

    assert project.llmbatch_here("run", "--sample", "2").returncode == 0
    assert project.outputs() == taken
    assert server.count() == 2


# Again.


def test_a_refusal_is_final_until_it_is_asked_for(project: Project, server: ChatServer) -> None:
    server.script(TOWER, refuses())
    assert project.llmbatch_here("run").returncode == 3
    assert server.count() == 5
    assert project.partition_states()[project.partition_keys()[0]] is FAILED

    ended = project.llmbatch_here("run")

    assert ended.returncode == 3
    assert "1 failed" in ended.stdout
    assert server.count() == 5
    assert project.partition_states()[project.partition_keys()[0]] is FAILED

    assert project.llmbatch_here("run", "--retry-failed").returncode == 0
    assert server.count() == 6
    assert set(project.partition_states().values()) == {MATERIALIZED}


def test_force_asks_again_and_keeps_what_it_cannot_replace(project: Project, server: ChatServer) -> None:
    server.script(lambda call: TOWER in call.text, says({"answer": "First.", "certain": True}))
    assert project.llmbatch_here("run").returncode == 0
    before, tower = project.outputs(), project.output_of(0)
    server.script(lambda call: TOWER not in call.text, says({"answer": "New.", "certain": True}), repeat_last=True)
    server.script(TOWER, WRONG, WRONG, WRONG)

    ended = project.llmbatch_here("run", "--force")

    assert server.count() == 5 + 4 + 3
    assert project.outputs().keys() == before.keys()
    answers = {name: output["parsed"]["answer"] for name, output in project.outputs().items()}
    assert answers.pop(tower.stem) == "First."
    assert set(answers.values()) == {"New."}
    assert set(project.partition_states().values()) == {MATERIALIZED}
    assert ended.returncode == 3
    # What could not be replaced is still to be: the next plain run tries that one, and only that one.
    assert project.llmbatch_here("run").returncode == 0
    assert server.count() == 5 + 4 + 3 + 1


# One asset alone.


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project whose run is over; tests may make its artifacts again."""
    project = make_project(tmp_path_factory.mktemp("finished") / "project")
    with kept_in_memory(project.path("dagster_home")):
        assert project.llmbatch_here("run").returncode == 0
        yield project


@pytest.mark.parametrize(
    ("asset", "artifact"),
    [
        ("llm_schema_txt", "schema/llm_schema.txt"),
        ("input_snapshot", "artifacts/cache/pipeline2_input.json"),
        ("group_contexts", "artifacts/cache/pipeline3_group_contexts.json"),
        ("work_items", "artifacts/cache/pipeline3_work_items.json"),
        ("llm_outputs", "artifacts/cache/pipeline4_manifest.json"),
        ("export", "artifacts/outputs/output.psv"),
        ("report", "artifacts/reports/report.md"),
    ],
)
def test_an_asset_can_be_made_alone_from_what_is_there(finished: Project, asset: str, artifact: str) -> None:
    before = finished.path(artifact).read_bytes()
    finished.path(artifact).unlink()

    ended = finished.llmbatch_here("run", "--select", asset)

    assert ended.returncode == 0, ended.stderr
    # These two tell when they, or the last generation, were made.
    if asset not in ("llm_outputs", "report"):
        assert finished.path(artifact).read_bytes() == before
    assert finished.path(artifact).exists()


@pytest.mark.parametrize(
    ("asset", "missing", "maker"),
    [
        ("work_items", "artifacts/cache/pipeline2_input.json", "input_snapshot"),
        ("llm_outputs", "artifacts/cache/pipeline3_work_items.json", "work_items"),
        ("llm_outputs", "artifacts/cache/pipeline3_group_contexts.json", "group_contexts"),
        ("export", "artifacts/cache/pipeline3_work_items.json", "work_items"),
        ("report", "artifacts/cache/pipeline5_manifest.json", "export"),
    ],
)
def test_a_missing_artifact_is_named_with_the_command_that_makes_it(
    finished: Project, asset: str, missing: str, maker: str
) -> None:
    content = finished.path(missing).read_bytes()
    finished.path(missing).unlink()
    before = finished.tree()
    try:
        ended = finished.llmbatch_here("run", "--select", asset)
        assert finished.tree() == before
    finally:
        finished.path(missing).write_bytes(content)

    assert ended.returncode == 2
    assert missing in ended.stderr
    assert f"llmbatch run --select {maker}" in ended.stderr


@pytest.mark.parametrize("broken", ["", "{", "[]", '{"n_items": "many"}'])
def test_a_broken_artifact_is_named_without_a_traceback(finished: Project, broken: str) -> None:
    path = finished.path("artifacts/cache/pipeline3_work_items.json")
    content = path.read_bytes()
    path.write_text(broken)
    try:
        ended = finished.llmbatch_here("run", "--select", "llm_outputs")
    finally:
        path.write_bytes(content)

    assert ended.returncode == 1
    assert "pipeline3_work_items.json" in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr


def test_an_unknown_asset_is_refused_with_the_name_that_is_meant(finished: Project) -> None:
    before = finished.tree()

    ended = finished.llmbatch_here("run", "--select", "input_snapshot,llm_output")

    assert ended.returncode == 2
    assert "did you mean llm_outputs?" in ended.stderr
    assert finished.tree() == before


# Providers.


def test_offline_asks_nobody_and_says_so(project: Project, server: ChatServer) -> None:
    ended = project.llmbatch_here("run", "--offline", TEST_KEY="")

    assert ended.returncode == 0, ended.stderr
    assert server.count() == 0
    assert {output["meta"]["provider"] for output in project.outputs().values()} == {"offline"}
    assert project.json("artifacts/cache/pipeline4_manifest.json")["meta"]["provider"] == "offline"
    assert "offline" in project.path("artifacts/reports/report.md").read_text()

    # Made-up answers are never taken for real ones.
    assert project.llmbatch_here("run").returncode == 0
    assert server.count() == len(ROWS)


def test_a_server_without_json_schema_is_asked_the_next_best_way_after_one_refusal(
    project_with: Callable[..., Project], server: ChatServer
) -> None:
    project = project_with(llm={"max_workers": 1})
    server.refuse_response_format = {"json_schema"}
    server.fallback_answer = {"answer": "yes", "certain": True}

    ended = project.llmbatch_here("run")

    assert ended.returncode == 0, ended.stderr
    assert [call.body["response_format"]["type"] for call in server.calls] == ["json_schema", *["json_object"] * 5]
    assert project.failures() == {}


def test_a_server_that_hiccups_is_asked_again(project: Project, server: ChatServer) -> None:
    server.script(TOWER, status(503))

    ended = project.llmbatch_here("run")

    assert ended.returncode == 0, ended.stderr
    assert server.count() == len(ROWS) + 1
    assert project.failures() == {}


# The environment.


def test_another_batch_is_run_by_its_configuration_file(project: Project, server: ChatServer) -> None:
    project.parameters("second", **settings(server.base_url), llm_schema={"py_path": "schema/llm_schema.py"})

    ended = project.llmbatch_here("run", "--config", "configs/second.yaml")

    assert ended.returncode == 0, ended.stderr
    assert project.path("artifacts/second/outputs/output.csv").exists()
    assert not project.path("artifacts/cache").exists()


@pytest.mark.slow
def test_the_project_is_found_from_a_folder_below_it(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    below = Project(project.path("raw_data"))

    ended = below.llmbatch("run", "--select", "input_snapshot")

    assert ended.returncode == 0, ended.stderr
    assert project.json("artifacts/cache/pipeline2_input.json")["n_rows"] == len(ROWS)
    assert [path.name for path in below.root.iterdir()] == ["input.csv"]
