"""``llmbatch plan``: why items run, what changed, and an estimate that the bill agrees with."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmbatch_assets.adapters.store.run_records import read_ledger
from llmbatch_assets_tests.chat_server import ChatCall, ChatServer, refuses, says
from llmbatch_assets_tests.memory_storage import kept_in_memory
from llmbatch_assets_tests.project import GENERATION, JUDGE, ROWS, SCHEMA, Project, make_project, settings

PRICES = {"test-model": {"input": 10, "cached_input": 1, "output": 30}}
GROUPED = {"grouping": {"enabled": True, "column": "team"}}
JUDGED = {"prompts": {"judge": {"enabled": True}}}
BLOCKS: dict[str, Any] = {"budget": {"prices": PRICES}, **GROUPED, **JUDGED}


def plan(project: Project, *arguments: str) -> dict[str, Any]:
    ended = project.llmbatch_here("plan", "--json", *arguments)
    assert ended.returncode == 0, ended.stderr
    return dict(json.loads(ended.stdout))


def why(project: Project, *arguments: str) -> dict[int, tuple[str, ...]]:
    """The reasons of the items that would run, by row."""
    return {item["row_index"]: tuple(item["reasons"]) for item in plan(project, *arguments)["items"]}


def change(project: Project, row: int, question: str) -> None:
    rows = [list(one) for one in ROWS]
    rows[row][2] = question
    project.table(rows)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project all of whose items have outputs; to be copied."""
    root = tmp_path_factory.mktemp("plan") / "project"
    with ChatServer() as server, kept_in_memory(root / "dagster_home"):
        project = make_project(root, server.base_url, **BLOCKS)
        assert project.llmbatch_here("run").returncode == 0
        yield project


@pytest.fixture
def done(whole: Project, tmp_path: Path) -> Project:
    shutil.copytree(whole.root, tmp_path / "copy", symlinks=True)
    return Project(tmp_path / "copy")


def configure(project: Project, **blocks: Any) -> None:
    now: dict[str, Any] = yaml.safe_load(project.config.read_text())
    merged: dict[str, Any] = {name: {**now.get(name, {}), **blocks.get(name, {})} for name in {*now, *blocks}}
    project.parameters(**merged)


# Reasons.


def test_what_has_an_output_is_cached(done: Project) -> None:
    told = plan(done)
    assert told["counts"] == {"total": 5, "cached": 5, "new": 0, "again": 0, "held_back": 0, "not_selected": 0}
    assert told["headline"] == "5 items: 5 cached, 0 new, 0 to rerun; nothing to pay for"
    assert (told["items"], told["differences"], told["estimate"]["calls"]["high"]) == ([], None, 0)


def test_a_schema_that_will_be_regenerated_first_is_reported(done: Project) -> None:
    done.prompt("schema_auto_py_generation", {"user": "{context}"})
    configure(done, llm_schema={"force_regenerate": True})
    (told,) = plan(done)["warnings"]
    assert told.startswith("schema/llm_schema.py will be regenerated before the run, which costs calls")
    ended = done.llmbatch_here("plan", "--offline")
    assert (ended.returncode, "provider offline has no model" in ended.stderr) == (2, True)


def test_a_judge_that_follows_llm_is_no_change_of_its_own(done: Project) -> None:
    told = plan(done, "--offline")["differences"]["config"]
    assert {one["key"]: (one["before"], one["now"]) for one in told}["llm.provider"] == ("openai", "offline")
    assert not [one for one in told if one["key"].startswith("judge.")]


def test_a_row_that_was_not_there_is_new(done: Project) -> None:
    done.table([*ROWS, ("q6", "green", "Who rang the bell?")])
    assert why(done) == {5: ("new_row",)}
    assert plan(done)["counts"]["new"] == 1


def test_an_edited_row_is_told_apart_from_its_siblings(done: Project) -> None:
    change(done, 3, "Why is the river green?")
    assert why(done) == {2: ("sibling_changed",), 3: ("row_changed",), 4: ("sibling_changed",)}


def test_a_row_more_in_a_group_changes_its_siblings(done: Project) -> None:
    done.table([ROWS[0], ("q1b", "red", "Who dug the well?"), *ROWS[1:]])
    assert why(done) == {0: ("sibling_changed",), 1: ("new_row",), 2: ("sibling_changed",)}


