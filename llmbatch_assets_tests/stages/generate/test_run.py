"""One run over the items of a batch: what is bought, what is kept, and whether the counts add up."""

import json
import os
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from llmbatch_assets.adapters.providers.registry import open_client
from llmbatch_assets.domain.items.grouping import plan_work
from llmbatch_assets.domain.outcome import ItemResult
from llmbatch_assets.domain.plan.selection import Selection
from llmbatch_assets.domain.run.attempt_lines import AttemptLine
from llmbatch_assets.domain.run.manifest import GenerationManifest
from llmbatch_assets.domain.run.progress import Tally
from llmbatch_assets.errors import ArtifactError, InputError, RunPermanentError
from llmbatch_assets.stages.generate.choice import BatchItems
from llmbatch_assets.stages.generate.progress import GenerateResult, LogReporter, end_line
from llmbatch_assets.stages.generate.run import GenerateRun
from llmbatch_assets.stages.project import BatchFile
from llmbatch_assets_tests.chat_server import Answer, ChatServer, cut_off, error_body, refuses, says, status
from llmbatch_assets_tests.project import Project, make_project, settings

GOOD = {"answer": "yes", "certain": True}
# Every way in which an answer can be no output, as the server gives it.
UNUSABLE = {
    "no JSON": says("I would rather not."),
    "two objects": says('{"answer": "a", "certain": true} {"answer": "b", "certain": true}'),
    "another shape": says({"answer": 3, "certain": True}),
    "cut off": cut_off('{"answer": "a", "cert'),
    "wrapped": says({"LLMOutput": GOOD}),
    "not a number": says('{"answer": "a", "certain": NaN}'),
    # A model can write a number that no float holds, and an integer that Python does not read.
    "infinity": says('{"answer": "a", "certain": 1e999}'),
    "digits": says('{"answer": "a", "certain": ' + "1" * 5_000 + "}"),
    "surrogate": says('{"answer": "\\ud800", "certain": true}'),
    "deep": says("[" * 100_000),
}


@dataclass
class Watcher:
    """Keeps what a run tells."""

    lines: list[str] = field(default_factory=list)
    done: list[int] = field(default_factory=list)
    attempts: list[AttemptLine] = field(default_factory=list)
    results: list[ItemResult] = field(default_factory=list)
    outcomes: list[GenerateResult] = field(default_factory=list)

    def say(self, line: str) -> None:
        self.lines.append(line)

    def began(self, tally: Tally) -> None:
        """The tally is looked at as it advances."""

    def advanced(self, tally: Tally) -> None:
        self.done.append(tally.done)

    def attempt_failed(self, line: AttemptLine) -> None:
        self.attempts.append(line)

    def finished(self, result: ItemResult) -> None:
        self.results.append(result)

    def ended(self, outcome: GenerateResult) -> None:
        self.outcomes.append(outcome)


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", "secret-key")


@pytest.fixture
def offline(tmp_path: Path) -> Project:
    return make_project(tmp_path / "offline")


def prepare(project: Project) -> GenerateRun:
    """A run over all items of the project as it is configured now."""
    batch = BatchFile(project.config).load()
    plan = plan_work(batch.read_snapshot(), batch.parameters)
    return GenerateRun(BatchItems(batch, plan.items), plan.contexts, open_client, Watcher())


def generate(
    project: Project,
    force: bool = False,
    on_result: Callable[[ItemResult], None] = lambda result: None,
    **selection: Any,
) -> GenerateResult:
    generation = prepare(project)
    outcome = generation.generate(generation.choose(Selection(**selection), force=force), on_result)
    assert_counts_add_up(project, outcome)
    return outcome


def assert_counts_add_up(project: Project, outcome: GenerateResult) -> None:
    """What is told of the items is what a fresh look at the files says of them."""
    counts = outcome.manifest.counts
    assert counts.n_success + counts.n_fail + counts.n_not_attempted == counts.n_total
    states = Counter(prepare(project).items.states.values())
    told = {"accepted": counts.n_success, "missing": counts.n_not_attempted}
    assert told == {state: states[state] for state in ("accepted", "missing")}
    assert outcome.manifest.model_dump() == project.json("artifacts/cache/pipeline4_manifest.json")


