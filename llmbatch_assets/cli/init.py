"""``llmbatch init``: a new project that runs at once."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

import click

from llmbatch_assets.adapters.files.atomic import write_atomically
from llmbatch_assets.cli.session import print_line, telling_mistakes
from llmbatch_assets.domain.text import slug
from llmbatch_assets.errors import InputError

# Files that a package cannot hold by their own names, or that have another place in it.
_PLACES = {"gitignore": ".gitignore"}
_NAME = b"@name@"
DEFAULT_NAME = "llm-batches"


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
def init(folder: Path) -> None:
    """Make a new project in a folder.

    It holds a sample: a table, prompts, a schema, a configuration in which each key is explained, and what Dagster needs.
    DIR is made where it is missing. No file that exists is written over: where one is in the way, nothing is written.

    Exit codes: 0, 2 where a file is in the way.
    """
    with telling_mistakes():
        files = dict(project_files(folder.resolve().name))
        in_the_way = [str(folder / name) for name in files if (folder / name).exists()]
        if in_the_way:
            raise InputError(
                f"nothing was written, since there are already: {', '.join(in_the_way)}; name another folder, or move them"
            )
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{folder} is a file; name a folder")
        for name, content in files.items():
            write_atomically(folder / name, content)
    for line in _next_steps(folder, len(files)):
        print_line(line)


def project_files(name: str) -> Iterator[tuple[str, bytes]]:
    """The files of a new project by their paths; ``name`` is what the project is called."""
    package = resources.files("llmbatch_assets.cli")
    yield "dagster_home/dagster.yaml", package.joinpath("dagster.yaml").read_bytes()
    project_name = (slug(name) if name.isascii() else "") or DEFAULT_NAME
    for path, file in _walk(package.joinpath("project")):
        yield _PLACES.get(path, path), file.read_bytes().replace(_NAME, project_name.encode())


def _walk(folder: Traversable, above: str = "") -> Iterator[tuple[str, Traversable]]:
    for entry in sorted(folder.iterdir(), key=lambda one: one.name):
        if entry.is_dir() and entry.name != "__pycache__":
            yield from _walk(entry, f"{above}{entry.name}/")
        elif entry.is_file():
            yield f"{above}{entry.name}", entry


def _next_steps(folder: Path, n_files: int) -> list[str]:
    return [
        f"made a project of {n_files} files in {folder}; go on with:",
        f"  cd {folder}",
        "  llmbatch check          what is there, and whether it fits together",
        "  llmbatch run --offline  a dry run with made-up answers",
        "  llmbatch run            with a small model on this machine: pip install 'llmbatch-assets[local]'",
        "  llmbatch ui             the same in Dagster",
        "Then put your own table, prompts and schema in place of the sample's; configs/parameters.yaml says where.",
    ]
