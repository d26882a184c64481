"""``llmbatch init``: create a project with a sample that is ready to run."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

import click

from llmbatch_assets.cli.session import print_lines, reporting_errors
from llmbatch_assets.domain.text import slug
from llmbatch_assets.stages.project import create_files

# Packages cannot hold a file of this name.
_RENAMED = {"gitignore": ".gitignore"}
_NAME = b"@name@"
DEFAULT_NAME = "llm-batches"
# Many folders already have one.
_OPTIONAL = "README.md"


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
def init(folder: Path) -> None:
    """Create a new project in a folder.

    The project contains a sample: a table, prompts, a schema, a commented configuration, and Dagster's
    settings. DIR is created if it does not exist. Existing files are never overwritten: if one of the project's files
    already exists, nothing is written. Only an existing README.md is kept.

    Exit codes: 0 success, 2 a file already exists.
    """
    with reporting_errors():
        files = dict(project_files(folder.resolve().name))
        if (folder / _OPTIONAL).exists():
            del files[_OPTIONAL]
        create_files(folder, files)
    print_lines(f"Created a project of {len(files)} files in {folder}. Next steps:")
    print_lines(*(line.format(folder=folder) for line in NEXT_STEPS))


NEXT_STEPS = (
    "  cd {folder}",
    "  llmbatch check          find mistakes in the configuration, prompts, schema and table",
    "  llmbatch run --offline  dry run with made-up answers",
    "  llmbatch run            run a small model on this machine: pip install 'llmbatch-assets[local]'",
    "  llmbatch ui             open the project in Dagster",
    "Answers that you pay for are kept in artifacts/cache/, which git ignores: back it up (README.md says how).",
    "Then replace the sample's table, prompts and schema with your own; their paths are in configs/parameters.yaml.",
)


def project_files(name: str) -> Iterator[tuple[str, bytes]]:
    """The files of a new project called ``name``, by path."""
    package = resources.files("llmbatch_assets.cli")
    yield "dagster_home/dagster.yaml", package.joinpath("dagster.yaml").read_bytes()
    project_name = (slug(name) if name.isascii() else "") or DEFAULT_NAME
    for path, file in _walk(package.joinpath("project")):
        yield _RENAMED.get(path, path), file.read_bytes().replace(_NAME, project_name.encode())


def _walk(folder: Traversable, above: str = "") -> Iterator[tuple[str, Traversable]]:
    for entry in sorted(folder.iterdir(), key=lambda one: one.name):
        if entry.is_dir() and entry.name != "__pycache__":
            yield from _walk(entry, f"{above}{entry.name}/")
        elif entry.is_file():
            yield f"{above}{entry.name}", entry
