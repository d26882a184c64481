"""Generated pages are up to date, and the help of commands is complete."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml
from pydantic import BaseModel

from llmbatch_assets.cli import COMMANDS, main
from llmbatch_assets.domain.configuration.environment import resolve_environment
from llmbatch_assets.domain.configuration.parameters import Parameters, read_parameters

ROOT = Path(__file__).parents[1]
MADE: dict[str, bytes] = runpy.run_path(str(ROOT / "docs/build.py"))["files"]()


@pytest.mark.parametrize("path", MADE)
def test_generated_files_are_up_to_date(path: str) -> None:
    assert (ROOT / path).read_bytes() == MADE[path], "generate it again with: python docs/build.py"


def keys(model: type[BaseModel], above: str = "") -> Iterator[tuple[str, str | None]]:
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from keys(kind, f"{above}{name}.")
        else:
            yield f"{above}{name}", field.description


def test_every_key_has_a_row_and_a_description() -> None:
    page = MADE["docs/configuration.md"].decode()
    for key, description in keys(Parameters):
        assert description, key
        assert page.count(f"| `{key}`") == 1


@pytest.mark.parametrize(
    "page", ["README.md", "docs/calls.md", "docs/embedding.md", "docs/exports.md", "docs/tutorial.md"]
)
def test_every_configuration_that_a_page_shows_is_taken(page: str) -> None:
    shown = re.findall(r"^ *```yaml\n(.*?)^ *```$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert shown
    environment = {"TRIAGE_MODEL": "a-model", "TRIAGE_WORKERS": "8"}
    for block in shown:
        read_parameters(resolve_environment(yaml.safe_load(block), environment).mapping)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_each_of_its_options_has_help(name: str) -> None:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    assert command.help is not None
    # The list of commands, which imports none of them, says the same.
    assert " ".join(command.help.split("\n\n")[0].split()) == COMMANDS[name]
    assert "Exit codes:" in command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name


def test_help_is_quick_since_no_command_is_imported_for_it() -> None:
    code = (
        "import sys; from llmbatch_assets.cli import main; main(['--help'], standalone_mode=False); print(*sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    imported = set(ended.stdout.splitlines()[-1].split())
    assert "click" in imported
    assert not {"dagster", "pydantic", "yaml", "rich", "orjson"} & imported
