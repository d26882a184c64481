"""Shared by all commands: options, logging, the project's Dagster instance, error messages and exit codes."""

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

from llmbatch_assets.domain.canonical import readable_json
from llmbatch_assets.domain.text import visible, visible_json
from llmbatch_assets.errors import InputError, LlmBatchError
from llmbatch_assets.stages.project import BatchFile, find_config, prepare_dagster_home
from llmbatch_assets.stages.runtime import naming_disk_errors
from llmbatch_assets.stages.unchanged.records import dagster_home

EXIT_STOPPED = 1
EXIT_INPUT = 2
EXIT_FAILED_ITEMS = 3

# Dagster stores this many events at once when it plans the partitions of a run.
EVENT_BATCH_SIZE = "500"
# The parent of our loggers, which run.log_level controls.
LOGGER = "llmbatch_assets"


class TextConsole(Console):
    """A console that prints text as it is, with control characters shown as escapes."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, soft_wrap=True, **options)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print texts and tables. The cells of a table must be ``visible`` already."""
        super().print(*(visible(one) if isinstance(one, str) else one for one in objects), **options)


console = TextConsole()

config_option = click.option(
    "--config", "config", metavar="FILE", help="Configuration file; default: the nearest configs/parameters.yaml."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print machine-readable JSON.")
offline_option = click.option("--offline", is_flag=True, help="Use the outputs of llmbatch run --offline.")


def print_lines(*lines: str) -> None:
    """Print lines that may contain user data: control characters are shown as escapes."""
    for line in lines:
        click.echo(visible(line))


def print_json(value: Any) -> None:
    """Print a value as JSON, with control characters shown as escapes."""
    click.echo(visible_json(readable_json(value)))


def exit_with_error(message: str, code: int) -> NoReturn:
    """Print the message on standard error and exit with ``code``."""
    click.echo(f"llmbatch: {visible(message)}", err=True)
    sys.exit(code)


@contextmanager
def reporting_errors() -> Iterator[None]:
    """Turn our own errors, file errors and Ctrl-C into a message and an exit code, without a traceback."""
    try:
        with naming_disk_errors():
            yield
    except InputError as mistake:
        exit_with_error(str(mistake), EXIT_INPUT)
    except LlmBatchError as trouble:
        exit_with_error(str(trouble), EXIT_STOPPED)
    except BrokenPipeError:
        # The reader of our output has closed the pipe; click exits quietly.
        raise
    except OSError as trouble:
        exit_with_error(f"a file cannot be used: {trouble.strerror or trouble}", EXIT_STOPPED)
    except KeyboardInterrupt:
        exit_with_error("interrupted", 128 + signal.SIGINT)


def open_batch_file(config: str | None, *, offline: bool = False) -> BatchFile:
    """The batch named by the command line, the environment or the working directory."""
    return BatchFile(find_config(config, os.environ, Path.cwd()), offline)


class _ErrorLines(logging.Handler):
    """Writes to the current ``sys.stderr``, which a live display replaces so that lines do not break it."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Drop interrupts that a library logs: the run reports them once, at its end."""
        kind = record.exc_info[0] if record.exc_info else None
        return (kind is None or issubclass(kind, Exception)) and bool(super().filter(record))

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(visible(self.format(record)), err=True)


def set_up_logging(level: str) -> None:
    """Show our log lines from ``level`` up, and warnings of everything else."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", handlers=[_ErrorLines()])
    logging.getLogger(LOGGER).setLevel(level)


def use_project_instance(root: Path) -> Path:
    """Point Dagster at the project's own instance, unless the environment names another, and return its folder.

    Also lets this process and its children store events in batches. Dagster's PostgreSQL storage cannot do so for planned
    events, which take 11 ms each; with PostgreSQL, a range of partitions is planned in one event.
    """
    os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", EVENT_BATCH_SIZE)
    home = dagster_home(root)
    os.environ["DAGSTER_HOME"] = str(home)
    if prepare_dagster_home(home, resources.files("llmbatch_assets.cli").joinpath("dagster.yaml").read_bytes()):
        os.environ.setdefault("DAGSTER_EMIT_PARTITION_SUBSET_IN_PLANNED_EVENTS", "1")
    return home
