"""``llmbatch check``: report every mistake in the user's files at once."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import click

from llmbatch_assets.cli.session import (
    EXIT_INPUT,
    config_option,
    open_batch_file,
    print_lines,
    reporting_errors,
    set_up_logging,
)
from llmbatch_assets.domain.text import counted, flatten
from llmbatch_assets.stages.checking.batch_check import CheckResult, check_batch
from llmbatch_assets.stages.checking.ping import ping
from llmbatch_assets.stages.project import BatchFile, config_files


@click.command()
@config_option
@click.option(
    "--ping", "is_pinged", is_flag=True, help="Also make one minimal call to each model; this may cost a little."
)
def check(config: str | None, is_pinged: bool) -> None:
    """Find every mistake in configuration, prompts, schema and table.

    Reports every mistake in all files, and suspicious settings as warnings. Makes no calls (except with --ping) and
    writes nothing. Without --config, checks every batch in configs/.

    Exit codes: 0 no mistakes (there may be warnings), 2 mistakes, or a model that does not respond.
    """
    with reporting_errors():
        batch_file = open_batch_file(config)
        set_up_logging(logging.getLevelName(logging.WARNING))
        files = [batch_file] if config else [BatchFile(path) for path in config_files(batch_file.path)]
        passed = [_check(one, is_pinged) for one in files]
    if not all(passed):
        sys.exit(EXIT_INPUT)


def _check(batch_file: BatchFile, is_pinged: bool) -> bool:
    found = check_batch(batch_file)
    for kind, lines in (("mistake", found.mistakes), ("warning", [*found.warnings, *found.remarks])):
        print_lines(*(f"{kind}: {flatten(line)}" for line in lines))
    print_lines(f"{_shown(batch_file)}: {_summary(found)}")
    if not is_pinged or found.mistakes:
        return not found.mistakes
    return _ping_models(batch_file)


def _shown(batch_file: BatchFile) -> str:
    path = batch_file.path
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _summary(found: CheckResult) -> str:
    planned = "" if found.work is None else f", {counted(len(found.work.items), 'item')}"
    warnings = [*found.warnings, *found.remarks]
    return f"{_number_of(found.mistakes, 'mistake')}, {_number_of(warnings, 'warning')}{planned}"


def _number_of(lines: list[str], what: str) -> str:
    return counted(len(lines), what) if lines else f"no {what}s"


def _ping_models(batch_file: BatchFile) -> bool:
    pongs = list(ping(batch_file.load()))
    print_lines(*(pong.message for pong in pongs))
    return all(pong.answered for pong in pongs)
