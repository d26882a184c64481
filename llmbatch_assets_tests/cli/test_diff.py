"""``llmbatch diff``: outputs before and after a change, for the same rows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from llmbatch_assets_tests.chat_server import ChatServer, says
from llmbatch_assets_tests.memory_storage import kept_in_memory
from llmbatch_assets_tests.project import GENERATION, ROWS, Project, make_project

NASTY = "<script>alert(1)</script>\x1b[31m & {{ 7 * 7 }}"
AGAIN = "Answer it again."
STAGES = ("run", "--select", "input_snapshot,work_items,llm_outputs")
TOWER, BRIDGE, HARBOUR, RIVER, ROAD = (row[2] for row in ROWS)


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project whose prompt was changed: one output differs, one item fails now, one has failed before."""
    root = tmp_path_factory.mktemp("diff") / "project"
    with ChatServer() as server, kept_in_memory(root / "dagster_home"):
        project = make_project(root, server.base_url, llm={"max_retries": 1})
        server.script(TOWER, says({"answer": NASTY, "certain": True}))
        server.script(BRIDGE, says({"answer": "a mason", "certain": True}))
        server.script(HARBOUR, says("no JSON"))
        server.script(RIVER, says({"answer": "mud", "certain": True}))
        project.llmbatch_here(*STAGES)
        project.prompt("generation", {**GENERATION, "user": "{context}\n\n" + AGAIN})
        server.script(TOWER, says({"answer": "tall", "certain": True}))
        server.script(BRIDGE, says("no JSON"))
        server.script(HARBOUR, says({"answer": "1820", "certain": True}))
        server.script(RIVER, says({"answer": "mud", "certain": True}))
        project.llmbatch_here(*STAGES, "--limit", "4")
        yield project


@pytest.fixture
def project(changed: Project, tmp_path: Path) -> Project:
    shutil.copytree(changed.root, tmp_path / "copy", symlinks=True)
    return Project(tmp_path / "copy")


def diff(project: Project, *arguments: str) -> Any:
    ended = project.llmbatch_here("diff", "--json", *arguments)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def test_items_are_paired_and_counted(project: Project) -> None:
    before = project.tree()
    told = diff(project)
    assert {change: count for change, count in told["counts"].items() if count} == {
        "changed": 1,
        "newly_failing": 1,
        "newly_passing": 1,
        "unchanged": 1,
        "not_made_yet": 1,
    }
    assert {item["row_index"]: item["change"] for item in told["items"]} == {
        0: "changed",
        1: "newly_failing",
        2: "newly_passing",
    }
    tower, bridge, harbour = told["items"]
    assert tower["fields"] == [{"key": "answer", "before": NASTY, "now": "tall"}]
    assert bridge["now"]["cause"] == "not_json"
    assert (harbour["before"]["state"], harbour["now"]["parsed"]["answer"]) == ("failed", "1820")
    assert "+" + AGAIN in told["differences"]["prompt"]
    assert project.tree() == before


def test_the_terminal_shows_both_sides_and_no_escape_sequence(project: Project) -> None:
    shown = project.llmbatch_here("diff").stdout
    assert "1 changed, 1 newly failing, 1 newly passing, 1 unchanged, 1 not regenerated yet" in shown
    assert "a mason" in shown
    assert "not_json" in shown
    assert "\x1b" not in shown
    assert "<script>" in shown
    assert "not shown: 2 more items that changed" in project.llmbatch_here("diff", "--limit", "1").stdout


class Tags(HTMLParser):
    """All tags and the text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert not {name for name, _ in attrs} & {"src", "href"}

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_whole_and_escaped(project: Project) -> None:
    ended = project.llmbatch_here("diff", "--html", "out/diff.html")
    assert "wrote out/diff.html" in ended.stderr
    page = Tags(project.path("out/diff.html").read_text(encoding="utf-8"))
    assert "script" not in page.tags
    assert "<script>alert(1)</script>" in page.text
    assert "{{ 7 * 7 }}" in page.text
    assert "1 changed, 1 newly failing, 1 newly passing" in page.text
    assert "not_json" in page.text
    assert page.text.count("newly failing") == 2


def test_what_was_asked_is_listed_and_chosen(project: Project) -> None:
    project.prompt("generation", {**GENERATION, "user": "{context}\n\nAnswer it a third time."})
    listed = diff(project, "--list")
    # The latest first.
    assert [(one["outputs"], one["failed"]) for one in listed] == [(3, 1), (4, 1)]
    assert [one["differs_in"] for one in listed] == [["prompt_changed"]] * 2
    table = project.llmbatch_here("diff", "--list").stdout
    assert all(one["sha"][:12] in table for one in listed)
    assert diff(project)["before"]["sha"] == listed[0]["sha"]
    first = listed[1]
    output = next(
        name
        for name, output in project.outputs().items()
        if output["meta"]["identity"]["prompt_sha"] == first["identity"]["prompt_sha"]
    )
    for name in (first["sha"], first["sha"][:8], first["identity"]["prompt_sha"][:10], output):
        assert diff(project, "--against", name)["before"]["sha"] == first["sha"]


def test_the_other_way_round_is_the_other_change(project: Project) -> None:
    project.prompt("generation", GENERATION)
    counts = diff(project)["counts"]
    assert (counts["newly_failing"], counts["newly_passing"], counts["only_now"]) == (1, 1, 1)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--against", "feedfeed"), "no other settings are named 'feedfeed'"),
        (("--against", "a"), "no other settings are named 'a'"),
    ],
)
def test_an_unknown_name_is_a_message(project: Project, arguments: tuple[str, ...], told: str) -> None:
    ended = project.llmbatch_here("diff", *arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert told in ended.stderr


def test_a_name_of_several_is_a_message(project: Project) -> None:
    schema = next(iter(project.outputs().values()))["meta"]["identity"]["schema_sha"]
    project.prompt("generation", {**GENERATION, "user": "{context}\n\nAnswer it a third time."})
    ended = project.llmbatch_here("diff", "--against", schema)
    assert ended.returncode == 2
    assert "it can be any of" in ended.stderr


def test_without_anything_earlier_there_is_nothing_to_compare(tmp_path: Path) -> None:
    project = make_project(tmp_path / "new")
    nothing = "Nothing to compare: these items were never generated with other settings.\n"
    for arguments in ((), ("--list",), ("--html", "page.html")):
        ended = project.llmbatch_here("diff", *arguments)
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, nothing, "")
    assert not project.path("page.html").exists()
    told = diff(project)
    assert (told["before"], told["differences"], told["items"], told["left_out"]) == (None, None, [], 0)
    # The named fields and columns have to exist.
    assert project.llmbatch_here("diff", "--against", "abcdef").returncode == 2


def test_offline_outputs_are_another_identity(project: Project) -> None:
    known = diff(project, "--offline", "--list")
    assert [one["differs_in"] for one in known] == [["parameters_changed"], ["prompt_changed", "parameters_changed"]]


def test_outputs_whose_provenance_is_gone_are_still_compared(project: Project) -> None:
    shutil.rmtree(project.path("artifacts/cache/provenance"))
    told = diff(project)
    assert (told["counts"]["changed"], told["counts"]["newly_passing"]) == (1, 1)