@pytest.mark.parametrize("column", ["id", "team"])
def test_an_edited_row_is_found_by_its_label_or_else_by_its_place(
    project_with: Callable[..., Project], column: str
) -> None:
    # Labels that several rows share tell nothing.
    project = project_with(work_items={"label_column": column})
    assert project.llmbatch_here("run", "--select", "input_snapshot,work_items,llm_outputs").returncode == 0
    change(project, 3, "Why is the river green?")
    assert why(project) == {3: ("row_changed",)}


def test_a_moved_and_edited_row_is_found_by_its_label(project_with: Callable[..., Project]) -> None:
    project = project_with(work_items={"label_column": "id"})
    assert project.llmbatch_here("run", "--select", "input_snapshot,work_items,llm_outputs").returncode == 0
    project.table([("q5", "red", "Where does the river end?"), ("q9", "red", "Who?"), *ROWS[:4]])
    assert why(project) == {0: ("row_changed",), 1: ("new_row",)}


def test_a_group_that_is_one_item_changes_with_its_rows(project_with: Callable[..., Project]) -> None:
    project = project_with(grouping={"enabled": True, "column": "team", "mode": "group_output"})
    assert project.llmbatch_here("run", "--select", "input_snapshot,work_items,llm_outputs").returncode == 0
    change(project, 3, "Why is the river green?")
    assert [(item["group_key"], item["reasons"]) for item in plan(project)["items"]] == [("blue", ["group_changed"])]


GENERATE = ("run", "--select", "input_snapshot,work_items,llm_outputs")
EDITED = {2: ("sibling_changed",), 3: ("row_changed",), 4: ("sibling_changed",)}


def with_prompt(reason: tuple[str, ...]) -> tuple[str, ...]:
    return (*reason, "prompt_changed")


def test_a_row_edited_after_a_prompt_was_restored_is_compared_with_the_last_run(
    project_with: Callable[..., Project],
) -> None:
    # The outputs of the prompt in between are newer than those that the last run reused, and used to be taken instead.
    project = project_with(**GROUPED)
    for edit in (GENERATION, {**GENERATION, "user": "{context}\n\nAnswer it well."}, GENERATION):
        project.prompt("generation", edit)
        assert project.llmbatch_here(*GENERATE).returncode == 0
    change(project, 3, "Why is the river green?")
    assert why(project) == EDITED
    assert plan(project)["differences"] is None
    assert "prompt" not in project.llmbatch_here("plan").stdout.partition("Estimate")[0]


def test_a_row_edited_after_a_changed_prompt_is_compared_with_that_prompt(project_with: Callable[..., Project]) -> None:
    project = project_with(**GROUPED)
    assert project.llmbatch_here(*GENERATE).returncode == 0
    change_prompt(project)
    assert project.llmbatch_here(*GENERATE).returncode == 0
    change(project, 3, "Why is the river green?")
    assert why(project) == EDITED
    assert plan(project)["differences"] is None
    # A further prompt is compared with the last one, not with the first.
    project.prompt("generation", {**GENERATION, "user": "{context}\n\nAnswer it badly."})
    assert why(project) == {0: ("prompt_changed",), 1: ("prompt_changed",)} | {
        row: with_prompt(reason) for row, reason in EDITED.items()
    }
    told = plan(project)["differences"]
    assert [line for line in told["prompt"] if line[0] in "+-"] == ["-Answer it well.", "+Answer it badly."]


def test_an_edit_that_is_undone_after_a_changed_prompt_is_an_edit(project_with: Callable[..., Project]) -> None:
    # The row as it is now was last generated with the first prompt, but the last run had another row in its place.
    project = project_with(**GROUPED)
    assert project.llmbatch_here(*GENERATE).returncode == 0
    change_prompt(project)
    change(project, 3, "Why is the river green?")
    assert project.llmbatch_here(*GENERATE).returncode == 0
    project.table(ROWS)
    assert why(project) == EDITED
    assert plan(project)["differences"] is None


def test_a_row_that_was_never_edited_is_compared_with_its_own_output(project_with: Callable[..., Project]) -> None:
    project = project_with()
    change(project, 3, "Why is the river green?")
    assert project.llmbatch_here(*GENERATE).returncode == 0
    project.table(ROWS)
    assert project.llmbatch_here(*GENERATE).returncode == 0
    change_prompt(project)
    assert set(why(project).values()) == {("prompt_changed",)}


def change_prompt(project: Project) -> None:
    project.prompt("generation", {**GENERATION, "user": "{context}\n\nAnswer it well."})


def change_schema(project: Project) -> None:
    project.write("schema/llm_schema.py", SCHEMA.replace("max_length=80", "max_length=70"))


