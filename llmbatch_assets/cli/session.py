"""What the commands share: the project, its Dagster instance, and how mistakes are told."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any, NoReturn

import click
from rich.console import Console

from llmbatch_assets.adapters.files.atomic import write_atomically
from llmbatch_assets.adapters.files.yaml_files import is_in_postgres
from llmbatch_assets.domain.canonical import readable_json
from llmbatch_assets.domain.text import visible, visible_json
from llmbatch_assets.errors import ConfigError, InputError, LlmBatchError
from llmbatch_assets.stages.project import BatchFile, find_config

EXIT_STOPPED = 1
EXIT_INPUT = 2
EXIT_FAILED_ITEMS = 3

# How many events Dagster collects before it stores them: those of a run's partitions, which it plans all at once.
EVENT_BATCH_SIZE = "500"

console = Console(highlight=False, markup=False, soft_wrap=True)

config_option = click.option(
    "--config", "config", metavar="FILE", help="Configuration file; default: the nearest configs/parameters.yaml."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
offline_option = click.option("--offline", is_flag=True, help="Look at the made-up outputs of llmbatch run --offline.")


def print_line(line: str) -> None:
    """Print a line in which anything may stand: controls that a terminal would obey are shown as escapes."""
    click.echo(visible(line))


def print_json(value: Any) -> None:
    """Print a value as JSON that a terminal can show, too."""
    click.echo(visible_json(readable_json(value)))


def complain(message: str, code: int) -> NoReturn:
    """Tell what is wrong on standard error and end with ``code``."""
    click.echo(f"llmbatch: {visible(message)}", err=True)
    sys.exit(code)


@contextmanager
def telling_mistakes() -> Iterator[None]:
    """End with the message of an error that was raised on purpose, without a traceback."""
    try:
        yield
    except InputError as mistake:
        complain(str(mistake), EXIT_INPUT)
    except LlmBatchError as trouble:
        complain(str(trouble), EXIT_STOPPED)
    except BrokenPipeError:
        # Whoever read what is printed has seen enough; click ends without a word.
        raise
    except OSError as trouble:
        complain(f"{trouble.filename or 'a file'} cannot be used: {trouble.strerror or trouble}", EXIT_STOPPED)
    except KeyboardInterrupt:
        complain("interrupted", 128 + signal.SIGINT)


def open_batch_file(config: str | None, *, offline: bool = False) -> BatchFile:
    """The batch that the command line, the environment or the working directory names."""
    return BatchFile(find_config(config, os.environ, Path.cwd()), offline)


class _ErrorLines(logging.Handler):
    """Writes to whatever standard error is at the time: a live display puts its own in place, to stay whole."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Leave out an interrupt that a library met with on its way: a run tells of it once it has ended."""
        kind = record.exc_info[0] if record.exc_info else None
        return (kind is None or issubclass(kind, Exception)) and bool(super().filter(record))

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(self.format(record), err=True)


def set_up_logging(level: str) -> None:
    """Show our log lines and those of the HTTP client from ``level`` on, and warnings of everything else."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", handlers=[_ErrorLines()])
    for name in ("llmbatch_assets", "openai", "httpx2"):
        logging.getLogger(name).setLevel(level)


def use_project_instance(root: Path) -> Path:
    """Point Dagster at the project's own instance, unless the environment names another; gives its folder.

    This process and those that it starts also write events in batches, where the storage can. PostgreSQL's does not for
    planned ones, 11 ms each: there a range is planned in one event.
    """
    os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", EVENT_BATCH_SIZE)
    home = Path(os.environ.get("DAGSTER_HOME") or root / "dagster_home").resolve()
    os.environ["DAGSTER_HOME"] = str(home)
    settings = home / "dagster.yaml"
    try:
        if not settings.exists():
            write_atomically(settings, resources.files("llmbatch_assets.cli").joinpath("dagster.yaml").read_bytes())
        if is_in_postgres(settings):
            os.environ.setdefault("DAGSTER_EMIT_PARTITION_SUBSET_IN_PLANNED_EVENTS", "1")
    except OSError as refused:
        raise ConfigError(f"DAGSTER_HOME is {home}, which cannot be used: {refused.strerror}") from refused
    return home