def configure(project: Project, server: ChatServer | None = None, **blocks: dict[str, Any]) -> None:
    project.parameters(**settings(server.base_url if server else "", **blocks))


def texts(project: Project) -> dict[int, dict[str, Any]]:
    """Outputs by row."""
    return {output["meta"]["row_index"]: output["parsed"] for output in project.outputs().values()}


# Answers that cannot be used.


@pytest.mark.parametrize("kind", UNUSABLE)
def test_an_unusable_answer_is_told_to_the_model_and_mended(project: Project, server: ChatServer, kind: str) -> None:
    server.script("the tower", UNUSABLE[kind], says(GOOD))
    outcome = generate(project)
    assert (outcome.error, outcome.tally.accepted, outcome.failed) == (None, 5, [])
    assert texts(project)[0] == GOOD
    [failure] = project.failures().values()
    assert failure["class"] == "answer"
    asked, corrected = (call for call in server.calls if "the tower" in call.text)
    assert corrected.messages[: len(asked.messages)] == asked.messages
    assert corrected.messages[-2]["content"] == UNUSABLE[kind].text
    assert failure["feedback"] in corrected.messages[-1]["content"]


def test_an_item_that_is_never_answered_well_leaves_the_others_alone(project: Project, server: ChatServer) -> None:
    server.script("the tower", says("no"), repeat_last=True)
    outcome = generate(project)
    assert (outcome.error, outcome.tally.accepted, outcome.tally.failed) == (None, 4, 1)
    assert [item.row_index for item in outcome.failed] == [0]
    assert outcome.manifest.failures_by_cause == {"not_json": 1}
    assert len(project.failures()) == 3


def test_a_number_that_json_lacks_never_becomes_nothing(project: Project, server: ChatServer) -> None:
    schema = project.path("schema/llm_schema.py")
    schema.write_text(schema.read_text().replace("certain: bool", "certain: float"))
    server.script("the tower", says('{"answer": "a", "certain": 1' + "0" * 400 + "}"), says({**GOOD, "certain": 1.5}))
    generate(project)
    assert texts(project)[0]["certain"] is not None


# What is kept, and not bought again.


def test_what_is_accepted_is_not_asked_again(project: Project, server: ChatServer) -> None:
    generate(project)
    before = {path: path.read_bytes() for path in project.path("artifacts/cache/llm_outputs").iterdir()}
    again = generate(project)
    assert server.count() == 5
    assert (again.tally.total, again.manifest.counts.n_cache_skipped) == (0, 5)
    assert {path: path.read_bytes() for path in project.path("artifacts/cache/llm_outputs").iterdir()} == before


def test_an_output_is_on_disk_before_it_is_told(offline: Project) -> None:
    told: list[int | None] = []

    def look(result: ItemResult) -> None:
        assert result.accepted is not None
        path = offline.path(f"artifacts/cache/llm_outputs/{result.accepted.meta['cache_id']}.json")
        assert json.loads(path.read_bytes())["parsed"] == result.accepted.parsed
        told.append(result.item.row_index)

    generate(offline, on_result=look)
    assert sorted(row for row in told if row is not None) == [0, 1, 2, 3, 4]


def test_a_failed_item_is_tried_again_and_its_attempts_are_numbered_on(project: Project, server: ChatServer) -> None:
    configure(project, server, llm={"max_retries": 2})
    server.script("the tower", *[says("no")] * 5, says(GOOD))
    for expected in (2, 4, 5):
        generate(project)
        numbers = sorted(failure["meta"]["attempt_outer"] for failure in project.failures().values())
        assert numbers == list(range(1, expected + 1))
    assert texts(project)[0] == GOOD
    [done] = [output for output in project.outputs().values() if output["meta"]["row_index"] == 0]
    assert done["meta"]["attempt_outer"] == 6


def test_an_item_that_the_provider_refuses_waits_to_be_asked_for(project: Project, server: ChatServer) -> None:
    server.script("the tower", refuses())
    refused = generate(project)
    assert (refused.tally.failed, refused.manifest.failures_by_cause) == (1, {"refused": 1})
    assert len(project.failures()) == 1
    assert generate(project).tally.total == 0
    assert generate(project, retry_failed=True).tally.accepted == 1
    assert len(project.outputs()) == 5