def change_judge(project: Project) -> None:
    project.prompt("judge", {**JUDGE, "system": "Judge it harshly. {judge_schema}"})


def change_context(project: Project) -> None:
    configure(project, context={"kv_order": "alpha"})


CHANGES: list[tuple[Callable[[Project], None], str]] = [
    (change_prompt, "prompt_changed"),
    (change_schema, "schema_changed"),
    (change_judge, "judge_changed"),
    # The judge is asked with the model of llm: that is no change of its own.
    (lambda project: configure(project, llm={"model_name": "other-model"}), "parameters_changed"),
    (lambda project: configure(project, llm={"temperature": 0.1}), "parameters_changed"),
    (lambda project: configure(project, llm={"seed": 5}), "parameters_changed"),
    (lambda project: configure(project, judge={"min_score": 50}), "judge_changed"),
    (change_context, "parameters_changed"),
]


@pytest.mark.parametrize(("edit", "reason"), CHANGES)
def test_what_is_asked_otherwise_runs_again(done: Project, edit: Callable[[Project], None], reason: str) -> None:
    edit(done)
    assert why(done) == dict.fromkeys(range(5), (reason,))
    assert plan(done)["counts"]["again"] == 5


def test_several_reasons_are_all_told(done: Project) -> None:
    change_prompt(done)
    change_schema(done)
    change(done, 0, "How tall is the spire?")
    both = ("prompt_changed", "schema_changed")
    told = plan(done)
    assert {tuple(item["reasons"]) for item in told["items"]} == {
        both,
        ("row_changed", *both),
        ("sibling_changed", *both),
    }
    assert {tuple(one["reasons"]): one["items"] for one in told["reasons"]} == {
        both: 3,
        ("row_changed", *both): 1,
        ("sibling_changed", *both): 1,
    }


def test_reasons_are_told_without_provenance(done: Project) -> None:
    shutil.rmtree(done.path("artifacts/cache/provenance"))
    change_prompt(done)
    assert why(done) == dict.fromkeys(range(5), ("prompt_changed",))


def test_a_missing_artifact_and_a_broken_one(done: Project) -> None:
    missing, broken, set_aside = (done.output_of(row) for row in range(3))
    missing.unlink()
    broken.write_text("{", encoding="utf-8")
    set_aside.rename(set_aside.with_suffix(".json.broken"))
    before = done.tree()
    assert why(done) == {0: ("artifact_missing",), 1: ("artifact_broken",), 2: ("artifact_broken",)}
    assert done.tree() == before


def test_forced_by_a_mark_an_option_or_a_key(done: Project) -> None:
    done.write(f"artifacts/cache/forced/{done.output_of(1).stem}", "")
    assert why(done) == {1: ("forced",)}
    assert why(done, "--force") == dict.fromkeys(range(5), ("forced",))
    configure(done, cache={"enabled": False})
    assert why(done, "--limit", "2") == dict.fromkeys(range(2), ("forced",))


def test_failed_before_refused_for_good_and_not_judged_yet(
    project_with: Callable[..., Project], server: ChatServer
) -> None:
    project = project_with(**JUDGED, llm={"max_retries": 1}, judge={"model_name": "test-model"})
    server.script(ROWS[0][2], says("no JSON"), purpose="generate")
    server.script(ROWS[1][2], refuses(), purpose="generate")
    server.script(ROWS[2][2], says("no verdict"), purpose="judge", repeat_last=True)
    assert project.llmbatch_here("run", "--select", "input_snapshot,work_items,llm_outputs").returncode == 3
    assert why(project) == {0: ("failed_before",), 2: ("verdict_missing",)}
    told = plan(project)
    assert (told["counts"]["held_back"], told["estimate"]["judged_only"]) == (1, 1)
    assert why(project, "--retry-failed")[1] == ("failed_before",)


def test_what_only_lacks_another_judge_is_not_generated(done: Project) -> None:
    change_judge(done)
    calls = plan(done)["estimate"]["calls"]
    assert (calls["low"], plan(done)["estimate"]["judged_only"]) == (5, 5)
    configure(done, prompts={"judge": {"enabled": False}})
    assert plan(done)["estimate"]["calls"]["high"] == 0


def test_the_selection_is_that_of_a_run(done: Project) -> None:
    change_prompt(done)
    assert plan(done, "--limit", "2")["counts"]["not_selected"] == 3
    sampled = plan(done, "--sample", "2")
    assert {item["group_key"] for item in sampled["items"]} == {"red", "blue"}
    assert plan(done, "--offline")["estimate"]["seconds"]["high"] == 0


