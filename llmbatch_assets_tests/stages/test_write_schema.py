"""When a schema module is written and when it is left alone; what is in place whatever happens on the way."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from llmbatch_assets.adapters.providers.registry import open_client
from llmbatch_assets.domain.schema.grammar import parse_schema
from llmbatch_assets.domain.schema.spec import render_schema
from llmbatch_assets.errors import ArtifactError, PromptError, ProviderError, SchemaError, SchemaGenerationError
from llmbatch_assets.stages.project import Batch, BatchFile
from llmbatch_assets.stages.write_schema import SchemaDone, reason_to_write, write_schema
from llmbatch_assets_tests.chat_server import Answer, ChatServer, cut_off, refuses, says, status
from llmbatch_assets_tests.project import SCHEMA, Project, make_project, settings
from llmbatch_assets_tests.schema_answers import (
    BROKEN,
    HOSTILE,
    LOOSE,
    NEW,
    SCHEMA_PY,
    archived,
    fenced,
    schema_failures,
    with_schema_prompt,
)

MANIFEST = "artifacts/cache/pipeline0_manifest.json"
FORCING = {"llm_schema": {"force_regenerate": True}}


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", "secret-key")


@pytest.fixture
def home(tmp_path: Path, server: ChatServer) -> Callable[..., Project]:
    """Makes a project whose model is the scripted server."""

    def make(*, schema: bool = True, **blocks: Any) -> Project:
        return with_schema_prompt(
            lambda **more: make_project(tmp_path / "project", server.base_url, **more), schema=schema, **blocks
        )

    return make


def batch_of(project: Project, config: str = "parameters") -> Batch:
    return BatchFile(project.path(f"configs/{config}.yaml")).load()


def write(project: Project, told: list[str] | None = None) -> SchemaDone:
    return write_schema(batch_of(project), open_client, (list[str]() if told is None else told).append)


def rendered(source: str) -> str:
    return render_schema(parse_schema(source, "s.py"))


# Whether it is due.


def test_a_module_that_exists_is_left_alone(home: Callable[..., Project]) -> None:
    assert reason_to_write(batch_of(home())) == ""


def test_a_module_that_is_missing_is_written(home: Callable[..., Project]) -> None:
    assert reason_to_write(batch_of(home(schema=False))) == "it does not exist"


def test_on_demand_it_is_always_written_anew(home: Callable[..., Project], server: ChatServer) -> None:
    project = home()
    server.fallback_answer = lambda _: fenced(NEW)
    for _ in range(2):
        assert reason_to_write(batch_of(project), force=True) == "forced"
        write(project)
    assert reason_to_write(batch_of(project)) == ""


def change_task(project: Project, url: str) -> None:
    project.parameters(**settings(url, llm_schema={"force_regenerate": True, "task": "cards"}))


def change_model(project: Project, url: str) -> None:
    project.parameters(**settings(url, **FORCING, llm={"model_name": "another"}))


def change_generation_prompt(project: Project, _: str) -> None:
    path = project.path("prompts/generation.yaml")
    path.write_text(path.read_text().replace("Answer it.", "Answer it well."))


def change_schema_prompt(project: Project, _: str) -> None:
    path = project.path("prompts/schema_auto_py_generation.yaml")
    path.write_text(path.read_text().replace("nothing else.", "nothing else, please."))


def change_temperature(project: Project, url: str) -> None:
    project.parameters(**settings(url, **FORCING, llm={"temperature": 0.9}))


def change_comment(project: Project, _: str) -> None:
    path = project.path("prompts/generation.yaml")
    path.write_text(f"# a comment\n{path.read_text()}")


def change_by_hand(project: Project, _: str) -> None:
    project.write(SCHEMA_PY, SCHEMA)


@pytest.mark.parametrize(
    ("change", "is_due"),
    [
        # What it is written from.
        (change_task, True),
        (change_model, True),
        (change_generation_prompt, True),
        (change_schema_prompt, True),
        # What it is not.
        (change_temperature, False),
        (change_comment, False),
        (change_by_hand, False),
    ],
)
def test_force_regenerate_asks_once_for_each_change_of_what_it_is_written_from(
    home: Callable[..., Project], server: ChatServer, change: Callable[[Project, str], None], is_due: bool
) -> None:
    project = home(**FORCING)
    server.fallback_answer = lambda _: fenced(NEW)
    assert reason_to_write(batch_of(project))
    write(project)
    assert reason_to_write(batch_of(project)) == ""

    change(project, server.base_url)

    assert bool(reason_to_write(batch_of(project))) == is_due
    if is_due:
        write(project)
        assert reason_to_write(batch_of(project)) == ""


def test_a_missing_module_that_nobody_may_write_is_told_with_all_ways_out(home: Callable[..., Project]) -> None:
    project = home(schema=False, llm_schema={"auto_generate": False})
    with pytest.raises(SchemaError, match=r"schema/llm_schema\.py does not exist; write it.*py_path.*auto_generate"):
        reason_to_write(batch_of(project))
    assert reason_to_write(batch_of(project), force=True) == "it does not exist"


@pytest.mark.parametrize(("schema", "remedy"), [(True, "without --offline"), (False, "llm_schema.py_path")])
def test_made_up_answers_are_no_schema(tmp_path: Path, schema: bool, remedy: str) -> None:
    project = with_schema_prompt(lambda: make_project(tmp_path / "offline"), schema=schema)
    with pytest.raises(SchemaError, match=remedy):
        reason_to_write(batch_of(project), force=schema)


def test_a_prompt_that_is_missing_or_wrong_is_told_before_the_call(home: Callable[..., Project]) -> None:
    project = home(schema=False)
    project.prompt("schema_auto_py_generation", {"user": "{context} {row}"})
    with pytest.raises(PromptError, match=r"unknown placeholder \{row\}"):
        reason_to_write(batch_of(project))
    project.path("prompts/schema_auto_py_generation.yaml").unlink()
    with pytest.raises(PromptError, match=r"does not exist.*prompts\.schema_auto_py_generation\.path"):
        reason_to_write(batch_of(project))


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"meta": {}}', '{"meta": 3}'])
def test_a_broken_manifest_is_told_with_what_to_do(home: Callable[..., Project], content: str) -> None:
    # Taken for a missing one it would have the schema written, and all outputs paid for again.
    project = home(**FORCING)
    project.write(MANIFEST, content)
    with pytest.raises(ArtifactError, match=r"pipeline0_manifest\.json.*removing it"):
        reason_to_write(batch_of(project))
    project.path(MANIFEST).unlink()
    assert reason_to_write(batch_of(project))


# Writing it.


def test_what_was_written_is_vetted_rendered_and_told(home: Callable[..., Project], server: ChatServer) -> None:
    project = home()
    server.fallback_answer = lambda _: f"Here it is:\n\n{fenced(LOOSE)}"

    done = write(project)

    text = project.path(SCHEMA_PY).read_text()
    assert text == rendered(NEW)
    assert text.count('model_config = ConfigDict(extra="forbid")') == 2
    assert list(archived(project).values()) == [SCHEMA]
    manifest = project.json(MANIFEST)
    assert manifest["meta"]["schema_sha"] == batch_of(project).schema.output().sha
    assert (manifest["meta"]["attempts"], manifest["usage"]["requests"]) == (1, 1)
    assert manifest["outputs"] == {"schema_py": SCHEMA_PY, "archived": f"archived/{next(iter(archived(project)))}"}
    assert done.written.attempts == 1


def test_the_model_is_shown_prompt_and_task_and_is_given_room(home: Callable[..., Project], server: ChatServer) -> None:
    project = home(llm_schema={"task": "cards for {people}"}, llm={"max_output_tokens": 50})
    server.fallback_answer = lambda _: fenced(NEW)

    write(project)

    [call] = server.calls
    assert "Answer as JSON.\n{llm_schema}" in call.text
    assert "{context}\n\nAnswer it." in call.text
    assert "cards for {people}" in call.text
    assert "response_format" not in call.body
    assert call.body["max_tokens"] == 4_000
    assert call.body["temperature"] == 0.5


@pytest.mark.parametrize("judge", [True, False])
def test_a_judge_class_is_demanded_where_there_is_a_judge(
    home: Callable[..., Project], server: ChatServer, judge: bool
) -> None:
    project = home(prompts={"judge": {"enabled": judge}}, llm={"max_retries": 2})
    server.script(lambda _: True, says(fenced(NEW.split("class JudgeResult")[0])), says(fenced(NEW)))

    done = write(project)

    assert done.written.attempts == 1 + judge
    assert [problem for problem in schema_failures(project) if "JudgeResult" in problem] == schema_failures(project)
    assert len(schema_failures(project)) == judge


WRONG: Mapping[str, Answer] = {
    "no module": says("I would rather not."),
    "a broken module": says(fenced(BROKEN)),
    "a hostile module": says(fenced(HOSTILE)),
    "half a module": cut_off(fenced(NEW)),
    "two models": says(
        fenced(
            "from pydantic import BaseModel\n\nclass A(BaseModel):\n    a: str\n\nclass B(A):\n    b: str\n\nclass C(BaseModel):\n    a: str\n"
        )
    ),
    "no end of thoughts": says("<think>" + fenced(NEW)),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_does_not_pass_is_told_to_the_model_which_may_try_again(
    home: Callable[..., Project], server: ChatServer, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    project, told = home(), list[str]()
    monkeypatch.chdir(project.root)
    server.script(lambda _: True, WRONG[wrong], says(fenced(NEW)))

    assert write(project, told).written.attempts == 2

    assert project.path(SCHEMA_PY).read_text() == rendered(NEW)
    [problem] = schema_failures(project)
    assert problem in server.calls[1].messages[-1]["content"]
    assert server.calls[1].messages[-2] == {"role": "assistant", "content": WRONG[wrong].text}
    assert server.calls[1].messages[:-2] == server.calls[0].messages
    assert told == [
        f"Schema answer 1 of 3 rejected (saved as artifacts/cache/schema_failures/schema__a1.json): {problem}"
    ]
    assert not project.path("marker").exists()


@pytest.mark.parametrize("wrong", WRONG)
def test_after_the_last_attempt_the_old_schema_is_still_in_place(
    home: Callable[..., Project], server: ChatServer, wrong: str
) -> None:
    project = home(llm={"max_retries": 2})
    server.script(lambda _: True, WRONG[wrong], repeat_last=True)

    with pytest.raises(SchemaGenerationError) as failed:
        write(project)

    assert server.count() == 2
    assert "none of 2 answers" in str(failed.value)
    assert "artifacts/cache/schema_failures/" in str(failed.value)
    assert project.path(SCHEMA_PY).read_text() == SCHEMA
    assert archived(project) == {}
    assert not project.path(MANIFEST).exists()
    assert len(schema_failures(project)) == 2
    # The numbers go on in the next run: nothing that was paid for is overwritten.
    with pytest.raises(SchemaGenerationError):
        write(project)
    assert len(schema_failures(project)) == 4


@pytest.mark.parametrize("answer", [status(401), refuses(), status(400)], ids=lambda answer: answer.kind)
def test_a_provider_that_will_not_answer_leaves_everything_as_it_was(
    home: Callable[..., Project], server: ChatServer, answer: Answer
) -> None:
    project = home()
    before = project.tree()
    server.script(lambda _: True, answer, repeat_last=True)
    with pytest.raises(ProviderError):
        write(project)
    assert server.count() == 1
    after = project.tree()
    # That it was asked is written down.
    assert after.pop("artifacts/cache/usage.jsonl")
    assert after == before


def test_a_schema_that_was_asked_for_and_refused_before_can_be_counted(
    home: Callable[..., Project], server: ChatServer
) -> None:
    project = home()
    server.script(
        lambda _: True, says(fenced(BROKEN), usage={"prompt_tokens": 70, "completion_tokens": 9}), says(fenced(NEW))
    )
    write(project)
    failure = json.loads(project.path("artifacts/cache/schema_failures/schema__a1.json").read_text())
    assert (failure["usage"]["input_tokens"], failure["usage"]["output_tokens"]) == (70, 9)
    assert failure["raw_text"] == fenced(BROKEN)
    assert project.json(MANIFEST)["usage"]["requests"] == 2


# A module of the user's own.


def test_a_file_that_was_written_by_hand_is_imported_as_our_rendering_and_stays_as_it_is(
    home: Callable[..., Project],
) -> None:
    project = home()
    own = f"# mine\n{LOOSE}"
    project.write(SCHEMA_PY, own)
    batch = batch_of(project)

    batch.check_schema()

    assert project.path(SCHEMA_PY).read_text() == own
    assert batch.schema.output().json_schema["additionalProperties"] is False
    assert batch.schema.output().sha == (project.write(SCHEMA_PY, NEW), batch_of(project))[1].schema.output().sha


def test_where_it_is_trusted_the_manifest_names_the_contract_that_is_in_force(
    home: Callable[..., Project], server: ChatServer
) -> None:
    project = home(llm_schema={"trust": True})
    server.fallback_answer = lambda _: fenced(NEW)
    write(project)
    assert project.json(MANIFEST)["meta"]["schema_sha"] == batch_of(project).schema.output().sha


def test_what_the_model_writes_is_vetted_even_where_the_users_own_file_is_trusted(
    home: Callable[..., Project], server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = home(llm_schema={"trust": True}, llm={"max_retries": 1})
    monkeypatch.chdir(project.root)
    server.fallback_answer = lambda _: fenced(HOSTILE)
    with pytest.raises(SchemaGenerationError):
        write(project)
    assert not project.path("marker").exists()


# Another batch.


def test_another_batch_has_its_own_schema_archive_and_manifest(
    home: Callable[..., Project], server: ChatServer
) -> None:
    project = home()
    project.parameters("other", **settings(server.base_url))
    server.fallback_answer = lambda _: fenced(NEW)
    batch = batch_of(project, "other")
    assert reason_to_write(batch) == "it does not exist"

    for _ in range(2):
        write_schema(batch_of(project, "other"), open_client, lambda _: None)

    assert project.path("schema/other/llm_schema.py").read_text() == rendered(NEW)
    assert [path.parent.name for path in project.path("archived").rglob("*.py")] == ["other"]
    assert project.path("artifacts/other/cache/pipeline0_manifest.json").exists()
    assert project.path(SCHEMA_PY).read_text() == SCHEMA
    assert not project.path(MANIFEST).exists()
