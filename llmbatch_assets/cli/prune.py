"""``llmbatch prune``: what the present settings do not use, listed or deleted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import click

from llmbatch_assets.cli.session import (
    config_option,
    json_option,
    open_batch_file,
    print_json,
    print_line,
    reporting_errors,
)
from llmbatch_assets.domain.text import counted
from llmbatch_assets.stages.project import Batch
from llmbatch_assets.stages.prune import Pruning, Unused, delete, find_unused

LOST = (
    "What is lost with them: going back to an earlier prompt, schema, model or judge pays for its outputs again, and "
    "llmbatch diff and the history of failed attempts reach back no further than the present settings."
)
_UNITS = ("bytes", "kB", "MB", "GB")
_STEP = 1000


@click.command()
@config_option
@click.option(
    "--yes/--dry-run", "is_deleting", default=False, help="Delete, or only list what would be.  [default: --dry-run]"
)
@click.option("--gone-rows", is_flag=True, help="Also what the present settings made for rows that the table has lost.")
@json_option
def prune(config: str | None, is_deleting: bool, gone_rows: bool, as_json: bool) -> None:
    """List or delete files that the current settings do not use.

    These are outputs and failed attempts of other prompts, schemas, models or judges (made-up ones of --offline, too),
    what was set aside or left over, and archived schema files. What the present settings of any batch in configs/ point
    at stays, as do outputs that the present judge has still to see, and the ledger of calls.

    Exit codes: 0, 1 while a run is at work, 2 for wrong configuration or input.
    """
    with reporting_errors():
        batch_file = open_batch_file(config)
        pruning, batch = find_unused(batch_file, gone_rows=gone_rows), batch_file.load()
        kinds = _by_kind(pruning.unused)
        if is_deleting:
            delete(batch, pruning.unused)
        if as_json:
            print_json(_as_json(batch, pruning, kinds, is_deleting))
            return
        for line in _lines(pruning, kinds, is_deleting):
            print_line(line)


def _by_kind(unused: Sequence[Unused]) -> dict[str, dict[str, int]]:
    """Number and size of the files of each kind."""
    kinds: dict[str, dict[str, int]] = {}
    for file in unused:
        counted = kinds.setdefault(file.kind, {"n_files": 0, "bytes": 0})
        counted["n_files"] += 1
        counted["bytes"] += file.path.stat().st_size
    return kinds


def _lines(pruning: Pruning, kinds: dict[str, dict[str, int]], is_deleted: bool) -> Iterator[str]:
    if not kinds:
        yield "nothing to prune"
    else:
        yield "deleted:" if is_deleted else "would be deleted (--yes deletes it, --json names each file):"
    for kind, totals in kinds.items():
        yield f"  {kind}: {counted(totals['n_files'], 'file')}, {_size(totals['bytes'])}"
    if kinds:
        yield f"{counted(len(pruning.unused), 'file')}, {_size(sum(totals['bytes'] for totals in kinds.values()))} in all"
        yield LOST
    if pruning.n_gone_rows_kept:
        yield (
            f"kept: {counted(pruning.n_gone_rows_kept, 'file')} that the present settings made for rows that have gone; "
            "--gone-rows takes them, too"
        )


def _size(number: float) -> str:
    for unit in _UNITS[:-1]:
        if number < _STEP:
            return f"{number:.0f} {unit}" if unit == "bytes" else f"{number:.1f} {unit}"
        number /= _STEP
    return f"{number:.1f} {_UNITS[-1]}"


def _as_json(batch: Batch, pruning: Pruning, kinds: dict[str, dict[str, int]], is_deleted: bool) -> dict[str, Any]:
    return {
        "deleted": is_deleted,
        "kinds": [{"kind": kind, **counted} for kind, counted in kinds.items()],
        "n_gone_rows_kept": pruning.n_gone_rows_kept,
        "files": [batch.shown(file.path) for file in pruning.unused],
    }