# What changed.


def test_what_changed_is_shown(done: Project) -> None:
    change_prompt(done)
    change_schema(done)
    configure(done, llm={"temperature": 0.1}, context={"kv_order": "alpha"})
    told = plan(done)["differences"]
    assert [line for line in told["prompt"] if line[0] in "+-"] == ["-Answer it.", "+Answer it well."]
    assert told["schema"] == [{"key": "answer.maxLength", "before": "80", "now": "70"}]
    assert {one["key"]: (one["before"], one["now"]) for one in told["config"]} == {
        "llm.temperature": ("0.5", "0.1"),
        "context.kv_order": ("input_order", "alpha"),
    }
    shown = done.llmbatch_here("plan").stdout
    assert "  -Answer it.\n  +Answer it well.\n" in shown
    assert "answer.maxLength: 80 → 70" in shown
    assert "prompt changed, schema changed, model or parameters changed" in " ".join(shown.split())


def test_a_judges_own_prompt_and_schema_are_shown(done: Project) -> None:
    change_judge(done)
    done.write("schema/llm_schema.py", SCHEMA.replace("le=100", "le=10"))
    told = plan(done)["differences"]
    assert "+Judge it harshly. {judge_schema}" in told["judge_prompt"]
    assert told["schema"] == [{"key": "JudgeResult.score.maximum", "before": "100", "now": "10"}]


# Nothing is done.


def test_nothing_is_called_written_or_imported_from_dagster(
    project_with: Callable[..., Project], server: ChatServer
) -> None:
    project = project_with(**BLOCKS)
    before = project.tree()
    code = (
        "import sys\nfrom llmbatch_assets.cli import main\n"
        "main(['plan'], standalone_mode=False)\nassert 'dagster' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=project.root, env=project.environment(), check=True)
    assert project.tree() == before
    assert server.count() == 0


def test_what_a_table_or_prompt_holds_does_not_act_on_the_terminal(done: Project) -> None:
    done.prompt("generation", {**GENERATION, "user": "{context}\n\nAnswer \x1b[2Jit.\u202e"})
    shown = done.llmbatch_here("plan").stdout
    assert "\x1b" not in shown
    assert "\u202e" not in shown


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda project: project.path("schema/llm_schema.py").unlink(), "schema/llm_schema.py does not exist"),
        (lambda project: project.path("prompts/generation.yaml").unlink(), "prompts/generation.yaml"),
        (lambda project: project.path("raw_data/input.csv").unlink(), "raw_data/input.csv"),
        (lambda project: configure(project, grouping={"column": "taem"}), "'taem'"),
    ],
)
def test_a_mistake_is_a_message(done: Project, edit: Callable[[Project], None], told: str) -> None:
    edit(done)
    ended = done.llmbatch_here("plan")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert told in ended.stderr
    assert len(ended.stderr.splitlines()) <= 2


# The estimate.


def rows_of(count: int, words: Callable[[int], int]) -> list[tuple[str, str, str]]:
    return [
        (f"x{number}", f"team{number % 4}", f"Question {number}? " + "because " * words(number))
        for number in range(count)
    ]


def bill(project: Project) -> float:
    return sum(record.cost_usd or 0.0 for record in read_ledger(project.path("artifacts/cache/usage.jsonl")))


