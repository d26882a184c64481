"""Every broken input ends in exact messages, the same from ``check``, ``run`` and ``plan``, and nothing is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from llmbatch_assets.domain.text import flatten
from llmbatch_assets_tests.chat_server import ChatServer
from llmbatch_assets_tests.cli.broken_inputs import BROKEN, KEY, Spoil, expected, mistakes_of, text
from llmbatch_assets_tests.project import Project, make_project

EXPECTED = expected()


def test_every_broken_input_has_messages() -> None:
    assert list(EXPECTED) == list(BROKEN)
    assert [name for name, mistakes in EXPECTED.items() if not mistakes] == []
    assert len(BROKEN) >= 100


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_input_is_reported_exactly_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    project = make_project(tmp_path / "project")
    BROKEN[name](project)
    before = project.tree()

    assert mistakes_of(project) == EXPECTED[name]

    run = ("run",) if name.startswith("budget") else ("run", "--offline")
    for command in (run, ("plan",)):
        ended = project.llmbatch_here(*command)
        assert (ended.returncode, ended.stdout) == (2, "")
        told = ended.stderr.replace(str(project.root), "ROOT")
        assert flatten(told.strip()) == " ".join(["llmbatch:", *EXPECTED[name]])
        assert KEY not in ended.stderr
    assert project.tree() == before


# A problem that only prevents calls is a warning of check, and stops a run.

NOT_CALLED: dict[str, tuple[Spoil, str]] = {
    "no key": (lambda project: None, "MY_KEY is not set: set this environment variable or add it to credentials.yaml"),
    "another key": (
        text("credentials.yaml", "OTHER_KEY: secret-1\n"),
        ("MY_KEY is not set: credentials.yaml has no line 'MY_KEY: the key'; add it, or set this environment variable"),
    ),
    "tab": (
        text("credentials.yaml", "keys:\n\tMY_KEY: secret-1\n"),
        (
            "MY_KEY is not set, and credentials.yaml cannot be read: line 2 is not valid YAML; write one line for each key: "
            "'MY_KEY: the key'; correct the file"
        ),
    ),
    "quote": (
        text("credentials.yaml", 'MY_KEY: "secret-1\n'),
        (
            "MY_KEY is not set, and credentials.yaml cannot be read: line 1 is not valid YAML; write one line for each key: "
            "'MY_KEY: the key'; correct the file"
        ),
    ),
    "no YAML": (
        text("credentials.yaml", "MY_KEY=secret-1\n"),
        (
            "MY_KEY is not set, and credentials.yaml cannot be read: it is not a mapping; write one line for each key: "
            "'MY_KEY: the key'; correct the file"
        ),
    ),
    "twice": (
        text("credentials.yaml", "MY_KEY: secret-1\nMY_KEY: secret-2\n"),
        (
            "MY_KEY is not set, and credentials.yaml cannot be read: line 2 is not valid YAML; write one line for each key: "
            "'MY_KEY: the key'; correct the file"
        ),
    ),
    "number": (
        text("credentials.yaml", "MY_KEY: 12345\n"),
        (
            "MY_KEY is not set, and credentials.yaml cannot be read: the value of MY_KEY is not text; put it in quotes; "
            "correct the file"
        ),
    ),
    "null": (
        text("credentials.yaml", "MY_KEY:\n"),
        "MY_KEY is not set: credentials.yaml has no line 'MY_KEY: the key'; add it, or set this environment variable",
    ),
    "alias bomb": (
        text(
            "credentials.yaml",
            f"a: &a [x, x]\n{''.join(f'b{n}: &b{n} [*a, *a]' + chr(10) for n in range(3))}MY_KEY: *c\n",
        ),
        (
            "MY_KEY is not set, and credentials.yaml cannot be read: line 5 is not valid YAML; write one line for each key: "
            "'MY_KEY: the key'; correct the file"
        ),
    ),
}


@pytest.mark.parametrize("name", NOT_CALLED)
def test_a_key_that_cannot_be_read_is_a_warning_and_stops_a_run(
    project_with: Callable[..., Project], server: ChatServer, name: str
) -> None:
    spoil, problem = NOT_CALLED[name]
    project = project_with(llm={"api_key_env": "MY_KEY"})
    spoil(project)
    before = project.tree()

    checked = project.llmbatch_here("check")
    assert checked.returncode == 0
    assert f"warning: {problem}; runs that need the model will not start" in checked.stdout.splitlines()
    ended = project.llmbatch_here("run")
    assert (ended.returncode, ended.stdout, ended.stderr) == (2, "", f"llmbatch: {problem}\n")
    assert "secret-" not in checked.stdout + ended.stderr
    assert server.count() == 0
    assert project.tree() == before


@pytest.mark.parametrize("option", ["--limit=0", "--sample=0", "--limit=-1", "--limit=many"])
@pytest.mark.parametrize("command", ["run", "plan"])
def test_a_number_of_items_is_at_least_one(tmp_path: Path, command: str, option: str) -> None:
    ended = make_project(tmp_path / "project").llmbatch_here(command, option)
    assert ended.returncode == 2
    assert f"Invalid value for '{option.partition('=')[0]}'" in ended.stderr