def test_a_broken_output_is_made_again_and_kept_aside(offline: Project) -> None:
    generate(offline)
    path = next(offline.path("artifacts/cache/llm_outputs").glob("*.json"))
    path.write_bytes(b"{")
    assert generate(offline).tally.accepted == 1
    assert path.with_suffix(".json.broken").read_bytes() == b"{"


def test_an_output_that_goes_while_it_is_looked_at_is_named(offline: Project) -> None:
    generate(offline)
    generation = prepare(offline)
    [item] = generation.choose(Selection(limit=1, select="all"), force=False).hits
    generation.items.store.index.output_path(generation.items.cache_id(item)).unlink()
    with pytest.raises(ArtifactError, match=generation.items.cache_id(item)):
        generation.items.output(item)


@pytest.mark.parametrize(
    "change",
    [
        {"llm": {"model_name": "another"}},
        {"llm": {"temperature": 0.0}},
        {"llm": {"seed": 1}},
        {"prompts": {"judge": {"enabled": True}}},
    ],
)
def test_another_question_has_another_output_beside_the_old_one(offline: Project, change: dict[str, Any]) -> None:
    generate(offline)
    configure(offline, **change)
    assert generate(offline).tally.accepted == 5
    assert len(offline.outputs()) == 10


@pytest.mark.parametrize(
    "change", [{"llm": {"max_workers": 1}}, {"cache": {"verbose": 0}}, {"llm": {"timeout_sec": 9}}]
)
def test_settings_that_change_no_question_cost_nothing(offline: Project, change: dict[str, Any]) -> None:
    generate(offline)
    configure(offline, **change)
    assert generate(offline).tally.total == 0


# Forced regeneration.


def test_a_forced_run_goes_on_where_it_was_stopped(project: Project, server: ChatServer) -> None:
    configure(project, server, llm={"max_workers": 1})
    generate(project)
    server.script(lambda call: call.number == 8, status(401), repeat_last=True)
    stopped = generate(project, force=True)
    assert (stopped.tally.accepted, isinstance(stopped.error, RunPermanentError)) == (2, True)
    assert len(project.outputs()) == 5
    assert len(list(project.path("artifacts/cache/forced").iterdir())) == 3
    rest = generate(project)
    assert (rest.tally.accepted, server.count()) == (3, 11)
    assert list(project.path("artifacts/cache/forced").iterdir()) == []


def test_a_batch_that_is_always_forced_goes_on_once_it_no_longer_is(project: Project, server: ChatServer) -> None:
    configure(project, server, llm={"max_workers": 1})
    generate(project)
    configure(project, server, llm={"max_workers": 1}, cache={"force": True})
    server.script(lambda call: call.number == 8, status(401), repeat_last=True)
    assert generate(project).tally.accepted == 2
    configure(project, server, llm={"max_workers": 1})
    assert (generate(project).tally.accepted, server.count()) == (3, 11)


def test_an_old_output_stands_until_a_new_one_is_accepted(project: Project, server: ChatServer) -> None:
    generate(project)
    before = texts(project)
    server.script("the tower", says("no"), repeat_last=True)
    outcome = generate(project, force=True)
    assert (outcome.tally.accepted, outcome.tally.failed, outcome.failed) == (4, 1, [])
    assert texts(project)[0] == before[0]
    assert outcome.manifest.counts.n_success == 5


@pytest.mark.parametrize("cache", [{"force": True}, {"enabled": False}])
def test_a_cache_that_is_not_to_be_used_is_not(offline: Project, cache: dict[str, bool]) -> None:
    configure(offline, cache=cache)
    generate(offline)
    assert generate(offline).tally.accepted == 5


def test_what_runs_again_is_not_counted_as_skipped(offline: Project) -> None:
    generate(offline)
    counts = generate(offline, force=True).manifest.counts
    assert (counts.n_to_run, counts.n_cache_skipped) == (5, 0)


# Faults that end a run.


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (status(401), "key_refused"),
        (status(404), "unknown_model"),
        (status(429, error_body("over", "insufficient_quota")), "no_quota"),
    ],
    ids=["key", "model", "quota"],
)
def test_a_hopeless_run_stops_and_keeps_what_is_done(
    project: Project, server: ChatServer, answer: Answer, cause: str
) -> None:
    configure(project, server, llm={"max_workers": 1})
    server.script(lambda call: call.number == 3, answer)
    outcome = generate(project)
    assert isinstance(outcome.error, RunPermanentError)
    assert (outcome.error.cause, outcome.manifest.meta.stopped_by) == (cause, cause)
    assert (server.count(), outcome.tally.accepted, len(project.outputs()), project.failures()) == (3, 2, 2, {})
    assert generate(project).tally.accepted == 3