def says_more_where_more_is_asked(call: ChatCall) -> Any:
    return says({"answer": "y" * min(80, len(call.text) // 40), "certain": True})


def every_fifth_fails_at_first(server: ChatServer, count: int) -> None:
    for number in range(0, count, 5):
        server.script(f"Question {number}?", says("I would rather not."), purpose="generate")


@pytest.mark.parametrize(
    ("blocks", "words", "option", "fails"),
    [
        ({}, lambda number: number * 7 % 40, "--sample", False),
        ({**JUDGED, **GROUPED}, lambda number: number * 7 % 40, "--sample", False),
        (JUDGED, lambda number: number * 7 % 40, "--limit", True),
        # The first rows are short and the others long: tokens must not be taken to grow with the number of items.
        ({}, lambda number: number if number < 20 else 100 + number, "--limit", False),
    ],
)
def test_after_a_sample_of_20_the_estimate_is_near_the_bill(
    project_with: Callable[..., Project],
    server: ChatServer,
    blocks: dict[str, Any],
    words: Callable[[int], int],
    option: str,
    fails: bool,
) -> None:
    project = project_with(**blocks, budget={"prices": PRICES}, report={"enabled": False})
    project.table(rows_of(50, words))
    if fails:
        every_fifth_fails_at_first(server, 50)
    server.script(lambda call: call.purpose == "generate", says_more_where_more_is_asked, repeat_last=True)
    project.llmbatch_here("run", option, "20", "--select", "input_snapshot,work_items,llm_outputs")
    before = bill(project)
    told = plan(project)["estimate"]
    project.llmbatch_here("run", "--select", "llm_outputs")
    paid = bill(project) - before
    cost = told["cost_usd"]
    assert told["basis"]["generate"] == "measured"
    assert told["calibrated_on"]["generate"] == 20
    assert cost["likely"] == pytest.approx(paid, rel=0.15)
    assert cost["low"] <= paid <= cost["high"]
    calls = len(list(read_ledger(project.path("artifacts/cache/usage.jsonl"))))
    assert calls == server.count()


def test_before_a_sample_the_bill_is_between_low_and_high(
    project_with: Callable[..., Project], server: ChatServer
) -> None:
    project = project_with(**BLOCKS)
    told = plan(project)["estimate"]
    assert told["basis"] == {"generate": "assumed", "judge": "assumed"}
    assert project.llmbatch_here("run").returncode == 0
    assert told["cost_usd"]["low"] <= bill(project) <= told["cost_usd"]["high"]
    assert told["calls"]["low"] <= server.count() <= told["calls"]["high"]


def test_reused_beginnings_are_estimated_apart(project_with: Callable[..., Project], server: ChatServer) -> None:
    project = project_with(budget={"prices": PRICES})
    usage = {"prompt_tokens": 1000, "completion_tokens": 10, "prompt_tokens_details": {"cached_tokens": 500}}
    server.script(lambda call: True, says(usage=usage), repeat_last=True)
    assert project.llmbatch_here("run", "--limit", "2").returncode == 0
    told = plan(project)["estimate"]
    # Three calls of 1,000 tokens at $10, 10 at $30 per million; of the 1,000 a half at $1.
    assert told["cost_usd"]["likely"] == pytest.approx(3 * (0.010 + 0.0003), rel=0.02)
    assert told["cached_prefix_savings_usd"] == pytest.approx(3 * 500 * 9 / 1_000_000, rel=0.02)
    assert "could save" in project.llmbatch_here("plan").stdout


def test_limits_and_latency_make_the_time(done: Project) -> None:
    change_prompt(done)
    configure(done, llm={"requests_per_minute": 2})
    assert plan(done)["estimate"]["seconds"]["likely"] >= 10 / 2 * 60
    configure(done, llm={"requests_per_minute": 0, "tokens_per_minute": 100})
    tokens = plan(done)["estimate"]
    assert tokens["seconds"]["likely"] == pytest.approx(
        (tokens["input_tokens"]["likely"] + tokens["output_tokens"]["likely"]) / 100 * 60, rel=0.01
    )


@pytest.mark.parametrize(
    ("budget", "verdict", "words"),
    [
        ({"prices": PRICES}, "no_limit", "no cost limit is set"),
        ({"prices": PRICES, "max_cost_usd": 100}, "within", "within budget.max_cost_usd, $100.00"),
        ({"prices": PRICES, "max_cost_usd": 0.0001}, "exceeds", "exceeds budget.max_cost_usd"),
        ({"prices": {}}, "price_unknown", "the price of the model is unknown"),
    ],
)
def test_the_budget_is_checked(done: Project, budget: dict[str, Any], verdict: str, words: str) -> None:
    change_prompt(done)
    configure(done, budget=budget)
    assert plan(done)["budget"]["verdict"] == verdict
    assert words in done.llmbatch_here("plan").stdout


def test_items_beyond_the_budget_are_left_for_later(done: Project) -> None:
    change_prompt(done)
    configure(done, budget={"max_items": 2})
    told = plan(done)
    assert (told["estimate"]["items"], told["budget"]["left_over"], len(told["items"])) == (2, 3, 5)
    assert "left for later runs by budget.max_items, 2: 3 more items" in done.llmbatch_here("plan").stdout


def test_a_batch_of_its_own_is_planned_by_its_own_files(done: Project) -> None:
    done.parameters("other", **settings(llm={"provider": "offline"}, llm_schema={"py_path": "schema/llm_schema.py"}))
    assert plan(done, "--config", "configs/other.yaml")["counts"]["new"] == 5
