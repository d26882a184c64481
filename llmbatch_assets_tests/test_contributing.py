"""``CONTRIBUTING.md``: the code of each recipe runs and has the effect that the recipe promises."""

from __future__ import annotations

import asyncio
import re
import sys
import types
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from llmbatch_assets.adapters.providers.registry import PROVIDERS, open_client
from llmbatch_assets.adapters.tables.formats import EXPORTERS, READERS, exporting, read_table
from llmbatch_assets.cli import COMMANDS, main
from llmbatch_assets.domain.configuration.parameters import read_parameters
from llmbatch_assets.domain.export.columns import Column
from llmbatch_assets.domain.grouping_modes import GROUPING_MODES
from llmbatch_assets.domain.items.grouping import plan_work
from llmbatch_assets.domain.items.table import RawTable, take_snapshot
from llmbatch_assets.domain.outcome import AcceptedOutput
from llmbatch_assets.domain.prompt import Message
from llmbatch_assets.domain.request import ChatRequest
from llmbatch_assets.errors import TableError
from llmbatch_assets_tests.project import make_project

PAGE = Path(__file__).parents[1] / "CONTRIBUTING.md"
REGISTRIES: list[dict[str, Any]] = [READERS, EXPORTERS, PROVIDERS, COMMANDS, GROUPING_MODES]


def recipes() -> dict[str, list[str]]:
    """The Python blocks of each recipe, by heading."""
    text = PAGE.read_text(encoding="utf-8").split("\n## Recipes\n")[1].split("\n## ")[0]
    sections = (part.partition("\n") for part in text.split("\n### ")[1:])
    return {heading: re.findall(r"^```python\n(.*?)^```$", body, re.M | re.S) for heading, _, body in sections}


RECIPES = recipes()


@pytest.fixture(autouse=True)
def registries_are_restored() -> Iterator[None]:
    before = [dict(registry) for registry in REGISTRIES]
    yield
    for registry, entries in zip(REGISTRIES, before, strict=True):
        registry.clear()
        registry.update(entries)


def follow(heading: str) -> dict[str, Any]:
    """Run the code of a recipe; return the names that it defines."""
    namespace: dict[str, Any] = {"__name__": "recipe"}
    for block in RECIPES[heading]:
        exec(compile(block, f"CONTRIBUTING.md, {heading}", "exec"), namespace)  # noqa: S102  # our own documentation
    return namespace


def test_every_recipe_has_code_and_a_test() -> None:
    assert all(RECIPES.values())
    tests = Path(__file__).read_text(encoding="utf-8")
    assert [heading for heading in RECIPES if f'("{heading}")' not in tests] == []


def test_a_table_format_can_be_added(tmp_path: Path) -> None:
    follow("Add a table format")
    path = tmp_path / "input.ini"
    path.write_text("topic=rivers\nlength=short\n", encoding="utf-8")
    settings = read_parameters({}).input

    table = take_snapshot(read_table(path, settings), str(path), settings)

    assert table.rows == [{"name": "topic", "value": "rivers"}, {"name": "length", "value": "short"}]
    path.write_text("rivers\n", encoding="utf-8")
    with pytest.raises(TableError, match="line 1 has no '='"):
        read_table(path, settings)


def row(*cells: str) -> Any:
    return types.SimpleNamespace(record={}, cells=cells)


def test_an_export_format_can_be_added(tmp_path: Path) -> None:
    follow("Add an export format")
    path, changes = tmp_path / "output.md", dict[str, Counter[str]]()
    columns = [Column("id", "row", ("id",)), Column("answer", "parsed", ("answer",))]

    with exporting({"md": path}, columns, changes, escape_formulas=True) as write:
        write([row("q1", "blue"), row("q2", "red")])

    assert path.read_text(encoding="utf-8").splitlines() == [
        "| id | answer |",
        "| --- | --- |",
        "| q1 | blue |",
        "| q2 | red |",
    ]


def test_a_grouping_mode_can_be_added() -> None:
    follow("Add a grouping mode")
    parameters = read_parameters({"grouping": {"enabled": True, "column": "team", "mode": "first_row_of_group"}})
    rows = [["q1", "red"], ["q2", "red"], ["q3", "blue"]]
    snapshot = take_snapshot(RawTable(["id", "team"], rows, "csv"), "input.csv", parameters.input)

    plan = plan_work(snapshot, parameters)

    assert [item.row_index for item in plan.items] == [0, 2]


def test_a_provider_can_be_added(tmp_path: Path) -> None:
    follow("Add a provider")
    llm = read_parameters({}).llm.model_copy(update={"provider": "echo"})

    async def ask() -> str:
        async with open_client(llm, tmp_path) as client:
            return (await client.complete(ChatRequest("generate", (Message("user", "Hello"),), None))).text

    assert asyncio.run(ask()) == "Hello"


def test_a_command_can_be_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.SimpleNamespace(**follow("Add a command"))
    monkeypatch.setitem(sys.modules, "llmbatch_assets.cli.count", module)
    project = make_project(tmp_path)

    ended = CliRunner().invoke(main, ["count", "--config", str(project.config)])

    assert (ended.exit_code, ended.output) == (0, "raw_data/input.csv\n")
    assert COMMANDS["count"] in CliRunner().invoke(main, ["count", "--help"]).output


def test_a_field_with_a_default_leaves_existing_artifacts_valid() -> None:
    extended = follow("Add a field to an artifact")["AcceptedOutputWithLanguage"]
    stored = AcceptedOutput(meta={}, parsed={"answer": "blue"}, judge=None, usage={}, latency_sec=0.5)

    read = extended.model_validate(stored.model_dump())

    assert read.model_dump() == {**stored.model_dump(), "language": ""}