def test_without_a_key_nothing_is_attempted(
    project: Project, server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TEST_KEY")
    outcome = generate(project)
    assert "TEST_KEY" in str(outcome.error)
    assert outcome.manifest.counts.n_not_attempted == 5
    assert (server.count(), project.failures()) == (0, {})


def test_transport_is_tried_again_within_one_attempt(project: Project, server: ChatServer) -> None:
    server.script("the tower", status(503, headers={"Retry-After": "0"}), says(GOOD))
    outcome = generate(project)
    assert (outcome.tally.accepted, project.failures()) == (5, {})
    assert server.count() == 6


def test_the_key_is_in_no_file(project: Project, server: ChatServer) -> None:
    server.script("the tower", says("no"), says(GOOD))
    generate(project)
    files = [path for path in project.path("artifacts").rglob("*") if path.is_file()]
    assert len(files) > 6
    assert [path for path in files if b"secret-key" in path.read_bytes()] == []


# The judge.


def test_what_the_judge_rejects_is_mended_and_not_kept(project: Project, server: ChatServer) -> None:
    configure(project, server, prompts={"judge": {"enabled": True}})
    rejection = {"reasons": ["too short to be true"], "score": 10, "verdict": "FAIL"}
    server.script("the tower", says(rejection), purpose="judge")
    outcome = generate(project)
    assert outcome.tally.accepted == 5
    [failure] = project.failures().values()
    assert (failure["cause"], failure["judge"]) == ("judge_rejected", rejection)
    corrected = [call for call in server.calls if call.purpose == "generate" and len(call.messages) == 4]
    assert ["too short to be true" in call.messages[-1]["content"] for call in corrected] == [True]
    assert {output["judge"]["verdict"] for output in project.outputs().values()} == {"PASS"}


def test_a_score_below_the_least_one_is_a_rejection(project: Project, server: ChatServer) -> None:
    configure(project, server, prompts={"judge": {"enabled": True}}, judge={"min_score": 95}, llm={"max_retries": 1})
    outcome = generate(project)
    assert outcome.manifest.failures_by_cause == {"judge_rejected": 5}


# Without a server.


def volatile_removed(value: Any) -> Any:
    """The value without what is of the day on which it was made."""
    if isinstance(value, dict):
        volatile = {"created_at_utc", "generated_at_utc", "elapsed_sec", "latency_sec", "pacing"}
        return {name: volatile_removed(part) for name, part in value.items() if name not in volatile}
    return value


def test_offline_outputs_are_the_same_everywhere(tmp_path: Path, offline: Project) -> None:
    other = make_project(tmp_path / "another/place")
    generate(offline)
    generate(other)
    assert volatile_removed(offline.outputs()) == volatile_removed(other.outputs())
    assert len(offline.outputs()) == 5
    manifests = [project.json("artifacts/cache/pipeline4_manifest.json") for project in (offline, other)]
    assert volatile_removed(manifests[0]) == volatile_removed(manifests[1])


def test_offline_outputs_say_so(offline: Project) -> None:
    generate(offline)
    assert {output["meta"]["provider"] for output in offline.outputs().values()} == {"offline"}


def test_texts_in_use_are_kept_under_their_sha(offline: Project) -> None:
    generate(offline)
    shas = {
        sha
        for output in offline.outputs().values()
        for sha in (output["meta"]["identity"]["prompt_sha"], output["meta"]["identity"]["schema_sha"])
    }
    kept = {path.stem for path in offline.path("artifacts/cache/provenance").iterdir()}
    assert {name for name in kept if "_" not in name} == shas | {"uses"}
    # And what is asked as a whole, by which a later run finds outputs that only lack its judge; and how items were made.
    assert len(kept) == len(shas) + 3


@pytest.mark.parametrize(
    ("selection", "rows"),
    [
        ({}, [0, 1, 2, 3, 4]),
        ({"limit": 2}, [0, 1]),
        ({"select": "failed"}, []),
        ({"select": "all", "limit": 1}, [0]),
    ],
)
def test_only_what_is_selected_runs(offline: Project, selection: dict[str, Any], rows: list[int]) -> None:
    assert generate(offline, **selection).tally.accepted == len(rows)
    assert sorted(texts(offline)) == rows


def test_a_sample_takes_from_every_group(offline: Project) -> None:
    configure(offline, grouping={"enabled": True, "column": "team"})
    generate(offline, sample=2)
    assert {output["meta"]["group_key"] for output in offline.outputs().values()} == {"red", "blue"}


def test_items_can_be_named_and_unknown_names_are_refused(offline: Project) -> None:
    item = prepare(offline).items.items[3]
    generate(offline, select="keys", keys=[item.partition_key])
    assert sorted(texts(offline)) == [3]
    with pytest.raises(InputError, match="nobody"):
        generate(offline, select="keys", keys=["nobody"])


def test_items_of_a_group_share_its_context_at_the_start_of_the_prompt(project: Project, server: ChatServer) -> None:
    configure(project, server, grouping={"enabled": True, "column": "team"}, llm={"max_workers": 1})
    generate(project)
    asked = [call.messages[-1]["content"] for call in server.calls]
    red = [text for text in asked if text.startswith("red (2 rows)")]
    assert asked[:2] == red
    assert len(red) == 2
    assert red[0].split("This item's own row:")[0] == red[1].split("This item's own row:")[0]


# What is told.


def test_the_run_is_told_as_it_goes(offline: Project) -> None:
    generation = prepare(offline)
    watcher = generation.reporter
    assert isinstance(watcher, Watcher)
    outcome = generation.generate(generation.choose(Selection(limit=3), force=False), lambda result: None)
    start, scan = watcher.lines
    # The model is the configured one, which is not called.
    assert start.startswith("Generating 3 items with offline answers instead of ")
    assert start.endswith(" workers)")
    assert scan == "0 already done, 3 to run"
    assert end_line(outcome).startswith("Finished after ")
    assert end_line(outcome).endswith(" s: 3 of 3 items accepted.")
    assert watcher.done == [1, 2, 3]
    assert watcher.outcomes == [outcome]


@pytest.mark.parametrize(("verbose", "lines"), [(0, 0), (10, 5), (1, 1)])
def test_the_log_has_as_many_lines_as_was_asked_for(offline: Project, verbose: int, lines: int) -> None:
    said: list[str] = []
    generation = prepare(offline)
    generation.reporter = LogReporter(said.append, verbose)
    generation.generate(generation.choose(Selection(), force=False), lambda result: None)
    assert len([line for line in said if "/5 done" in line]) == lines
    assert bool(said) == bool(verbose)


def test_at_most_so_many_calls_are_in_flight(project: Project, server: ChatServer) -> None:
    server.delay = 0.05
    configure(project, server, llm={"max_workers": 2})
    generate(project)
    assert server.max_in_flight == 2


def test_tokens_of_all_attempts_are_counted(project: Project, server: ChatServer) -> None:
    usage = {"prompt_tokens": 100, "completion_tokens": 10}
    server.script("the tower", says("no", usage=usage), says(GOOD, usage=usage))
    server.script(lambda call: True, says(GOOD, usage=usage), repeat_last=True)
    outcome = generate(project)
    assert outcome.manifest.usage.model_dump() == {
        "requests": 6,
        "input_tokens": 600,
        "cached_input_tokens": 0,
        "output_tokens": 60,
        "reasoning_tokens": 0,
        "cost_usd": None,
        "n_unknown_cost": 6,
    }


def test_a_signal_while_the_end_is_told_lets_it_be_told(offline: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    generation = prepare(offline)
    write = generation._write_manifest

    def impatient(*facts: Any) -> GenerationManifest:
        os.kill(os.getpid(), signal.SIGINT)
        return write(*facts)

    monkeypatch.setattr(generation, "_write_manifest", impatient)
    with pytest.raises(KeyboardInterrupt):
        generation.generate(generation.choose(Selection(), force=False), lambda result: None)
    assert offline.json("artifacts/cache/pipeline4_manifest.json")["counts"]["n_success"] == 5
    assert isinstance(generation.reporter, Watcher)
    assert len(generation.reporter.outcomes) == 1
